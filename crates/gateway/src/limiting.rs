//! Limits of calls: whom a call counts for, what it takes, and what its client and the trail hear when that is too much.
//!
//! Rates and places of the configuration are taken when a call comes, before anything of it is kept or decided: a flood
//! costs little then. Budgets, and what policies allow, are looked at before people are asked and taken right before the intent. What
//! was taken and not used is given back: where nothing was forwarded, and where the server only asked for input.
//! Must never let a call be forwarded whose spend is not on disk.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use cairn_contract::{Body, CallOutcome, Common, Direction, Effect, LimitExceeded, LimitSource, Outcome, Target};
use cairn_identity::Kind;
use cairn_limits::{COUNTERS_MAX, Charged, Entered, Exceeded, Part, Refused, Source, Subject};
use cairn_mcp::Message;
use cairn_policy::Permit;
use serde_json::{Value, json, value::RawValue};

use crate::{
    Gateway, Refusal,
    call::Call,
    flood::{Due, Flood},
    session::{Caller, Session},
};

/// What limits that were reached are told apart by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LimitKind {
    limit: String,
    source: Source,
    dimension: &'static str,
    who: Option<Caller>,
    server: Option<String>,
}

/// The last call of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    exceeded: Box<Exceeded>,
    common: Box<Common>,
    tool: Option<String>,
}

/// Limits that were reached of late.
pub(crate) type Overs = Flood<LimitKind, Over>;

/// How long to wait for a place, where nobody can say when one is free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// When to try again, for a client.
pub(crate) fn retry_after(exceeded: &Exceeded) -> Option<Duration> {
    match exceeded.bound {
        cairn_limits::Bound::Concurrency(_) => Some(PLACE_WAIT),
        _ => exceeded.retry_after,
    }
}

impl Gateway {
    /// Counts a call that has come.
    pub(crate) fn enter(&self, call: &Counted<'_>) -> Result<Option<Entered>, Refusal> {
        if !self.allowances().has_rules() {
            return Ok(None);
        }
        let entered = self.allowances().enter(&call.subject());
        entered.map(Some).map_err(|refused| self.limit_reached(call, refused))
    }

    /// Whether what is left of budgets and of what the permit allows is enough, before anybody is asked to approve.
    pub(crate) fn affords(&self, call: &Call, permit: &Permit) -> Result<(), Refusal> {
        if !self.counts(call, permit) {
            return Ok(());
        }
        let checked =
            self.allowances().check(&counted(call).subject(), permit.limits(), |pointer| argument(call, pointer));
        checked.map_err(|refused| self.limit_reached(&counted(call), refused))
    }

    /// Takes it.
    pub(crate) fn charge(&self, call: &mut Call, permit: &Permit) -> Result<(), Refusal> {
        if !self.counts(call, permit) {
            return Ok(());
        }
        let charged =
            self.allowances().charge(&counted(call).subject(), permit.limits(), |pointer| argument(call, pointer));
        call.charged = Some(charged.map_err(|refused| self.limit_reached(&counted(call), refused))?);
        Ok(())
    }

    /// Nothing was forwarded.
    pub(crate) fn uncharge(&self, call: &mut Call) {
        call.charged.take().into_iter().for_each(Charged::give_back);
    }

    /// The call has ended as the outcome says, with that answer.
    pub(crate) fn settle_charge(&self, call: &mut Call, outcome: &CallOutcome, answer: Option<&Message>) {
        let Some(charged) = call.charged.take() else { return };
        // The work goes on under the next call of the operation, or a server that took no token did nothing.
        let unused = outcome.effect == Effect::None || outcome.outcome == Outcome::InputRequired || call.token_refused;
        if unused {
            return charged.give_back();
        }
        let result = answer.and_then(Message::result_raw);
        charged.settle(|pointer| number_at(result.as_deref()?, pointer));
    }

    /// What policy sees as `context.budget`.
    pub(crate) fn budget_context(&self, call: &Call) -> Option<Value> {
        if call.direction != Direction::ToServer || !self.allowances().has_rules() {
            return None;
        }
        let standing = self.allowances().standing(&counted(call).subject())?;
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut context = json!({
            "limit": &*standing.name,
            "spent_percent": whole(standing.spent_percent),
            "remaining": whole(standing.remaining.millionths() / 1_000_000),
        });
        if let Some(renews) = standing.renews_in {
            context["renews_in_s"] = whole(renews.as_secs()).into();
        }
        Some(context)
    }

    fn counts(&self, call: &Call, permit: &Permit) -> bool {
        call.direction == Direction::ToServer && (self.allowances().has_rules() || !permit.limits().is_empty())
    }

    /// The refusal, counted and recorded.
    fn limit_reached(&self, call: &Counted<'_>, refused: Refused) -> Refusal {
        match refused {
            Refused::Exceeded(exceeded) => {
                self.note_exceeded(call, &exceeded);
                Refusal::LimitExceeded { exceeded }
            }
            Refused::NoCost { name, pointer, error } => {
                let why = error.map_or_else(|| "it has none".to_owned(), |error| error.to_string());
                Refusal::NoCost { limit: name.to_string(), pointer, why }
            }
            Refused::Full => Refusal::TooManyCounted { limit: COUNTERS_MAX },
        }
    }

