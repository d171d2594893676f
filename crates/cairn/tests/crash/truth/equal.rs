//! The path of a workflow, as `cairn trail` tells it, against what the generator and the server know of it.
//!
//! What the generator cannot know (whether a call that a crash cut off was decided, for one) it leaves open; everything else must be equal.

use std::collections::{BTreeMap, BTreeSet};

use cairn_contract::Durability;
use serde_json::Value;

use super::account::{Act, Asked};
use crate::upstream::ERROR_CODE;

/// Calls that no step asked for: how a client comes in.
const OPENING: [&str; 3] = ["initialize", "tools/list", "server/discover"];

/// One workflow as the trail has it, and what is known of it otherwise.
pub(super) struct Told<'t> {
    pub(super) path: &'t Value,
    pub(super) asked: &'t [&'t Asked],
    /// Lines of the server's journal.
    pub(super) reached: &'t BTreeSet<String>,
    /// Ids of events that others wrote into it.
    pub(super) others: &'t [String],
    /// Starts of Cairn that were killed.
    pub(super) killed: &'t BTreeSet<usize>,
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

impl Told<'_> {
    /// What does not agree.
    pub(super) fn findings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let calls = self.calls(&mut found);
        for asked in self.asked {
            if let Err(words) = self.one(asked, calls.get(asked.id.as_str()).copied()) {
                found.push(format!(
                    "{words}: {asked:?}, trail {:#}",
                    calls.get(asked.id.as_str()).copied().unwrap_or(&Value::Null)
                ));
            }
        }
        self.operations(&calls, &mut found);
        self.repeats(&calls, &mut found);
        self.settled(&calls, &mut found);
        self.order(&calls, &mut found);
        self.others(&mut found);
        found
    }

    /// The trail's calls by the ids that the client gave, each once.
    fn calls(&self, found: &mut Vec<String>) -> BTreeMap<&str, &Value> {
        let known: BTreeSet<&str> = self.asked.iter().map(|asked| asked.id.as_str()).collect();
        let mut calls = BTreeMap::new();
        for call in self.path["calls"].as_array().into_iter().flatten() {
            let id = word(&call["events"][0]["data"], "jsonrpc_request_id").trim_matches('"');
            let is_ours = word(call, "direction") == "to_server" && !OPENING.contains(&word(call, "mcp_method_name"));
            if !is_ours {
                // What the server asked within a round is answered or not, but never left without an end. Of how a client came in, which is relaxed,
                // a kill may leave what stands in another topic alone.
                let is_lost = call["is_recorded"] == false && OPENING.contains(&word(call, "mcp_method_name"));
                if call["outcome"].is_null() && !is_lost && !self.is_others(call) {
                    found.push(format!("open at the end: {call:#}"));
                }
                continue;
            }
            if self.is_others(call) {
                continue;
            }
            // A kill may leave of a relaxed call what stands in another topic alone: told as lost, as if it were not there.
            let may_be_lost = |asked: &&&Asked| {
                asked.id == id
                    && self.was_killed(asked)
                    && Durability::of_method(asked.act.method()) != Durability::Strict
            };
            if call["is_recorded"] == false && self.asked.iter().any(|asked| may_be_lost(&asked)) {
                continue;
            }
            if !known.contains(id) {
                found.push(format!("nobody asked for {id}: {call:#}"));
            }
            if calls.insert(id, call).is_some() {
                found.push(format!("{id} was asked once and is two calls"));
            }
        }
        calls
    }

    fn is_others(&self, call: &Value) -> bool {
        call["events"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|event| self.others.iter().any(|id| id == word(event, "id")))
    }

    fn was_killed(&self, asked: &Asked) -> bool {
        self.killed.contains(&asked.life)
    }

    fn one(&self, asked: &Asked, call: Option<&Value>) -> Result<(), String> {
        let reached = self.reached.contains(&asked.id);
        let is_strict = Durability::of_method(asked.act.method()) == Durability::Strict;
        if reached && asked.is_turned_away() {
            return Err("the client was told that it was not taken, and it reached the server".to_owned());
        }
        let Some(call) = call else {
            let may_lack = asked.answer.is_none() || asked.is_turned_away() || (!is_strict && self.was_killed(asked));
            return match (may_lack, reached && is_strict) {
                (true, false) => Ok(()),
                (_, true) => Err("it reached the server, and the trail does not know it".to_owned()),
                (false, _) => Err("the client has an answer, and the trail does not know it".to_owned()),
            };
        };
        let (outcome, intent) = (&call["outcome"], &call["intent"]);
        let (ended, effect) = (word(outcome, "outcome"), word(outcome, "effect"));
        let is = |what: bool, words: &str| if what { Ok(()) } else { Err(words.to_owned()) };
        is(!outcome.is_null(), "it has no outcome")?;
        is(word(call, "mcp_method_name") == asked.act.method(), "another method")?;
        is(!(reached && is_strict && intent.is_null()), "it reached the server without an intent")?;
        is(!reached || effect != "none", "it reached the server, and its effect is none")?;
        is(reached || effect != "answered", "it did not reach the server, and was answered")?;
        let recovered = outcome["recovered"] == true;
        is(ended != "in_doubt" || recovered, "in doubt, although its gateway lived")?;
        is(!recovered || self.was_killed(asked), "closed by a later start, although its own was not killed")?;
        if asked.has_servers_answer() {
            if !is_strict && recovered {
                return Ok(());
            }
            is(word(&call["decision"], "decision") == "permit", "answered without a permit")?;
            is(effect == "answered", "the client has the answer, and the effect is another")?;
            is(ended == self.end_of(asked), &format!("it should have ended {}", self.end_of(asked)))?;
            is((outcome["is_error"] == true) == (asked.act == Act::Fails), "another word on whether the tool failed")?;
            let code = (asked.act == Act::Errs).then_some(ERROR_CODE);
            is(outcome["rpc_response_status_code"].as_i64() == code, "another code")?;
        }
        match asked.act {
            Act::Forbidden => {
                is(word(&call["decision"], "decision") == "deny" && intent.is_null(), "forbidden, and not denied")?;
                is(matches!((ended, effect), ("denied", "none")), "forbidden, and ended otherwise")
            }
            Act::Held if !asked.is_turned_away() => self.held(asked, call),
            _ => Ok(()),
        }
    }

    const fn end_of(&self, asked: &Asked) -> &'static str {
        match asked.act {
            Act::Fails | Act::Errs => "failed",
            Act::Begins => "accepted",
            Act::Round { number, of } if number < of => "input_required",
            _ => "completed",
        }
    }

    fn held(&self, asked: &Asked, call: &Value) -> Result<(), String> {
        let states: Vec<&str> = call["events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| word(event, "type") == "call.approval")
            .map(|event| word(&event["data"], "state"))
            .collect();
        let expected: &[&str] = match &asked.answer {
            Some(answer) if answer.get("result").is_some() => &["requested", "approved"],
            Some(_) => &["requested", "denied"],
            None => return Ok(()),
        };
        if states != expected {
            return Err(format!("approvals {states:?}, and the client's answer says {expected:?}"));
        }
        if expected[1] == "denied" && (word(&call["outcome"], "outcome") != "denied" || !call["intent"].is_null()) {
            return Err("a person said no, and it ended otherwise".to_owned());
        }
        if word(&call["approval"], "approver").is_empty() {
            return Err("nobody approved it by name".to_owned());
        }
        Ok(())
    }

    /// Which requests belong together, and in which round each of them is.
    fn operations(&self, calls: &BTreeMap<&str, &Value>, found: &mut Vec<String>) {
        let mut by_truth: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut by_trail: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for asked in self.asked {
            let Some(call) = calls.get(asked.id.as_str()) else { continue };
            let told = word(call, "operation_id");
            // A first round or task that was cut off began nothing that anybody could go on with.
            let began = asked.operation.as_deref() == Some(&asked.id) && asked.answer.is_none();
            match (&asked.operation, told.is_empty()) {
                (Some(_), true) if began => {}
                (Some(operation), _) => {
                    by_truth.entry(operation).or_default().insert(&asked.id);
                    by_trail.entry(told).or_default().insert(&asked.id);
                }
                (None, false) => found.push(format!("{} belongs to no operation, and is told to", asked.id)),
                (None, true) => {}
            }
            let round = call["round"].as_u64();
            let expected = if let Act::Round { number, .. } = asked.act { Some(number) } else { None };
            if !began && round != expected {
                found.push(format!("{} is round {expected:?}, and is told to be {round:?}", asked.id));
            }
        }
        let groups = |of: BTreeMap<&str, BTreeSet<&str>>| {
            of.into_values().map(|ids| format!("{ids:?}")).collect::<BTreeSet<_>>()
        };
        let (truth, trail) = (groups(by_truth), groups(by_trail));
        if truth != trail {
            found.push(format!("operations are {truth:?}, and are told to be {trail:?}"));
        }
    }

    /// A call that is sent again names the one before it, where nobody knows what that did.
    fn repeats(&self, calls: &BTreeMap<&str, &Value>, found: &mut Vec<String>) {
        for asked in self.asked.iter().filter(|asked| asked.act == Act::Works) {
            let Some(call) = calls.get(asked.id.as_str()).filter(|call| !call["intent"].is_null()) else { continue };
            let told = call["intent"]["repeats"].as_str();
            let first = asked.repeats.as_deref();
            let same = |other: &&&Asked| {
                first.is_some() && (other.repeats.as_deref() == first || Some(other.id.as_str()) == first)
            };
            let unknown = |other: &&Asked| {
                let outcome = &calls.get(other.id.as_str())?["outcome"];
                // What a start closed is known to that start.
                let known_in = if outcome["recovered"] == true { other.life + 1 } else { other.life };
                let is_unknown = word(outcome, "effect") == "unknown" && known_in == asked.life;
                is_unknown.then(|| word(calls[other.id.as_str()], "call_id"))
            };
            let earlier = self.asked.iter().take_while(|other| other.id != asked.id);
            let expected = earlier.filter(same).filter_map(unknown).last();
            if told != expected {
                found.push(format!("{} repeats {expected:?}, and is told to repeat {told:?}", asked.id));
            }
        }
    }

    /// A task whose end somebody saw has one end, in the call where it was seen first.
    fn settled(&self, calls: &BTreeMap<&str, &Value>, found: &mut Vec<String>) {
        for asked in self.asked.iter().filter(|asked| asked.act == Act::Begins) {
            let Some(call) = calls.get(asked.id.as_str()) else { continue };
            let ends = call["events"].as_array().into_iter().flatten();
            let ends: Vec<&Value> = ends.filter(|event| word(event, "type") == "call.settled").collect();
            let seen = self.asked.iter().find(|look| look.operation.as_deref() == Some(&asked.id) && look.shows_end());
            let first = seen.and_then(|look| calls.get(look.id.as_str())).map(|call| word(call, "call_id"));
            match (ends.as_slice(), seen) {
                ([], None) => {}
                // Nothing waits for it to be durable.
                ([], Some(look)) if self.was_killed(look) => {}
                ([end], Some(_))
                    if end["data"]["state"] == "completed" && end["data"]["observed_in"].as_str() == first => {}
                // The answer did not come, and the end was seen all the same.
                ([end], None) if end["data"]["state"] == "completed" && self.was_killed(asked) => {}
                _ => found.push(format!("the task of {} ended {ends:?}, seen in {first:?}", asked.id)),
            }
        }
    }

    /// What was asked one after another stands one after another.
    fn order(&self, calls: &BTreeMap<&str, &Value>, found: &mut Vec<String>) {
        let place = |id: &str| {
            let told = *calls.get(id)?;
            self.path["calls"].as_array()?.iter().position(|call| std::ptr::eq(call, told))
        };
        let mut before: Option<(usize, usize, &str)> = None;
        for asked in self.asked {
            let Some(place) = place(&asked.id) else { continue };
            if let Some((step, at, id)) = before
                && step < asked.step
                && at > place
            {
                found.push(format!("{} was asked after {id}, and is told before it", asked.id));
            }
            before = Some((asked.step, place, &asked.id));
        }
    }

    /// Every event that others wrote is there, of whatever version.
    fn others(&self, found: &mut Vec<String>) {
        let calls = self.path["calls"].as_array().into_iter().flatten();
        let all = calls.flat_map(|call| call["events"].as_array().into_iter().flatten());
        let all = all.chain(self.path["events"].as_array().into_iter().flatten());
        let ids: Vec<&str> = all.map(|event| word(event, "id")).collect();
        for id in self.others {
            if ids.iter().filter(|told| *told == id).count() != 1 {
                found.push(format!("the event {id} of a newer contract is not told once"));
            }
        }
    }
}
