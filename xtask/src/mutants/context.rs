//! The mutants of the context: what follows from events, who sees what of it, and how it is served. Written like those of the
//! table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a slow read takes back what a write made",
        file: "crates/consumers/src/context/rows.rs",
        before: "(Some(changed), Some(read)) if read.at_us < changed.at_us => ",
        after: "(Some(changed), Some(read)) if read.at_us + 5_000_000 < changed.at_us => ",
        test: "-p cairn-consumers --lib the_freshest_is",
    },
    Mutant {
        name: "the freshest is what came last",
        file: "crates/consumers/src/context/rows.rs",
        before: "WHERE {of} AND {which} ORDER BY at_us DESC, id DESC LIMIT 1",
        after: "WHERE {of} AND {which} ORDER BY seq DESC LIMIT 1",
        test: "-p cairn-consumers --lib whatever_the_order",
    },
    Mutant {
        name: "what followed from a row stays when the row goes",
        file: "crates/consumers/src/context/schema.rs",
        before: "CREATE TRIGGER events_go AFTER DELETE ON events WHEN old.at_us IS NOT NULL BEGIN",
        after: "CREATE TRIGGER events_go AFTER DELETE ON events WHEN old.at_us IS NULL AND old.server IS NOT NULL BEGIN",
        test: "-p cairn-consumers --lib retention_is_the_contracts_and_what_followed",
    },
    Mutant {
        name: "an event that came twice counts twice in the context",
        file: "crates/consumers/src/database/sink.rs",
        before: "ON CONFLICT (id) DO NOTHING",
        after: "ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, offset = excluded.offset",
        test: "-p cairn-consumers --lib comes_twice_counts_once_and_a_replay",
    },
    Mutant {
        name: "a principal sees resources that others have read",
        file: "crates/consumers/src/context/ask.rs",
        before: "WHERE v.tenant = {tenant} AND v.principal = :principal",
        after: "WHERE v.tenant = {tenant}",
        test: "-p cairn-consumers --lib within_a_principals_scope",
    },
    Mutant {
        name: "a principal sees a workflow of the same name of another tenant",
        file: "crates/consumers/src/context/ask.rs",
        before: "WHERE {which} AND (:tenant IS NULL OR coalesce(tenant, '') = :tenant)",
        after: "WHERE {which} AND (:tenant IS NULL OR 1)",
        test: "-p cairn-consumers --lib within_a_principals_scope",
    },
    Mutant {
        name: "who changed a resource is told to everybody",
        file: "crates/consumers/src/context/ask.rs",
        before: "if scope.principal.is_none() || scope.principal == principal {",
        after: "if scope.principal.is_none() || principal.is_some() {",
        test: "-p cairn-consumers --lib within_a_principals_scope",
    },
    Mutant {
        name: "the context grows without end",
        file: "crates/consumers/src/database/sink.rs",
        before: "    let surplus = held.unsigned_abs().saturating_sub(most);",
        after: "    let surplus = held.unsigned_abs().saturating_sub(most.saturating_mul(1_000));",
        test: "-p cairn-consumers --lib no_more_events_are_kept",
    },
    Mutant {
        name: "an agent chooses whose context it sees",
        file: "crates/cairn/src/context/question.rs",
        before: "            Asker::Within(scope) => Ok(scope.clone()),\n",
        after: "            Asker::Within(scope) => Ok(Scope { principal: self.take(\"principal\")?.or(scope.principal.clone()), ..scope.clone() }),\n",
        test: "-p cairn --test commands an_agent_asks_cairn_itself",
    },
    Mutant {
        name: "every agent is served as an operator",
        file: "crates/cairn/src/context/server.rs",
        before: "        let who = Asker::Within(Scope::of(who.tenant.as_deref(), &who.principal));",
        after: "        let _ = who;\n        let who = Asker::Operator;",
        test: "-p cairn --test commands an_agent_asks_cairn_itself",
    },
    Mutant {
        name: "a resource is looked for by a name that no event holds",
        file: "crates/cairn/src/context/mod.rs",
        before: "                of.uri = of.uri.map(|uri| (self.screened)(Named::Uri, &uri));\n",
        after: "                of.uri = of.uri.map(|uri| if self.database.exists() { uri } else { (self.screened)(Named::Uri, &uri) });\n",
        test: "-p cairn --test commands a_resource_whose_name_is_masked",
    },
    Mutant {
        name: "a page says nothing of the next",
        file: "crates/consumers/src/context/ask.rs",
        before: "                page.next = Some(last.to_string());\n",
        after: "                let _ = &last;\n",
        test: "-p cairn-consumers --lib answers_come_in_pages",
    },
    Mutant {
        name: "a server of Cairn's own answers a client of the new era in the old form",
        file: "crates/mcp/src/serving.rs",
        before: "if message.is_modern() { modern(",
        after: "if message.is_modern() && id.is_null() { modern(",
        test: "-p cairn-mcp --lib clients_of_both_eras_are_answered",
    },
];
