//! From files to policies with ids and obligations, or to a list of mistakes with file and line.
//!
//! Called when a set is opened or replaced. Nothing of a set with a mistake is ever used.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Authorizer, Effect, EntityUid, Policy, PolicyId, PolicySet};
use miette::Diagnostic;
use serde_json::{Value, json};

use crate::{
    PolicyProblem,
    directory::{Directory, ENTITIES_FILE, mentioned},
    files::SourceFile,
    index::Index,
    rules::Rules,
    verdict::APPROVAL,
};

/// Everything that was read, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Reading {
    set: PolicySet,
    canonical: BTreeMap<String, Value>,
    obliged: BTreeSet<String>,
    forbids: BTreeSet<String>,
    mentions: BTreeMap<String, Vec<EntityUid>>,
    directory: Directory,
    pub(crate) problems: Vec<PolicyProblem>,
}

impl Reading {
    /// Reads all files.
    pub(crate) fn of(files: &[SourceFile]) -> Self {
        let mut reading = Self::default();
        for file in files {
            if file.is_policies() { reading.file(file) } else { reading.entities(file) }
        }
        reading
    }

    /// What decides, and how it counts for the version.
    pub(crate) fn finish(self) -> (Rules, Value) {
        let policies: Vec<_> =
            self.canonical.into_iter().map(|(id, policy)| json!({"id": id, "policy": policy})).collect();
        let version = json!({ "policies": policies, "entities": self.directory.canonical });
        let rules = Rules {
            index: Index::new(self.set),
            directory: self.directory,
            obliged: self.obliged,
            forbids: self.forbids,
            mentions: self.mentions,
            authorizer: Authorizer::new(),
        };
        (rules, version)
    }

    fn entities(&mut self, file: &SourceFile) {
        debug_assert_eq!(file.name, ENTITIES_FILE);
        match Directory::parse(&file.bytes) {
            Ok(directory) => self.directory = directory,
            Err(what) => self.problem(file, 0, &what),
        }
    }

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
            let named = mentioned(&json);
            if !named.is_empty() {
                self.mentions.insert(id.clone(), named);
            }
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
