//! How many events a second are verified: chains, leaves and tree, beside plain SHA-256 over the same bytes in the same run.
//!
//! `cargo bench -p cairn-verify`. One partition a processor, as the command may do it; the ratio says more than the figure on a
//! machine that is shared.

#![allow(clippy::disallowed_methods, reason = "a measurement asks for the time")]
#![allow(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::{hint::black_box, time::Instant};

use cairn_verify::{Record, Trail, Trust, link};
use ring::digest::{SHA256, digest};

const EVENTS: usize = 200_000;

struct Event {
    key: Vec<u8>,
    headers: Vec<(&'static str, Vec<u8>)>,
    value: Vec<u8>,
}

impl Event {
    fn bytes(&self) -> usize {
        self.key.len()
            + self.value.len()
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// Events of one producer, of the size that a decision of the gateway has.
fn events() -> Vec<Event> {
    let (mut events, mut previous) = (Vec::with_capacity(EVENTS), None::<String>);
    let mut scratch = Vec::new();
    for n in 0..EVENTS {
        let before = previous.as_ref().map_or_else(String::new, |link| format!(",\"previous\":\"{link}\""));
        let common = "\"call_id\":\"01996b5e-7c00-7000-8000-000000000001\",\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"principal\":\"local\",\"server\":\"orders\",\"era\":\"modern\",\"mcp_method_name\":\"tools/call\",\"decision\":\"permit\",\"policy_version\":\"sha256:9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c\"";
        let value = format!(
            "{{\"workflow_id\":\"w-{n}\",{common},\"hlc\":\"1795521600000000-00000\",\"producer\":{{\"id\":\"gw-1\",\"epoch\":1,\"sequence\":{n}{before}}},\"contract\":{{\"name\":\"call.decision\",\"version\":1}}}}"
        );
        let text = |text: &str| text.as_bytes().to_vec();
        let headers = vec![
            ("ce_specversion", text("1.0")),
            ("ce_id", text("01996b5e-7c00-7000-8000-000000000001")),
            ("ce_type", text("io.cairn.call.decision")),
            ("ce_source", text("cairn://gateway/gw-1")),
            ("ce_time", text("2026-11-24T12:00:00.000000Z")),
            ("content-type", text("application/json")),
        ];
        let event = Event { key: format!("w-{n}").into_bytes(), headers, value: value.into_bytes() };
        let headers: Vec<_> = event.headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let record =
            Record { offset: 0, timestamp_ms: 0, key: Some(&event.key), headers: &headers, value: Some(&event.value) };
        previous = Some(link(&record, &mut scratch).iter().map(|byte| format!("{byte:02x}")).collect());
        events.push(event);
    }
    events
}

fn verify(events: &[Event], partition: u32) {
    let mut trail = Trail::new(Trust::default());
    let mut checker = trail.plan("mcp.calls", partition, None).checker(0, 0);
    for (offset, event) in events.iter().enumerate() {
        let headers: Vec<_> = event.headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        checker.record(&Record {
            offset: offset as u64,
            timestamp_ms: 1_795_521_600_000,
            key: Some(&event.key),
            headers: &headers,
            value: Some(&event.value),
        });
    }
    let report = trail.finish("", [checker.finish(events.len() as u64, false)]);
    assert!(report.ok && report.records == events.len() as u64, "{report}");
}

fn hash(events: &[Event]) {
    for event in events {
        black_box(digest(&SHA256, black_box(&event.value)));
        let rest = event.bytes() - event.value.len();
        black_box(digest(&SHA256, &event.value[..rest.min(event.value.len())]));
    }
}

/// Seconds of processor time that this thread has had, where the kernel says it: what others do meanwhile does not count.
fn spent() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

/// Events a second, and events a second of one processor's time.
fn timed(workers: u32, work: impl Fn(u32) + Sync) -> (f64, f64) {
    let begin = Instant::now();
    let spent_by = |worker: u32| {
        let before = spent();
        work(worker);
        spent().zip(before).map_or(f64::NAN, |(after, before)| after - before)
    };
    let spent: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn({
                    let spent_by = &spent_by;
                    move || spent_by(worker)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it measures")).sum()
    });
    let events = f64::from(workers) * EVENTS as f64;
    (events / begin.elapsed().as_secs_f64(), events / spent)
}

fn main() {
    let events = events();
    let bytes = events.iter().map(Event::bytes).sum::<usize>() / EVENTS;
    let processors = std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    for workers in [1, processors] {
        let (plain, plain_each) = timed(workers, |_| hash(&events));
        let (verified, verified_each) = timed(workers, |partition| verify(&events, partition));
        println!(
            "{workers} threads, events of {bytes} bytes: {verified:.0} verified a second, {plain:.0} hashed a second, ratio {:.2}; \
             for a second of processor time {verified_each:.0} and {plain_each:.0}, ratio {:.2}",
            verified / plain,
            verified_each / plain_each
        );
    }
}
