//! The mutants of `observe`: what a span says and under which ids, what is kept when, what goes out, and when somebody is alerted. Written
//! like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a position is kept before the collector has taken what lies before it",
        file: "crates/consumers/src/observe/sink.rs",
        before: "        let lost = self.delivery.deliver(&planned.spans, &batch.advances)?;\n        self.due(planned.sent.clone());",
        after: "        let lost = self.delivery.deliver(&planned.spans, &batch.advances).unwrap_or_default();\n        self.due(planned.sent.clone());",
        test: "-p cairn-consumers --lib a_position_is_kept_only_when",
    },
    Mutant {
        name: "a collector that has too much to do is taken for one that refuses",
        file: "crates/consumers/src/observe/exporter.rs",
        before: "| 429 | 502 | 503 | 504 | 511\n",
        after: "| 429 | 502 | 504 | 511\n",
        test: "-p cairn-consumers --lib a_position_is_kept_only_when",
    },
    Mutant {
        name: "a span that goes out again has another id",
        file: "crates/consumers/src/observe/calls.rs",
        before: "Some((trace_of(&first.data), span_of(&first.data).unwrap_or_else(own)))",
        after: "Some((trace_of(&first.data), Some(uuid::Uuid::new_v4().into_bytes()[..8].try_into().ok()?).unwrap_or_else(own)))",
        test: "-p cairn-consumers --lib the_same_events_make_the_same_spans",
    },
    Mutant {
        name: "the client's span is not above the call's",
        file: "crates/consumers/src/observe/calls.rs",
        before: "            parent,\n            name: target",
        after: "            parent: parent.filter(|_| false),\n            name: target",
        test: "-p cairn-consumers --lib a_call_is_one_span",
    },
    Mutant {
        name: "each call of a workflow is a trace of its own",
        file: "crates/gateway/src/correlate.rs",
        before: "            Some(digits) => Self { trace_id: digits.to_owned(), ..self },",
        after: "            Some(_) => self,",
        test: "-p cairn-gateway --lib a_workflow_is_one_trace",
    },
    Mutant {
        name: "what a contract calls personal goes out unasked",
        file: "crates/consumers/src/observe/attributes.rs",
        before: "    (\"server\", \"cairn.server\"),\n",
        after: "    (\"server\", \"cairn.server\"),\n    (\"principal\", \"cairn.principal\"),\n",
        test: "-p cairn-consumers --lib nothing_that_a_contract_keeps_close",
    },
    Mutant {
        name: "one span that is refused takes its whole request with it",
        file: "crates/consumers/src/observe/delivery.rs",
        before: "if piece.len() == 1 || under.alone >= ALONE_MAX =>",
        after: "if !piece.is_empty() || under.alone >= ALONE_MAX =>",
        test: "-p cairn-consumers --lib only_the_span_that_is_refused",
    },
    Mutant {
        name: "a delivery that was cut off begins anew",
        file: "crates/consumers/src/observe/delivery.rs",
        before: ".filter(|under| under.of == of && under.spans == spans.len());",
        after: ".filter(|under| under.of != of && under.spans == spans.len());",
        test: "-p cairn-consumers --lib a_delivery_that_is_cut_off",
    },
    Mutant {
        name: "a collector gets all of the history",
        file: "crates/consumers/src/observe/sink.rs",
        before: "again || event.at.as_micros() >= begin_us;",
        after: "again || event.at.as_micros() >= begin_us / 2;",
        test: "-p cairn-consumers --lib a_database_that_is_made_passes_over",
    },
    Mutant {
        name: "open calls are kept without end",
        file: "crates/consumers/src/observe/sink.rs",
        before: "        if held <= self.options.open_calls_max {",
        after: "        if held <= self.options.open_calls_max * 1_000 {",
        test: "-p cairn-consumers --lib calls_that_stay_open_are_bounded",
    },
    Mutant {
        name: "an outcome that comes again takes the place of the whole call",
        file: "crates/consumers/src/observe/sink.rs",
        before: "        if call.decision().is_none() && (again || has_ended) {",
        after: "        if call.decision().is_none() && again && has_ended {",
        test: "-p cairn-consumers --lib an_outcome_that_comes_again",
    },
    Mutant {
        name: "names that clients choose make series without end",
        file: "crates/consumers/src/observe/figures.rs",
        before: "        if known.len() >= NAMES_MAX {",
        after: "        if known.len() >= NAMES_MAX * 1_000 {",
        test: "-p cairn-consumers --lib names_that_others_choose_are_bounded",
    },
    Mutant {
        name: "an exemplar stands where the older format does not know it",
        file: "crates/operators/src/exposition.rs",
        before: "            push(&mut out, without_exemplar(line));",
        after: "            push(&mut out, line);",
        test: "-p cairn-operators --lib an_exemplar_is_left_out",
    },
    Mutant {
        name: "a gap in a chain is passed over",
        file: "crates/consumers/src/observe/chains.rs",
        before: "Some((last, at)) if *last == epoch => sequence.saturating_sub(at + 1),",
        after: "Some((last, at)) if *last == epoch => sequence.saturating_sub(at + 1) / 1_000,",
        test: "-p cairn-consumers --lib what_is_left_out_of_a_chain",
    },
    Mutant {
        name: "an alert is raised again while it holds",
        file: "crates/cairn/src/alerts.rs",
        before: "                episodes.recorded(&alert);\n",
        after: "",
        test: "-p cairn --test commands an_alert_is_recorded_once",
    },
    Mutant {
        name: "the approvers' tool hears of an alert that is not recorded",
        file: "crates/cairn/src/alerts.rs",
        before: "        Ok(self.recorder.strict(Planned { id, draft }).await.map(drop)?)",
        after: "        let _ = (id, draft, &self.recorder);\n        Ok(())",
        test: "-p cairn --test commands an_alert_is_recorded_once",
    },
];
