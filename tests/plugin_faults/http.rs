//! Requests that no grant covers, and answers that are too much.

attacks! {}
