//! Server-sent events (WHATWG HTML, section 9.2), as a decoder fed with chunks and an encoder. Called by the HTTP links
//! and by the gateway's own streams.
//!
//! Guarantees: chunks may break anywhere; a line or an event longer than the bound is an error, and nothing is kept of
//! a comment. An event that has no data but an id or a reconnection time is passed on, because a proxy must. Must never
//! wait: it has no sockets.

use bytes::Bytes;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `id:`, for resumption.
    pub id: Option<String>,
    /// `event:`; `message` where absent.
    pub event: Option<String>,
    /// `retry:`, in milliseconds.
    pub retry_ms: Option<u64>,
    /// `data:`, its lines joined with line feeds.
    pub data: Option<Bytes>,
}

impl Event {
    /// An event that carries one message.
    #[must_use]
    pub fn message(data: Bytes) -> Self {
        Self { data: Some(data), ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The bytes on the wire. Line breaks within the data begin further `data:` lines; in JSON they can only be space
    /// between tokens. In `id` and `event` they would end the field, so such a field is left out.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.data.as_ref().map_or(0, Bytes::len) + 64);
        for (name, value) in [("id", &self.id), ("event", &self.event)] {
            if let Some(value) = value.as_ref().filter(|value| !value.contains(['\r', '\n', '\0'])) {
                out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
            }
        }
        if let Some(retry) = self.retry_ms {
            out.extend_from_slice(format!("retry: {retry}\n").as_bytes());
        }
        if let Some(data) = &self.data {
            for line in lines(data) {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
        out.push(b'\n');
        out.into()
    }
}

/// A comment, which keeps a quiet connection open.
#[must_use]
pub const fn keep_alive() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// Splits at CR LF, LF and CR.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            rest = None;
            return Some(text);
        };
        let past = at + if text[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&text[past..]);
        Some(&text[..at])
    })
}

/// A line or an event exceeds the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event stream holds an event of more than {limit} bytes")]
pub struct EventTooLong {
    /// The bound.
    pub limit: usize,
}

/// Finds events in a stream of chunks.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The line that has not ended yet; a comment's line keeps only its colon.
    line: Vec<u8>,
    data: Vec<u8>,
    event: Event,
    /// The last byte was a CR, so that an LF now belongs to it.
    after_return: bool,
    begun: bool,
}

impl Decoder {
    /// A decoder that holds at most `limit` bytes of one event.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let event = Event::default();
        Self { limit, line: Vec::new(), data: Vec::new(), event, after_return: false, begun: false }
    }

    /// Reads one chunk and appends the events that end in it.
    ///
    /// # Errors
    /// [`EventTooLong`]; the stream cannot be read further.
    pub fn push(&mut self, chunk: &[u8], events: &mut Vec<Event>) -> Result<(), EventTooLong> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else {
                return self.keep(rest);
            };
            self.keep(&rest[..at])?;
            self.after_return = rest[at] == b'\r';
            rest = &rest[at + 1..];
            self.end_line(events)?;
        }
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), EventTooLong> {
        let part = if self.line.first() == Some(&b':') {
            &[]
        } else if self.line.is_empty() && part.first() == Some(&b':') {
            &part[..1]
        } else {
            part
        };
        // The field name and its colon come on top of what the data may have.
        if self.line.len() + part.len() + self.data.len() > self.limit.saturating_add(64) {
            return Err(EventTooLong { limit: self.limit });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), EventTooLong> {
        let line = std::mem::take(&mut self.line);
        let line = if std::mem::replace(&mut self.begun, true) {
            &line[..]
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line)
        };
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            if event.data.is_some() {
                event.data = Some(std::mem::take(&mut self.data).into());
            }
            if !event.is_empty() {
                events.push(event);
            }
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        self.field(&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), EventTooLong> {
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => {
                if self.event.data.is_some() {
                    self.data.push(b'\n');
                }
                if self.data.len() + value.len() > self.limit {
                    return Err(EventTooLong { limit: self.limit });
                }
                self.data.extend_from_slice(value);
                self.event.data = Some(Bytes::new());
            }
            b"event" => self.event.event = Some(text()),
            b"id" if !value.contains(&0) => self.event.id = Some(text()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.event.retry_ms = text().parse().ok();
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk, &mut events).expect("within the bound");
        }
        events
    }

    fn data(text: &'static str) -> Event {
        Event::message(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        let events = decode(&[b"\xef\xbb\xbfdata: a\r\ndata:b\rdata:  c\n\n: nothing\r\n\r\nid: 7\nretry: 250\n\n"]);
        let empty = Event { id: Some("7".to_owned()), retry_ms: Some(250), ..Event::default() };
        assert_eq!(events, [data("a\nb\n c"), empty]);
    }

    #[test]
    fn an_event_that_does_not_end_is_never_seen() {
        assert_eq!(decode(&[b"data: a\n\ndata: b\n"]), [data("a")]);
    }

    #[test]
    fn nothing_longer_than_the_bound_is_kept() {
        let mut decoder = Decoder::new(100);
        let mut events = Vec::new();
        assert!(decoder.push(&[b'x'; 1000], &mut events).is_err());
        let mut decoder = Decoder::new(100);
        let lines = b"data: 0123456789012345678901234567890123456789\n".repeat(3);
        assert_eq!(decoder.push(&lines, &mut events), Err(EventTooLong { limit: 100 }));
        let mut decoder = Decoder::new(100);
        decoder.push(b":", &mut events).expect("a comment");
        for _ in 0..100 {
            decoder.push(&[b'x'; 1000], &mut events).expect("nothing is kept of a comment");
        }
        assert!(decoder.line.len() < 2);
    }

    proptest! {
        #[test]
        fn an_event_survives_the_wire_however_it_is_cut(
            id in proptest::option::of("[a-z0-9 ]{0,8}"),
            retry_ms in proptest::option::of(0u64..100_000),
            text in "[a-z{}:\" \n]{0,40}",
            cut in 1usize..8,
        ) {
            let event = Event { id, event: None, retry_ms, data: Some(Bytes::from(text)) };
            let wire = event.encode();
            let chunks: Vec<&[u8]> = wire.chunks(cut).collect();
            prop_assert_eq!(decode(&chunks), vec![event]);
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut decoder = Decoder::new(64);
            let mut events = Vec::new();
            for chunk in &chunks {
                if decoder.push(chunk, &mut events).is_err() {
                    break;
                }
            }
        }
    }
}
