//! The figures as an `ExportMetricsServiceRequest`.
//!
//! Cumulative since the process began, so that one that was not taken is made up for by the next. Field numbers are those of
//! opentelemetry-proto 1.9 (`metrics/v1/metrics.proto`).

use super::{
    figures::{BOUNDS, COUNTERS, CallLabels, DURATIONS, Durations, Exemplar, Figures, GAUGES, Labels, OTHER},
    otlp::{Resource, attribute, scope},
    span::Value,
    wire::Message,
};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u64 = 2;

/// All of them.
pub(super) fn metrics(resource: &Resource, figures: &Figures) -> Vec<u8> {
    let now = figures.clock().now().as_micros().saturating_mul(1_000);
    let times = (figures.since().as_micros().saturating_mul(1_000), now);
    let mut scoped = Message::default().within(1, &scope());
    for ((_, name, unit, help), value) in GAUGES.iter().zip(figures.gauges()) {
        let point = Message::default().fixed64(3, now).double(4, value);
        scoped = scoped.within(2, &named(name, help, unit).within(5, &Message::default().within(1, &point)));
    }
    let (calls, counters) = figures.read(|state| (state.calls.clone(), state.counters.clone()));
    for (counter, _, name, unit, help) in COUNTERS {
        let of = counters.iter().filter(|((of, _), _)| *of == counter);
        let points: Vec<Message> = of.map(|((_, labels), value)| number(labels, *value, times)).collect();
        if points.is_empty() {
            continue;
        }
        let sum = points.iter().fold(Message::default(), |sum, point| sum.within(1, point));
        scoped = scoped.within(2, &named(name, help, unit).within(7, &sum.number(2, CUMULATIVE).number(3, 1)));
    }
    if !calls.is_empty() {
        let of = |(labels, durations): (&CallLabels, &Durations)| histogram(labels, durations, times);
        let histogram = Message::default().each(1, &calls, of).number(2, CUMULATIVE);
        let (_, name, unit, help) = DURATIONS;
        scoped = scoped.within(2, &named(name, help, unit).within(9, &histogram));
    }
    let within = Message::default().within(1, &resource.message()).within(2, &scoped);
    Message::default().within(1, &within).into_bytes()
}

fn named(name: &str, help: &str, unit: &str) -> Message {
    Message::default().text(1, name).text(2, help).text(3, unit)
}

/// A `NumberDataPoint`.
fn number(labels: &Labels, value: u64, (since, now): (u64, u64)) -> Message {
    let point = Message::default().fixed64(2, since).fixed64(3, now).fixed64(6, value);
    let named = |name: &str| match name {
        "method" => "mcp.method.name".to_owned(),
        "provider" => "gen_ai.provider.name".to_owned(),
        "model" => "gen_ai.request.model".to_owned(),
        "type" => "gen_ai.token.type".to_owned(),
        name => format!("cairn.{name}"),
    };
    labels.iter().fold(point, |point, (name, value)| point.within(7, &attribute(&named(name), &Value::text(value))))
}

/// A `HistogramDataPoint`.
fn histogram(labels: &CallLabels, durations: &Durations, (since, now): (u64, u64)) -> Message {
    let named = [
        ("cairn.server", &labels.server),
        ("gen_ai.tool.name", &labels.tool),
        ("mcp.method.name", &labels.method),
        ("cairn.decision", &labels.decision),
        ("cairn.outcome", &labels.outcome),
    ];
    let mut point = Message::default().fixed64(2, since).fixed64(3, now).fixed64(4, durations.count());
    point = point.double(5, durations.sum).packed(6, durations.buckets.into_iter());
    point =
        point.packed(7, BOUNDS.into_iter().map(f64::to_bits)).each(8, durations.exemplars.iter().flatten(), exemplar);
    if labels.server == OTHER && labels.outcome == OTHER {
        point = point.within(9, &attribute("otel.metric.overflow", &Value::Flag(true)));
    }
    let there = named.iter().filter(|(_, value)| !value.is_empty());
    there.fold(point, |point, (name, value)| point.within(9, &attribute(name, &Value::text(value))))
}

fn exemplar(one: &Exemplar) -> Message {
    let message = Message::default().fixed64(2, one.at_us.saturating_mul(1_000)).double(3, one.seconds);
    message.bytes(4, &one.span_id).bytes(5, &one.trace_id)
}
