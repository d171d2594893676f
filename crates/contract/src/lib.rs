//! Event types, schemas, canonical JSON, digests and the producer chain.
