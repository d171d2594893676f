//! HTTP headers that mirror the body (2026-07-28, Streamable HTTP, Request Metadata).

mod annotation;

pub use annotation::ParamAnnotation;
