//! From OpenMetrics to the Prometheus text format 0.0.4, which every scraper reads.
//!
//! The two differ in how a family is announced: OpenMetrics names a counter without the `_total` of its samples and knows
//! `info`, the older format names what the samples are called. Called for `/metrics`.

/// The same families and samples in the text format 0.0.4.
pub(crate) fn plain(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some(rest) = line.strip_prefix("# HELP ") else {
            push(&mut out, without_exemplar(line));
            continue;
        };
        let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        let kind = lines.next_if(|next| next.starts_with("# TYPE ")).and_then(|next| next.rsplit_once(' '));
        let (suffix, kind) = match kind.map_or("untyped", |(_, kind)| kind) {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            kind => ("", kind),
        };
        push(&mut out, &format!("# HELP {name}{suffix} {help}"));
        push(&mut out, &format!("# TYPE {name}{suffix} {kind}"));
    }
    out
}

/// A sample without the exemplar behind it, which the older format does not know. What looks like one within a label is none.
fn without_exemplar(line: &str) -> &str {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'#' if !is_quoted && at > 0 => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn counters_and_infos_are_announced_as_their_samples_are_called() {
        let text = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\n\
                    # UNIT b_seconds seconds\nb_seconds 2\n# HELP c The build.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b_seconds Time.\n\
                        # TYPE b_seconds gauge\nb_seconds 2\n# HELP c_info The build.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(plain(text), expected);
    }

    #[test]
    fn an_exemplar_is_left_out_and_a_label_that_looks_like_one_stays() {
        let labels = "a_bucket{tool=\"x\\\" # {\",le=\"0.01\"} 3";
        let text = format!("# HELP a Time.\n# TYPE a histogram\n{labels} # {{trace_id=\"4b\"}} 0.007 1.5\n# EOF\n");
        assert_eq!(plain(&text), format!("# HELP a Time.\n# TYPE a histogram\n{labels}\n"));
    }
}
