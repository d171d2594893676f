//! The shared-storage log: wal, tail, objects, index, retention.
