//! From files to policies with ids and obligations, or to a list of mistakes with file and line.
//!
//! Called when a set is opened or replaced. Nothing of a set with a mistake is ever used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cairn_contract::sha256_text;
use cedar_policy::{Authorizer, Effect, EntityUid, Policy, PolicyId, PolicySet};
use miette::Diagnostic;
use serde_json::{Value, json};

use crate::{
    PolicyProblem,
    annotations::{Demands, demands},
    directory::{Directory, ENTITIES_FILE, mentioned},
    files::SourceFile,
    index::Index,
    rules::Rules,
    schema::{ACTIONS_FILE, Actions, SCHEMA, extended},
    validate::{Mistake, mistakes},
};

/// Everything that was read, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Reading {
    set: PolicySet,
    canonical: BTreeMap<String, Value>,
    demands: BTreeMap<String, Demands>,
    forbids: BTreeSet<String>,
    mentions: BTreeMap<String, Vec<EntityUid>>,
    /// Every entity that some policy names, and the first that does.
    literals: BTreeMap<EntityUid, String>,
    /// Where each policy stands: its file, its text and the line of that.
    places: BTreeMap<String, (PathBuf, String, usize)>,
    directory: Directory,
    actions: Actions,
    pub(crate) problems: Vec<PolicyProblem>,
}

impl Reading {
    /// Reads all files and holds them to the schema.
    pub(crate) fn of(files: &[SourceFile]) -> Self {
        let mut reading = Self::unchecked(files);
        // Against a schema that lacks what a broken file was to add, every policy would look wrong.
        if reading.problems.is_empty() {
            reading.validate(files);
        }
        reading
    }

    /// Reads all files.
    pub(crate) fn unchecked(files: &[SourceFile]) -> Self {
        let mut reading = Self::default();
        for file in files {
            match file.name.as_str() {
                ENTITIES_FILE => reading.entities(file),
                ACTIONS_FILE => match Actions::parse(&file.bytes) {
                    Ok(actions) => reading.actions = actions,
                    Err((line, what)) => reading.problem(file, line, &what),
                },
                _ => reading.file(file),
            }
        }
        // Only now: the file of entities may come last.
        for (uid, policy) in std::mem::take(&mut reading.literals) {
            if let Err(what) = reading.directory.names(&uid) {
                let (file, _, line) = reading.places.get(&policy).cloned().unwrap_or_default();
                reading.problems.push(PolicyProblem { file, line, what: format!("policy {policy}: {what}") });
            }
        }
        reading
    }

    /// What decides, and how it counts for the version.
    pub(crate) fn finish(self) -> (Rules, Value) {
        let policies: Vec<_> =
            self.canonical.into_iter().map(|(id, policy)| json!({"id": id, "policy": policy})).collect();
        let version = json!({ "policies": policies, "entities": self.directory.canonical,
            "schema": sha256_text(SCHEMA.as_bytes()), "actions": [self.actions.to_server, self.actions.to_client] });
        let schema =
            extended(&self.actions, &[]).and_then(|schema| schema.action_entities().map_err(|e| e.to_string()));
        let rules = Rules {
            index: Index::new(self.set),
            directory: self.directory,
            actions: schema.unwrap_or_default(),
            demands: self.demands,
            forbids: self.forbids,
            mentions: self.mentions,
            authorizer: Authorizer::new(),
        };
        (rules, version)
    }

    /// Holds everything that was read to the schema.
    fn validate(&mut self, files: &[SourceFile]) {
        let schema = match extended(&self.actions, &self.directory.canonical) {
            Ok(schema) => schema,
            Err(what) => {
                let file = files.iter().find(|file| file.name == ENTITIES_FILE).or_else(|| files.first());
                return file.into_iter().for_each(|file| self.problem(file, 0, &what));
            }
        };
        for Mistake { policy, what, names } in mistakes(schema, self.canonical.iter()) {
            let (file, text, first) = self.places.get(&policy).cloned().unwrap_or_default();
            // The validator was shown the policy in another form, so the line is where the name stands that it quotes.
            let stands = |name: &String| text.find(name).or_else(|| text.find(name.rsplit('.').next()?));
            let line = first + names.iter().find_map(stands).map_or(0, |offset| line_of(&text, offset) - 1);
            self.problems.push(PolicyProblem { file, line, what: format!("policy {policy}: {what}") });
        }
    }

    fn entities(&mut self, file: &SourceFile) {
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
        match demands(policy) {
            Ok(demands) if demands.is_empty() => {}
            Ok(demands) => drop(self.demands.insert(id.clone(), demands)),
            Err(what) => return self.problem(file, line, &what),
        }
        for uid in policy.entity_literals() {
            self.literals.entry(uid).or_insert_with(|| id.clone());
        }
        self.places.insert(id.clone(), (file.path.clone(), policy.to_cedar().unwrap_or_default(), line));
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
