//! How fast screening is on typical JSON, in bytes a second on one core and as a ratio to `memchr` over the same bytes.
//!
//! `cargo bench -p cairn-screen`. The aim is 200 MB/s.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench measures real time and says so"
)]

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use cairn_screen::{Classes, Rules, Screener};

/// How long each figure is measured.
const EACH: Duration = Duration::from_millis(700);

/// The processor time that this process has used, in ticks of 10 ms: it does not count what other processes take.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}

/// Bytes for each second of processor time.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (started, from) = (Instant::now(), ticks());
    let mut rounds = 0_u32;
    while started.elapsed() < EACH || ticks() < from + 20 {
        for _ in 0..32 {
            work();
        }
        rounds += 32;
    }
    bytes as f64 * f64::from(rounds) / ((ticks() - from) as f64 / 100.0)
}

/// Rows as a tool gives them: ids, times, amounts, words.
fn rows(count: usize) -> String {
    let mut out = String::from("{\"orders\":[");
    for n in 0..count {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            out,
            "{comma}{{\"id\":\"01996b5e-7c00-7000-8000-{n:012}\",\"created\":\"2026-03-{:02}T12:30:45Z\",\"status\":\"shipped\",\
             \"customer\":\"customer-{n}\",\"total\":{}.{:02},\"currency\":\"EUR\",\"items\":[{{\"sku\":\"A-{n}\",\"count\":{}}}],\
             \"note\":\"left at the door of the neighbours, as the customer wished\"}}",
            n % 28 + 1,
            n * 7 % 900,
            n % 100,
            n % 9
        );
    }
    out + "]}"
}

/// Prose in a tool's content, with line ends.
fn prose(count: usize) -> String {
    let line = "The report says that the second quarter was better than the first, \\\"by a margin\\\", and names three reasons.\\n";
    format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{}\"}}],\"isError\":false}}", line.repeat(count))
}

fn main() {
    let screener = Screener::new(Rules::embedded());
    let none = Classes::new();
    let with_secret = rows(200).replacen("left at the door", "key AKIAQ7XDEMO3CANARY22 left", 3);
    let documents = [
        ("rows, 2 KiB", rows(7)),
        ("rows, 64 KiB", rows(230)),
        ("prose, 16 KiB", prose(140)),
        ("rows with secrets", with_secret),
    ];
    println!("{:<20} {:>12} {:>12} {:>8}", "document", "screen MB/s", "memchr MB/s", "ratio");
    for (name, document) in documents {
        let bytes = document.as_bytes();
        let ours = rate(bytes.len(), || {
            black_box(screener.json(black_box(bytes), &none));
        });
        let baseline = rate(bytes.len(), || {
            black_box(memchr::memchr_iter(b'"', black_box(bytes)).count());
        });
        println!("{name:<20} {:>12.0} {:>12.0} {:>8.3}", ours / 1e6, baseline / 1e6, ours / baseline);
    }
    let text = "please refund order 4711, the customer wrote twice";
    let ours = rate(text.len(), || {
        black_box(screener.text(black_box(text)));
    });
    println!("a text of {} bytes: {:.0} ns", text.len(), text.len() as f64 / ours * 1e9);
}
