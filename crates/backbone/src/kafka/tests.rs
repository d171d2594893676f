//! The Kafka backbone without a cluster; with one it is tested in `tests/kafka`.
