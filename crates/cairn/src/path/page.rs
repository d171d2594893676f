//! One workflow's decision path as a page of its own: no script, no address, nothing but what the events say.
//!
//! For whoever has no Cairn at hand, such as an auditor. Names come from clients and servers, so every text is escaped, and the
//! page's own policy lets nothing be fetched or run.

use std::fmt::Write;

use super::{Call, Path, Signed, kind, place, stood_on, text, words};
use crate::{read::Placed, say};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{color-scheme:light dark;--line:#8884;--in:#2a7;--wait:#c80;--out:#47c;--bad:#c33}
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.3rem;overflow-wrap:anywhere}h2{font-size:1rem;margin:1.4rem 0 .3rem;overflow-wrap:anywhere}
.call{border-left:3px solid var(--line);padding-left:.8rem}.call .call{margin-left:1rem}
.bar{position:relative;height:.7rem;background:var(--line);margin:.3rem 0}
.bar i{position:absolute;top:0;bottom:0;min-width:2px}.i{background:var(--in)}.w{background:var(--wait)}.o{background:var(--out)}
table{border-collapse:collapse;width:100%}td{border-top:1px solid var(--line);padding:.15rem .5rem .15rem 0;vertical-align:top;overflow-wrap:anywhere}
td:first-child{white-space:nowrap}code{font:12px ui-monospace,monospace}.bad{color:var(--bad);font-weight:600}.dim{opacity:.7}
</style>
"#;

/// The page.
pub(crate) fn page(workflow: &str, events: &[Placed], signed: &Signed) -> String {
    let path = Path::of(events);
    let times: Vec<u64> = events.iter().filter_map(clock).collect();
    let span = Span {
        from: times.iter().copied().min().unwrap_or_default(),
        until: times.iter().copied().max().unwrap_or_default(),
    };
    let principal = events.iter().find_map(|placed| text(placed, "principal")).unwrap_or("nobody");
    let first = events.iter().map(|placed| placed.event.time.as_str()).min().unwrap_or_default();
    let last = events.iter().map(|placed| placed.event.time.as_str()).max().unwrap_or_default();
    let mut out = String::from(HEAD);
    let open = path.calls.iter().filter(|call| call.outcome().is_none() && call.is_recorded()).count();
    let doubt = path.calls.iter().filter(|call| ends(call) == Some("in_doubt")).count();
    add(&mut out, format_args!("<title>{0}</title></head><body><h1>Workflow {0}</h1>\n", escaped(workflow)));
    add(
        &mut out,
        format_args!(
            "<p>{} calls and {} events of {}, {} to {}. {open} open, {doubt} in doubt.</p>\n",
            path.calls.len(),
            events.len(),
            escaped(principal),
            escaped(first),
            escaped(last)
        ),
    );
    out.push_str(
        "<p class=dim>A bar goes from the first event of the workflow to its last: <span class=i>&ensp;</span> decided, <span \
         class=w>&ensp;</span> held for approval, <span class=o>&ensp;</span> at the server. Each line ends with topic, partition and \
         offset, and whether a published checkpoint covers it. This page repeats what the events say; <code>cairn verify</code> tells whether they are what was written.</p>\n",
    );
    for model in &path.models {
        let words = escaped(&model.words(principal));
        add(&mut out, format_args!("<p>Model: {words} <code class=dim>{}</code></p>\n", escaped(&model.place())));
    }
    for call in path.roots() {
        section((&path, signed), call, span, &mut out);
    }
    if !path.beside.is_empty() {
        out.push_str("<h2>Beside the calls</h2>");
        table(&path.beside, signed, &mut out);
    }
    out.push_str("</body></html>\n");
    out
}

fn add(out: &mut String, words: std::fmt::Arguments<'_>) {
    out.write_fmt(words).expect("a string takes everything");
}

/// The time that the page spans, in microseconds.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    until: u64,
}

impl Span {
    /// A piece of a bar, in per cent of the whole.
    fn piece(self, from: u64, until: u64) -> (f64, f64) {
        let whole = (self.until - self.from).max(1) as f64;
        let at = |time: u64| time.saturating_sub(self.from) as f64 * 100.0 / whole;
        (at(from), (at(until) - at(from)).max(0.0))
    }
}

