//! OTLP: what an export request holds, whichever way it was written.
//!
//! [`protobuf`] and [`json`] read a request span by span and hand each on at once, so that no more of it is in memory than the one that is
//! looked at. What is over a bound is refused by itself and counted; what is no request of OTLP at all is an error. Source: OTLP 1.9,
//! opentelemetry-proto `collector/trace/v1`, `collector/logs/v1`.
//!
//! Read here and not by a generated library, because those build the whole request first, and a few bytes of it become a few hundred
//! in memory; and because it is little.

pub(crate) mod json;
pub(crate) mod protobuf;
pub(crate) mod wire;

use std::collections::BTreeMap;

use serde_json::Value;

/// Spans or log records of a request that are looked at; what comes after them is refused.
pub(crate) const ITEMS_MAX: usize = 8_192;
/// Attributes of one span with its events.
const ATTRIBUTES_MAX: usize = 4_096;
/// Values in the attributes of one span, members and items included.
const VALUES_MAX: usize = 65_536;
/// Deepest nesting of a value.
const DEPTH_MAX: usize = 32;
/// Events of one span that are looked at.
const EVENTS_MAX: usize = 512;

/// Attributes by name. Where a name comes twice the last counts.
pub(crate) type Attributes = BTreeMap<String, Value>;

/// Who wrote spans: their resource and their instrumentation.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Source {
    /// The resource's attributes.
    pub(crate) resource: Attributes,
    /// The instrumentation's name and version.
    pub(crate) scope: String,
    pub(crate) scope_version: String,
}

/// A span, as far as anything here looks at it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Span {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) parent_span_id: Option<[u8; 8]>,
    pub(crate) name: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) attributes: Attributes,
    pub(crate) events: Vec<Event>,
    /// Whether its status is an error, and what it says.
    pub(crate) error: Option<String>,
}

/// An event of a span, or a log record.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) attributes: Attributes,
    pub(crate) body: Value,
}

/// A log record of a span.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct LogRecord {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) time_ns: u64,
    pub(crate) event: Event,
}

/// Why one span is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Excess {
    /// More than are looked at in one request.
    Items,
    /// Too many attributes or values.
    Values,
    /// Values that nest too deeply.
    Depth,
    /// Ids that are none.
    Ids,
}

impl Excess {
    /// What to do about it.
    pub(crate) fn says(self) -> String {
        match self {
            Self::Items => format!("a request has at most {ITEMS_MAX} spans or records: send fewer at a time"),
            Self::Values => format!("a span has at most {ATTRIBUTES_MAX} attributes and {VALUES_MAX} values in them"),
            Self::Depth => format!("attributes nest at most {DEPTH_MAX} deep"),
            Self::Ids => "a trace id has 16 bytes and a span id 8, and neither is zero".to_owned(),
        }
    }
}

/// Why a request cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the body is no export request of OTLP in {format}: {what}")]
pub(crate) struct Malformed {
    pub(crate) format: &'static str,
    pub(crate) what: String,
}

/// What takes spans as they are read.
pub(crate) type Sink<'s, T> = &'s mut dyn FnMut(&Source, Result<T, Excess>);

/// How much of one span may still be read.
#[derive(Debug)]
pub(crate) struct Budget {
    attributes: usize,
    values: usize,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { attributes: ATTRIBUTES_MAX, values: VALUES_MAX }
    }

    fn attribute(&mut self) -> Result<(), Excess> {
        self.attributes = self.attributes.checked_sub(1).ok_or(Excess::Values)?;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), Excess> {
        if depth > DEPTH_MAX {
            return Err(Excess::Depth);
        }
        self.values = self.values.checked_sub(1).ok_or(Excess::Values)?;
        Ok(())
    }
}

/// Ids of spans, as bytes.
pub(crate) fn ids(trace: &[u8], span: &[u8]) -> Result<([u8; 16], [u8; 8]), Excess> {
    let trace: [u8; 16] = trace.try_into().map_err(|_| Excess::Ids)?;
    let span: [u8; 8] = span.try_into().map_err(|_| Excess::Ids)?;
    if trace == [0; 16] || span == [0; 8] {
        return Err(Excess::Ids);
    }
    Ok((trace, span))
}

/// The parent's id, where there is one.
fn parent(id: &[u8]) -> Option<[u8; 8]> {
    id.try_into().ok().filter(|id| *id != [0; 8])
}

#[cfg(test)]
pub(crate) mod tests;
