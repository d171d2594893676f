//! Decisions: Cedar policy sets, versions, obligations. Makes permits, does no I/O beyond reading policy files.