/// When an event was made, in microseconds: the first part of its clock reading.
fn clock(placed: &Placed) -> Option<u64> {
    placed.event.hlc.split('-').next()?.parse().ok()
}

fn ends<'e>(call: &Call<'e>) -> Option<&'e str> {
    text(call.outcome()?, "outcome")
}

fn section((path, signed): (&Path<'_>, &Signed), call: &Call<'_>, span: Span, out: &mut String) {
    let is_bad = !matches!(ends(call), Some("completed" | "accepted" | "input_required"));
    add(
        out,
        format_args!("<div class=call><h2{}>{}</h2>", if is_bad { " class=bad" } else { "" }, escaped(&call.title())),
    );
    bar(call, span, out);
    let stood = call.last("call.decision").map(stood_on).unwrap_or_default();
    if !stood.is_empty() {
        add(out, format_args!("<p>It stood on {}.</p>", escaped(&stood.join(", "))));
    }
    if let Some((_, model)) = path.chooser(call) {
        add(out, format_args!("<p>Chosen by {}.</p>", escaped(&model.chose())));
    }
    table(&call.events, signed, out);
    for below in &call.below {
        section((path, signed), &path.calls[*below], span, out);
    }
    out.push_str("</div>\n");
}

fn bar(call: &Call<'_>, span: Span, out: &mut String) {
    let at = |name: &str| call.last(name).and_then(clock);
    let begun = call.events.first().and_then(|placed| clock(placed));
    let (Some(begun), Some(ended)) = (begun, call.events.last().and_then(|placed| clock(placed))) else { return };
    let asked = call.all("call.approval").next().and_then(clock);
    let sent = at("call.intent");
    let answered = call.outcome().and_then(clock).unwrap_or(ended);
    out.push_str("<div class=bar>");
    let mut piece = |class: &str, from: u64, until: u64| {
        let (left, width) = span.piece(from, until);
        add(out, format_args!("<i class={class} style=\"left:{left:.3}%;width:{width:.3}%\"></i>"));
    };
    let decided = asked.or(sent).unwrap_or(answered);
    piece("i", begun, decided);
    if let Some(asked) = asked {
        piece("w", asked, sent.unwrap_or(answered));
    }
    if let Some(sent) = sent {
        piece("o", sent, answered);
    }
    out.push_str("</div>");
}

fn table(events: &[&Placed], signed: &Signed, out: &mut String) {
    out.push_str("<table>");
    let mut before = None;
    for placed in events {
        let time = placed.event.time.split_once('T').map_or(placed.event.time.as_str(), |(_, time)| time);
        add(
            out,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td><code class=dim>{} {}</code></td></tr>",
                escaped(time),
                escaped(kind(placed)),
                escaped(&words(placed, before)),
                escaped(&place(placed)),
                signed.of(placed).unwrap_or_default()
            ),
        );
        before = Some(*placed);
    }
    out.push_str("</table>");
}

/// A text as it may stand in a page: nothing in it is markup, and nothing invisible is left.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in say::plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::path::tests::{placed, signed, workflow};

    #[test]
    fn the_page_shows_every_event_with_its_place_and_runs_nothing() {
        let mut events = workflow();
        events.push(placed(
            11,
            "call.outcome",
            504,
            &json!({ "outcome": "failed", "effect": "none", "error_type": "<script>alert(1)</script>\u{202e}" }),
        ));
        let page = page("w<b>", &events, &signed());
        for event in &events {
            assert!(page.contains(&place(event)), "{page}");
        }
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("Workflow w&lt;b&gt;"), "{page}");
        assert!(page.contains("default-src 'none'") && !page.contains("http:") && !page.contains("https:"), "{page}");
        assert_eq!(page.matches("<div class=call>").count(), page.matches("</div>\n").count());
        assert!(page.contains("IN DOUBT") && page.contains("1 in doubt"), "{page}");
    }

    #[test]
    fn a_bar_lies_within_the_page() {
        let span = Span { from: 100, until: 300 };
        assert_eq!(span.piece(100, 300), (0.0, 100.0));
        assert_eq!(span.piece(200, 250), (50.0, 25.0));
        assert_eq!(Span { from: 5, until: 5 }.piece(5, 5), (0.0, 0.0));
    }
}
