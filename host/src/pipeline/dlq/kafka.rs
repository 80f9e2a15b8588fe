//! Kafka as the dead letter queue.
