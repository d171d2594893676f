//! The Kafka protocol over the log: topics, groups, idempotent producers.
