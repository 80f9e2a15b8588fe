//! The loop: poll, collect, route, deliver, checkpoint.

pub mod options;
