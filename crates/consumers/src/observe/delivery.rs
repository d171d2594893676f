//! Spans on their way to the collector: in requests of a bounded size, each until it is taken, or known never to be.
//!
//! A collector that is away is waited for, with growing pauses. What it will never take is found out alone: a request that is refused is halved
//! until it is known which span it is. Called by the sink; blocks its thread, and nothing else.

use std::{collections::VecDeque, ops::Range, time::Duration};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    exporter::{Exporter, Untaken},
    figures::Figures,
    otlp::{self, Resource},
    span::Span,
    wire::Message,
};
use crate::{Advance, SinkError};

/// Spans of one request.
pub(super) const SPANS_MAX: usize = 512;
/// Their bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Spans of one delivery that are tried alone; where so many are refused, the rest of their request is too.
const ALONE_MAX: usize = 16;
/// The first pause after the collector was away; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause of its own.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What delivers.
#[derive(Debug)]
pub(super) struct Delivery {
    exporter: Option<Exporter>,
    resource: Resource,
    figures: Figures,
    handle: Handle,
    stop: CancellationToken,
    /// What was cut off, and goes on where it was.
    cut_off: Option<Under>,
    rest: Rest,
}

/// When the collector is asked again.
#[derive(Debug, Default)]
struct Rest {
    until: Option<Instant>,
    pause: Duration,
    reason: String,
}

/// How far the spans of a batch are delivered.
#[derive(Debug)]
struct Under {
    of: Vec<Advance>,
    spans: usize,
    todo: VecDeque<Range<usize>>,
    alone: usize,
    /// Spans that the collector will never take, and what it says.
    lost: Vec<(usize, String)>,
}

impl Delivery {
    /// To that collector, or to nobody; must be called within a runtime. `stop` cuts off what waits.
    pub(super) fn new(
        exporter: Option<Exporter>,
        resource: Resource,
        figures: Figures,
        stop: CancellationToken,
    ) -> Self {
        let (cut_off, rest) = (None, Rest::default());
        Self { exporter, resource, figures, handle: Handle::current(), stop, cut_off, rest }
    }

    /// Sends all of them, and says which of them the collector will never take.
    /// A delivery that was cut off goes on where it was, where it is of the same offsets.
    ///
    /// # Errors
    /// The collector is away, or `stop` was asked for.
    pub(super) fn deliver(
        &mut self,
        spans: &[(usize, Span)],
        of: &[Advance],
    ) -> Result<Vec<(usize, String)>, SinkError> {
        let Some(exporter) = self.exporter.clone().filter(|_| !spans.is_empty()) else { return Ok(Vec::new()) };
        if self.rest.until.is_some_and(|until| Instant::now() < until) {
            return Err(SinkError::Away { reason: self.rest.reason.clone() });
        }
        let messages: Vec<Message> = spans.iter().map(|(_, span)| otlp::span(span)).collect();
        let cut_off = self.cut_off.take().filter(|under| under.of == of && under.spans == spans.len());
        let mut under = cut_off.unwrap_or_else(|| Under {
            of: of.to_vec(),
            spans: spans.len(),
            todo: pieces(&messages),
            alone: 0,
            lost: Vec::new(),
        });
        while let Some(piece) = under.todo.pop_front() {
            let body = otlp::traces(&self.resource, &messages[piece.clone()]);
            let stop = self.stop.clone();
            let sending = async {
                tokio::select! { told = exporter.send_traces(body) => Some(told), () = stop.cancelled() => None }
            };
            let count = piece.len() as u64;
            match self.handle.block_on(sending) {
                Some(Ok(None)) => self.figures.sent(count),
                Some(Ok(Some(left))) => {
                    let lost = left.items.min(count);
                    self.figures.sent(count - lost);
                    self.figures.refused(lost);
                    under
                        .lost
                        .push((piece.start, format!("the collector left out {lost} of {count} spans: {}", left.says)));
                }
                Some(Err(Untaken::Never { reason })) if piece.len() == 1 || under.alone >= ALONE_MAX => {
                    under.alone += 1;
                    self.figures.refused(count);
                    under.lost.extend(piece.map(|at| (at, reason.clone())));
                }
                Some(Err(Untaken::Never { .. })) => {
                    let middle = piece.start + piece.len() / 2;
                    under.todo.push_front(middle..piece.end);
                    under.todo.push_front(piece.start..middle);
                }
                told => {
                    under.todo.push_front(piece);
                    // What is of no offsets may be another thing the next time.
                    self.cut_off = Some(under).filter(|under| !under.of.is_empty());
                    return Err(self.away(told.and_then(Result::err)));
                }
            }
            self.rest = Rest::default();
            self.figures.collector(None);
        }
        Ok(under.lost)
    }

    /// Rests for a while, each time for longer.
    fn away(&mut self, why: Option<Untaken>) -> SinkError {
        let Some(Untaken::Later { reason, after }) = why else {
            return SinkError::Away { reason: "it is about to end".to_owned() };
        };
        self.figures.failed();
        let pause = (self.rest.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.rest = Rest { until: Some(Instant::now() + after.unwrap_or(pause)), pause, reason: reason.clone() };
        self.figures.collector(Some(reason.clone()));
        SinkError::Away { reason }
    }
}

/// Requests that are not too large.
fn pieces(messages: &[Message]) -> VecDeque<Range<usize>> {
    let (mut pieces, mut start, mut bytes) = (VecDeque::new(), 0, 0);
    for (at, message) in messages.iter().enumerate() {
        if at > start && (at - start >= SPANS_MAX || bytes + message.len() > REQUEST_BYTES_MAX) {
            pieces.push_back(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += message.len();
    }
    pieces.push_back(start..messages.len());
    pieces
}
