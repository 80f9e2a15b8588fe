//! librdkafka's in-process broker, for `demo` and first steps.