    fn note_exceeded(&self, call: &Counted<'_>, exceeded: &Exceeded) {
        let kind = LimitKind {
            limit: exceeded.name.to_string(),
            source: exceeded.source,
            dimension: exceeded.bound.dimension().word(),
            who: Some(call.session.caller.clone()),
            server: Some(call.session.server.name.clone()),
        };
        self.metrics().limited(exceeded.bound.dimension().word());
        let tool = match &call.shown {
            Target::Tool { gen_ai_tool_name: name } => Some(name.clone()),
            _ => None,
        };
        let about = Over { exceeded: Box::new(exceeded.clone()), common: Box::new(call.common.clone()), tool };
        let coarse = |kind: LimitKind| LimitKind { who: None, server: None, ..kind };
        let Some(first) = self.overs().note(kind, coarse, about, self.clock().now()) else { return };
        let gateway = self.clone();
        tokio::spawn(async move { gateway.record_over(first).await });
    }

    /// Records what has been counted since.
    pub(crate) async fn record_exceeded(&self) {
        for due in self.overs().due(self.clock().now()) {
            self.record_over(due).await;
        }
    }

    async fn record_over(&self, due: Due<LimitKind, Over>) {
        let Over { exceeded, common, tool } = &due.about;
        let mut common = (**common).clone();
        if due.kind.who.is_none() {
            // It stands for many callers, and must not name one of them.
            common = Common { network_transport: common.network_transport, ..Common::default() };
        } else if due.count > 1 {
            common.call_id = None;
        }
        let wait = retry_after(exceeded).map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let body = Body::LimitExceeded(LimitExceeded {
            limit: self.screen(&exceeded.name),
            source: match exceeded.source {
                Source::Configuration => LimitSource::Configuration,
                Source::Policy => LimitSource::Policy,
            },
            dimension: due.kind.dimension.to_owned(),
            allowed: exceeded.bound.to_string(),
            used: exceeded.used.to_string(),
            per: exceeded.per.iter().map(|part| part.word().to_owned()).collect(),
            gen_ai_tool_name: tool.clone().filter(|_| due.kind.who.is_some()),
            retry_after_ms: wait,
            count: due.count,
            within_ms: due.within_ms,
        });
        if let Err(error) = self.record_turned_away(due.kind.server.clone(), common, body).await {
            tracing::warn!(%error, "a limit that was reached is not recorded yet");
            self.overs().put_back(due, self.clock().now());
        }
    }
}

/// What limits look at of a call.
#[derive(Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) session: &'a Session,
    pub(crate) common: &'a Common,
    pub(crate) target: &'a Target,
    pub(crate) shown: &'a Target,
    pub(crate) method: &'a str,
}

impl<'a> Counted<'a> {
    fn subject(&self) -> Subject<'a> {
        let Caller { tenant, principal, agent, kind } = &self.session.caller;
        let itself = (*kind == Kind::Agent).then_some(principal);
        Subject {
            tenant: tenant.as_deref(),
            principal,
            agent: agent.as_ref().or(itself).map(String::as_str),
            server: &self.session.server.name,
            tool: match self.target {
                Target::Tool { gen_ai_tool_name: name } => Some(name),
                _ => None,
            },
            method: self.method,
            workflow: &self.common.workflow_id,
        }
    }
}

fn counted(call: &Call) -> Counted<'_> {
    let Call { session, common, target, shown, method, .. } = call;
    Counted { session, common, target, shown, method }
}

fn argument(call: &Call, pointer: &str) -> Option<String> {
    number_at(&call.message.arguments_raw()?, pointer)
}

/// What stands at a JSON pointer, as it is written.
fn number_at(json: &[u8], pointer: &str) -> Option<String> {
    let mut value: &RawValue = serde_json::from_slice(json).ok()?;
    for step in pointer.strip_prefix('/')?.split('/') {
        let step = step.replace("~1", "/").replace("~0", "~");
        value = match value.get().as_bytes().first()? {
            b'{' => serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(value.get()).ok()?.remove(&*step)?,
            b'[' => serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value.get().to_owned())
}

/// What is counted apart, for people.
pub(crate) fn of_each(per: &[Part]) -> String {
    match per {
        [] => "for everybody together".to_owned(),
        per => format!("for each {}", per.iter().map(|part| part.word()).collect::<Vec<_>>().join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_as_it_is_written() {
        let json = br#"{"a/b": [{"~": 10.50}, 1e3], "": {"": 0}, "s": "5", "a\u0062": -1}"#;
        let at = |pointer| number_at(json, pointer);
        assert_eq!(at("/a~1b/0/~0").as_deref(), Some("10.50"));
        assert_eq!(at("/a~1b/1").as_deref(), Some("1e3"));
        assert_eq!(at("//").as_deref(), Some("0"));
        assert_eq!(at("/s").as_deref(), Some("\"5\""));
        assert_eq!(at("/ab").as_deref(), Some("-1"));
        for pointer in ["", "a", "/a~1b/2", "/a~1b/x", "/s/0", "/none"] {
            assert_eq!(at(pointer), None, "{pointer}");
        }
    }
}
