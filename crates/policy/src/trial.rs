//! Policies on trial: what a set would have decided on inputs that were recorded.
//!
//! Asked by `cairn whatif`. The inputs of a decision hold the request and its context as policies saw them; who is in which
//! group is the set's own, because it is what is on trial. Makes no permit: nothing here lets a call go on.

use std::collections::BTreeMap;

use cedar_policy::EntityUid;
use serde_json::{Map, Value};

use crate::{
    PolicyError,
    files::SourceFile,
    names::SERVER,
    question::{Asked, Named},
    set::{ActiveSet, Said},
};

/// A set on trial.
#[derive(Debug)]
pub struct Trial(ActiveSet);

/// What it would have decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// Whether the call would have gone on.
    pub permit: bool,
    /// The policies that make the decision, by id, sorted.
    pub determining: Vec<String>,
    /// What it demands, by name, sorted.
    pub obligations: Vec<String>,
    /// What went wrong in evaluating policies.
    pub errors: Vec<String>,
}

/// Why a recorded decision cannot be made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTried {
    /// The inputs are not what a decision records.
    #[error("these are no inputs of a decision")]
    NoInputs,
    /// The call had something that no policy could see, and the decision hangs on what it was.
    #[error("the decision depends on arguments that policies cannot see")]
    Hidden,
}

impl Trial {
    /// A set from the texts of its files, by name: `*.cedar`, `entities.json`, `actions.json`.
    ///
    /// # Errors
    /// It does not compile.
    pub fn open(files: &BTreeMap<String, String>) -> Result<Self, PolicyError> {
        let file = |(name, text): (&String, &String)| SourceFile {
            path: name.into(),
            name: name.clone(),
            bytes: text.as_bytes().to_vec(),
        };
        let files: Vec<_> = files.iter().map(file).collect();
        ActiveSet::compile(&files).map(Self)
    }

    /// The set's version: `sha256:<hex>`, or `observe` without policies.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// What the set would have decided on those inputs.
    ///
    /// # Errors
    /// [`NotTried`]
    pub fn decide(&self, inputs: &[u8]) -> Result<Tried, NotTried> {
        let recorded: Recorded = serde_json::from_slice(inputs).map_err(|_| NotTried::NoInputs)?;
        let named = recorded.named().ok_or(NotTried::NoInputs)?;
        let known = self.0.known(&recorded.key(), named);
        let hides = recorded.context.contains_key("unmapped");
        let request = known.request(recorded.context).ok_or(NotTried::NoInputs)?;
        let mut asked = Asked { request, known, inputs: bytes::Bytes::new(), hides: false };
        let said = self.0.decide(&asked);
        // What stands under `unmapped` may be nulls alone, which hide nothing, or more: the record does not say.
        if hides {
            asked.hides = true;
            if self.0.decide(&asked).permit != said.permit {
                return Err(NotTried::Hidden);
            }
        }
        Ok(tried(said))
    }
}

fn tried(said: Said) -> Tried {
    let mut obligations: Vec<_> = said.obligations.iter().map(|one| one.name().to_owned()).collect();
    obligations.sort();
    Tried { permit: said.permit, determining: said.determining, obligations, errors: said.errors }
}

#[derive(serde::Deserialize)]
struct Recorded {
    action: Reference,
    context: Map<String, Value>,
    principal: Reference,
    resource: Reference,
}

#[derive(serde::Deserialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

impl Reference {
    fn uid(&self) -> Option<EntityUid> {
        Some(crate::names::uid(&crate::names::kind(&self.kind)?, &self.id))
    }
}

impl Recorded {
    fn named(&self) -> Option<Named> {
        let resource = self.resource.uid()?;
        let server = match *resource.type_name() == *SERVER {
            true => resource.clone(),
            false => crate::names::uid(&SERVER, self.resource.id.split_once('/').map_or(&*self.resource.id, |at| at.0)),
        };
        Some(Named { principal: self.principal.uid()?, action: self.action.uid()?, resource, server })
    }

    /// Everything that the kept part depends on; lengths stand before names, so that no two are alike.
    fn key(&self) -> String {
        let parts = [&self.principal, &self.action, &self.resource];
        parts.iter().map(|one| format!("{}:{}{}:{}", one.kind.len(), one.kind, one.id.len(), one.id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use cairn_clock::Timestamp;
    use cairn_contract::{Direction, Target};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Question;

    fn texts(policies: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("a.cedar".to_owned(), policies.to_owned())])
    }

    const POLICIES: &str = r#"
        @id("all") permit(principal, action, resource);
        @id("much") forbid(principal, action == Action::"tools/call", resource)
        when { context has arguments && context.arguments has n && context.arguments.n > 3 };
        @id("early") forbid(principal, action, resource) when { context.now < datetime("2026-01-01") };
        @id("pay") @obligation("approval") permit(principal, action == Action::"tools/call", resource == Tool::"s/pay");
        @id("odd") forbid(principal == User::"odd", action, resource) when { context.arguments.gone == "x" };
    "#;

    fn question(who: &str, tool: &str, arguments: Value) -> Question {
        Question {
            principal: who.to_owned(),
            action: "tools/call".to_owned(),
            direction: Direction::ToServer,
            server: "s".to_owned(),
            target: Target::tool(tool),
            arguments: Some(arguments),
            context: Map::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same set says the same again: no flip comes from asking the other way.
        #[test]
        fn a_set_agrees_with_itself(
            who in "[a-c]", tool in prop_oneof![Just("pay"), Just("look")], n in 0..6_i64, text in "[a-z\"é/]{0,6}",
        ) {
            let trial = Trial::open(&texts(POLICIES)).expect("it compiles");
            let question = question(&who, tool, json!({ "n": n, "text": text, "list": [text, "x"], "f": 0.5 }));
            let asked = trial.0.ask(&question, Timestamp::from_micros(1_795_521_600_123_456));
            let again = trial.decide(&asked.inputs).expect("inputs");
            prop_assert_eq!(again, tried(trial.0.decide(&asked)));
        }
    }

    #[test]
    fn what_depends_on_what_nobody_saw_is_not_decided() {
        let trial = Trial::open(&texts(POLICIES)).expect("it compiles");
        let now = Timestamp::from_micros(1_795_521_600_123_456);
        let inputs = |arguments| trial.0.ask(&question("odd", "look", arguments), now).inputs;
        assert_eq!(trial.decide(&inputs(json!({ "f": 0.5 }))), Err(NotTried::Hidden));
        assert!(trial.decide(&inputs(json!({ "f": 1 }))).expect("inputs").permit);
        assert_eq!(trial.decide(b"{}"), Err(NotTried::NoInputs));
        assert_eq!(trial.decide(b"no JSON"), Err(NotTried::NoInputs));
    }

    #[test]
    fn the_time_of_the_question_counts_and_not_that_of_the_trial() {
        let trial = Trial::open(&texts(POLICIES)).expect("it compiles");
        let early = Timestamp::from_micros(1_700_000_000_000_000);
        let asked = trial.0.ask(&question("ann", "look", json!({})), early);
        assert_eq!(trial.decide(&asked.inputs).expect("inputs").determining, ["early"]);
    }
}
