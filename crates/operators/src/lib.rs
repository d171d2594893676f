//! The operators' side: credential, approvals, health and metrics over HTTP.
