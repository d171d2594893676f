//! Cases: what is asked, and what must be decided. Read from TOML or JSON, alike in both.
//!
//! Unknown keys are errors, so that a misspelt expectation cannot pass.

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use cairn_policy::{Question, Verdict};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::faults;

/// Largest file of cases, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A case that can be run.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) question: Question,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    principal: String,
    action: String,
    resource: String,
    arguments: Option<Value>,
    #[serde(default)]
    context: Map<String, Value>,
    expect: Expect,
}

/// What must be decided; what is absent may be anything.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Expect {
    decision: Decision,
    determining: Option<BTreeSet<String>>,
    obligations: Option<BTreeSet<String>>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Permit,
    Deny,
}

/// Reads a file of cases.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Case>> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
    anyhow::ensure!(size <= FILE_BYTES_MAX, "{shown} has more than {FILE_BYTES_MAX} bytes: split it");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let file: File = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?
    } else {
        toml::from_str(&text).map_err(|error| anyhow::anyhow!("{shown}: {}", faults::toml_words(&error, &text)))?
    };
    let numbered = file.case.into_iter().enumerate();
    numbered.map(|(at, written)| case(at, written).map_err(|what| anyhow::anyhow!("{shown}: {what}"))).collect()
}

fn case(at: usize, written: Written) -> Result<Case, String> {
    let Written { name, principal, action, resource, arguments, context, expect } = written;
    let name = name.unwrap_or_else(|| format!("case {}", at + 1));
    let within = |what: String| format!("{name}: {what}");
    let mut question = Question::named(&principal, &action, &resource).map_err(within)?;
    question.arguments = arguments;
    let question = question.with_context(context).map_err(within)?;
    Ok(Case { name, question, expect })
}

impl Case {
    /// Where the verdict is not what the case says; nothing where it is.
    pub(crate) fn differs(&self, verdict: &Verdict) -> Vec<String> {
        let mut differs = Vec::new();
        let decided = if verdict.is_permit() { Decision::Permit } else { Decision::Deny };
        if decided != self.expect.decision {
            let errors = verdict.errors.iter().map(|error| format!("; {error}")).collect::<String>();
            let near = verdict.nearest.as_ref();
            let near = near.map(|near| format!("; nearest is {}, which wants {}", near.policy, near.failed));
            let near = near.unwrap_or_default();
            differs
                .push(format!("expected {:?}, decided {decided:?}{errors}{near}", self.expect.decision).to_lowercase());
        }
        let determining: BTreeSet<String> = verdict.determining.iter().cloned().collect();
        let obligations: BTreeSet<String> =
            verdict.obligations.iter().map(|obligation| obligation.name().to_owned()).collect();
        for (what, expected, found) in [
            ("determining", &self.expect.determining, determining),
            ("obligations", &self.expect.obligations, obligations),
        ] {
            if let Some(expected) = expected.as_ref().filter(|expected| **expected != found) {
                differs.push(format!("{what}: expected {expected:?}, found {found:?}"));
            }
        }
        differs
    }
}
