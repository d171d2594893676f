//! A compiled policy set: from files to policies with ids, obligations and a version, and the decision itself.
//!
//! The store holds one at a time and replaces it whole. The version is SHA-256 over the canonical JSON of every policy
//! and the engine's version, so that comments and layout do not change it, and everything that can change a decision does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_contract::{PolicyFile, canonical_value, sha256_text};
use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Effect, EvaluationError, Policy, PolicyId, PolicySet, Response,
};
use miette::Diagnostic;
use serde_json::json;

use crate::{Obligation, PolicyError, PolicyProblem, files::SourceFile, question::Asked, verdict::APPROVAL};

/// The version without policy files: everything is permitted and recorded.
pub const OBSERVE: &str = "observe";

/// A policy set that decides.
#[derive(Debug)]
pub(crate) struct ActiveSet {
    pub(crate) version: Arc<str>,
    pub(crate) files: Vec<PolicyFile>,
    /// `None` where Cairn observes.
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    policies: PolicySet,
    obliged: BTreeSet<String>,
    forbids: BTreeSet<String>,
    authorizer: Authorizer,
}

/// What a set says of one request.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) permit: bool,
    pub(crate) determining: Vec<String>,
    pub(crate) obligations: Vec<Obligation>,
    pub(crate) errors: Vec<String>,
}

impl ActiveSet {
    /// The set of no policies at all.
    pub(crate) fn observe() -> Self {
        Self { version: Arc::from(OBSERVE), files: Vec::new(), rules: None }
    }

    /// Compiles files; no files at all make the set that observes.
    pub(crate) fn compile(files: &[SourceFile]) -> Result<Self, PolicyError> {
        if files.is_empty() {
            return Ok(Self::observe());
        }
        let digests: Vec<PolicyFile> = files.iter().map(SourceFile::digest).collect();
        let mut reading = Reading::default();
        for file in files {
            reading.file(file);
        }
        if !reading.problems.is_empty() {
            return Err(PolicyError::Invalid { problems: reading.problems, files: digests });
        }
        let engine =
            format!("cedar-policy {} language {}", cedar_policy::get_sdk_version(), cedar_policy::get_lang_version());
        let policies: Vec<_> =
            reading.canonical.into_iter().map(|(id, policy)| json!({"id": id, "policy": policy})).collect();
        let text = canonical_value(&json!({"engine": engine, "policies": policies}));
        let rules = Rules {
            policies: reading.set,
            obliged: reading.obliged,
            forbids: reading.forbids,
            authorizer: Authorizer::new(),
        };
        Ok(Self { version: Arc::from(sha256_text(text.as_bytes())), files: digests, rules: Some(rules) })
    }

    pub(crate) const fn is_observing(&self) -> bool {
        self.rules.is_none()
    }

    /// Decides. Where Cairn observes, everything is permitted and nothing demanded.
    pub(crate) fn decide(&self, asked: &Asked) -> Said {
        match &self.rules {
            None => Said { permit: true, determining: Vec::new(), obligations: Vec::new(), errors: Vec::new() },
            Some(rules) => rules.judge(
                &rules.authorizer.is_authorized(&asked.request, &rules.policies, &asked.known.entities),
                asked.hides,
            ),
        }
    }
}

impl Rules {
    fn judge(&self, response: &Response, hides: bool) -> Said {
        let mut determining: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        determining.sort();
        let mut errors = Vec::new();
        let mut broken = Vec::new();
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            let id = error.policy_id().to_string();
            errors.push(format!("{id}: {}", error.inner()));
            if self.forbids.contains(&id) && (hides || !is_absence(error.inner())) {
                broken.push(id);
            }
        }
        errors.sort();
        let permit = response.decision() == Decision::Allow && broken.is_empty();
        if permit {
            let policies: Vec<String> = determining.iter().filter(|id| self.obliged.contains(*id)).cloned().collect();
            let obligations = if policies.is_empty() { Vec::new() } else { vec![Obligation::Approval { policies }] };
            return Said { permit, determining, obligations, errors };
        }
        // A forbid that cannot be evaluated forbids: else an argument of another type would be a way around it.
        if response.decision() == Decision::Allow {
            determining = broken;
            determining.sort();
        }
        Said { permit, determining, obligations: Vec::new(), errors }
    }
}

/// Whether a policy could not be evaluated only because the call has not what it looks at.
const fn is_absence(error: &EvaluationError) -> bool {
    matches!(
        error,
        EvaluationError::RecordAttrDoesNotExist(_)
            | EvaluationError::EntityAttrDoesNotExist(_)
            | EvaluationError::EntityDoesNotExist(_)
    )
}

#[derive(Default)]
struct Reading {
    set: PolicySet,
    canonical: BTreeMap<String, serde_json::Value>,
    obliged: BTreeSet<String>,
    forbids: BTreeSet<String>,
    problems: Vec<PolicyProblem>,
}

impl Reading {
    fn file(&mut self, file: &SourceFile) {
        let Ok(text) = std::str::from_utf8(&file.bytes) else {
            return self.problem(file, 0, "is not UTF-8: save it as UTF-8");
        };
        let set: PolicySet = match text.parse() {
            Ok(set) => set,
            Err(errors) => return self.parse_errors(file, text, &errors),
        };
        if set.templates().next().is_some() {
            self.problem(file, 0, "holds a template (?principal or ?resource): write the policy out");
        }
        // The parser numbers policies `policy0`, `policy1`, … in the order of the text.
        let mut policies: Vec<&Policy> = set.policies().collect();
        policies.sort_by_key(|policy| number(policy.id()));
        for (index, policy) in policies.into_iter().enumerate() {
            self.policy(file, text, index, policy);
        }
    }

    fn parse_errors(&mut self, file: &SourceFile, text: &str, errors: &cedar_policy::ParseErrors) {
        for error in errors.iter() {
            let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
            let line = offset.map_or(0, |offset| line_of(text, offset));
            let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
            self.problem(file, line, &format!("{error}{help}"));
        }
    }

    fn policy(&mut self, file: &SourceFile, text: &str, index: usize, policy: &Policy) {
        let id = policy.annotation("id").map_or_else(|| format!("{}:{index}", file.name), ToOwned::to_owned);
        let line = text.find(&policy.to_cedar().unwrap_or_default()).map_or(0, |offset| line_of(text, offset));
        if id.is_empty() || self.canonical.contains_key(&id) {
            return self.problem(
                file,
                line,
                &format!("the policy id {id:?} is empty or taken: give each policy an @id of its own"),
            );
        }
        if let Some(obligation) = policy.annotation("obligation") {
            if obligation != APPROVAL {
                let what =
                    format!("knows no obligation {obligation:?}: write @obligation({APPROVAL:?}) or leave it out");
                return self.problem(file, line, &what);
            }
            if policy.effect() == Effect::Forbid {
                return self.problem(file, line, "a forbid has no obligation: put @obligation on a permit");
            }
            self.obliged.insert(id.clone());
        }
        if policy.effect() == Effect::Forbid {
            self.forbids.insert(id.clone());
        }
        let added = policy.to_json().map_err(|error| error.to_string()).and_then(|json| {
            self.canonical.insert(id.clone(), json);
            self.set.add(policy.new_id(PolicyId::new(&id))).map_err(|error| error.to_string())
        });
        if let Err(error) = added {
            self.problem(file, line, &error);
        }
    }

    fn problem(&mut self, file: &SourceFile, line: usize, what: &str) {
        self.problems.push(PolicyProblem { file: file.path.clone(), line, what: what.to_owned() });
    }
}

fn number(id: &PolicyId) -> usize {
    id.to_string().trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
