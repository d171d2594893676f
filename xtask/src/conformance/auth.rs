//! The suite's client scenarios about authorization, with Cairn as the OAuth client.
//!
//! Who calls it: the runner beside it. The suite plays a server and its authorization server; the SDK's client talks to a
//! Cairn with `[servers.suite.auth]`, and the driver plays the person. It guarantees that a scenario that does not pass
//! either fails the run or stands in [`NOT_PASSED`] with its reason.

use std::path::Path;

use super::{CLIENTS_AT_ONCE, client_scenario, report::Report};
use crate::tally::Tally;
use crate::toolchain::Node;

/// What both revisions require.
const BOTH: &[&str] = &[
    "auth/metadata-default",
    "auth/metadata-var1",
    "auth/metadata-var2",
    "auth/metadata-var3",
    "auth/basic-cimd",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
    "auth/pre-registration",
];
/// What the newer one requires besides.
const MODERN: &[&str] = &[
    "auth/resource-mismatch",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/authorization-server-migration",
    "auth/iss-supported",
    "auth/iss-not-advertised",
    "auth/iss-supported-missing",
    "auth/iss-wrong-issuer",
    "auth/iss-unexpected",
    "auth/iss-normalized",
    "auth/metadata-issuer-mismatch",
];
/// Extensions, which the suite does not score.
const UNSCORED: &[&str] = &[
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/enterprise-managed-authorization",
    "auth/wif-jwt-bearer",
];
/// What is not run, and why.
pub(super) const NOT_PASSED: &[(&str, &str)] = &[
    ("auth/dpop", "Cairn uses Bearer tokens: it binds none to a key of its own (RFC 9449)"),
    ("auth/dpop-nonce", "the same"),
    ("auth/2025-03-26-oauth-metadata-backcompat", "no requirement of the revisions that are run"),
    ("auth/2025-03-26-oauth-endpoint-fallback", "the same"),
];

/// Runs them, a few at a time.
pub(super) fn leg(node: &Node, program: &Path, report: &mut Report, tally: &mut Tally) {
    let client = node.folder.join("mcp/conformance-ts/client.mjs");
    let command = format!("{} {} --cairn {}", node.program.display(), client.display(), program.display());
    let mut runs: Vec<(&'static str, &'static str, bool)> =
        BOTH.iter().map(|name| ("2025-11-25", *name, true)).collect();
    runs.extend(BOTH.iter().chain(MODERN).map(|name| ("2026-07-28", *name, true)));
    runs.extend(UNSCORED.iter().map(|name| ("2026-07-28", *name, false)));
    for some in runs.chunks(CLIENTS_AT_ONCE) {
        let ended: Vec<_> = std::thread::scope(|scope| {
            let run = |(revision, scenario, _): &(&'static str, &'static str, bool)| {
                client_scenario(node, &command, scenario, revision)
            };
            let begun: Vec<_> = some.iter().map(|one| scope.spawn(move || run(one))).collect();
            begun.into_iter().map(|run| run.join().expect("a run does not panic")).collect()
        });
        for ((revision, scenario, scored), result) in some.iter().zip(ended) {
            report.auth(revision, scenario, *scored, result.is_ok());
            tally.check(&format!("conformance {revision}: client {scenario}, Cairn"), result);
        }
    }
}
