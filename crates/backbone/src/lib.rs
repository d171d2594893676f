//! Writing events to the embedded log or a Kafka cluster, and reading them.
