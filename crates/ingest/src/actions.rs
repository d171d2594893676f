//! Actions: what a server did downstream for a call, told by the handle that the call brought it.
//!
//! `POST /v1/actions`, JSON: `{"actions": [{"call", "system", "kind", "id", "state", "occurred_at"?, "idempotency_key"?}]}`. Which call it was,
//! whose and of which server, is what the handle says and nothing else. All of a request is good or none of it is taken; it is answered when it
//! is durable. An action's event has an id that follows from the call and the idempotency key, or where there is none from what the action
//! says, so that a server may send again whatever it did not hear an answer to.

use cairn_backbone::{Planned, RecordError};
use cairn_clock::Timestamp;
use cairn_contract::{ActionReported, Body, Draft};
use cairn_identity::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Ingest,
    fault::Fault,
    handles::Handed,
    record::{id_of, says},
};

/// Longest body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
/// Actions of one request.
const ACTIONS_MAX: usize = 100;
/// Longest word for a system, a kind or a state, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Longest id, and longest idempotency key, in bytes.
const ID_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    actions: Vec<Action>,
}

/// One action, as the server tells it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    call: String,
    system: String,
    kind: String,
    id: String,
    state: String,
    #[serde(default)]
    occurred_at: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

impl Action {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let words = [("system", &self.system), ("kind", &self.kind), ("state", &self.state)];
        for (name, word) in words {
            if word.is_empty() || word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control) {
                return Some(format!("{name} has 1 to {WORD_BYTES_MAX} bytes and no control characters"));
            }
        }
        let ids = [("id", Some(&self.id)), ("idempotency_key", self.idempotency_key.as_ref())];
        for (name, id) in ids.into_iter().filter_map(|(name, id)| Some((name, id?))) {
            if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
                return Some(format!("{name} has 1 to {ID_BYTES_MAX} bytes and no control characters"));
            }
        }
        match &self.occurred_at {
            Some(time) if time_of(time).is_none() => {
                Some("occurred_at is a time such as 2026-11-24T09:00:00Z (RFC 3339)".to_owned())
            }
            _ => None,
        }
    }

    /// What it says, but for the time.
    fn says(&self) -> [u8; 32] {
        says(&[self.system.as_bytes(), self.kind.as_bytes(), self.id.as_bytes(), self.state.as_bytes()])
    }
}

/// An action with its event.
struct Told {
    planned: Planned,
    call_id: uuid::Uuid,
    tenant: Option<String>,
    says: [u8; 32],
    repeated: bool,
}

impl Ingest {
    /// Takes the actions of a request; gives the answer once all are durable. `who` is nobody where a handle alone must do.
    pub(crate) async fn take_actions(&self, who: Option<&Identity>, body: &[u8]) -> Result<Value, Fault> {
        let request: Request =
            serde_json::from_slice(body).map_err(|error| Fault::Malformed(format!("the body: {error}")))?;
        if request.actions.is_empty() || request.actions.len() > ACTIONS_MAX {
            return Err(Fault::Malformed(format!("actions has 1 to {ACTIONS_MAX} actions")));
        }
        let told = request.actions.iter().enumerate().map(|(place, action)| self.told(who, place, action));
        let mut told = told.collect::<Result<Vec<_>, _>>()?;
        self.record(&mut told).await?;
        let repeated = told.iter().filter(|told| told.repeated).count() as u64;
        self.parts().metrics.actions("repeated", repeated);
        self.parts().metrics.actions("recorded", told.len() as u64 - repeated);
        let list = told
            .iter()
            .map(|told| json!({ "event_id": told.planned.id, "call_id": told.call_id, "repeated": told.repeated }));
        Ok(json!({ "actions": list.collect::<Vec<_>>() }))
    }

    fn told(&self, who: Option<&Identity>, place: usize, action: &Action) -> Result<Told, Fault> {
        let at = |words: String| format!("actions[{place}]: {words}");
        if let Some(fault) = action.fault() {
            return Err(Fault::Malformed(at(fault)));
        }
        let handed = self.parts().handles.open(&action.call, self.bounds().handle_age_max);
        let handed = handed.map_err(|bad| Fault::Malformed(at(format!("call: {bad}"))))?;
        // Whoever belongs to a tenant reports within it; a server of all tenants has a credential of none.
        if let Some(tenant) = who.and_then(|who| who.tenant.as_ref())
            && handed.tenant.as_ref() != Some(tenant)
        {
            return Err(Fault::Forbidden(at("call: it is a call of another tenant than the sender's".to_owned())));
        }
        let says = action.says();
        let call_id = handed.call_id;
        let own = match &action.idempotency_key {
            Some(key) => id_of(&[b"action.reported", call_id.as_bytes(), b"key", key.as_bytes()]),
            None => id_of(&[b"action.reported", call_id.as_bytes(), b"says", &says]),
        };
        let known = self.0.recent.of(own);
        if known.is_some_and(|known| known != says) {
            let words = "idempotency_key: it was used for another action of this call".to_owned();
            return Err(Fault::Conflict(at(words)));
        }
        let tenant = handed.tenant.clone();
        let draft = self.action(who, &handed, action);
        Ok(Told { planned: Planned { id: own, draft }, call_id, tenant, says, repeated: known.is_some() })
    }

    fn action(&self, who: Option<&Identity>, handed: &Handed, action: &Action) -> Draft {
        let body = ActionReported {
            gen_ai_tool_name: handed.tool.clone(),
            system: self.screened(&action.system),
            kind: self.screened(&action.kind),
            id: self.screened_id(&action.id),
            state: self.screened(&action.state),
            reported_by: who.map(|who| who.principal.clone()),
            reported_by_tenant: who.and_then(|who| who.tenant.clone()),
            occurred_at: action.occurred_at.as_deref().and_then(time_of).map(|time| time.to_string()),
        };
        let server = handed.server.as_deref().unwrap_or("-");
        let subject = handed.tool.as_ref().map_or_else(|| server.to_owned(), |tool| format!("{server}/{tool}"));
        Draft {
            key: handed.workflow_id.clone(),
            subject: Some(subject),
            traceparent: None,
            tracestate: None,
            common: handed.common(),
            body: Body::from(body),
        }
    }

    /// Records what is new, tenant by tenant, because events of two do not ride in one go.
    async fn record(&self, told: &mut [Told]) -> Result<(), Fault> {
        let mut left: Vec<usize> = (0..told.len()).collect();
        // The same action twice in one request is one.
        for place in 0..told.len() {
            let id = told[place].planned.id;
            if let Some(before) = told[..place].iter().find(|before| before.planned.id == id) {
                if before.says != told[place].says {
                    let words = format!("actions[{place}]: idempotency_key: it is used for two actions of this call");
                    return Err(Fault::Conflict(words));
                }
                told[place].repeated = true;
            }
        }
        left.retain(|place| !told[*place].repeated);
        while let Some(first) = left.first() {
            let tenant = told[*first].tenant.clone();
            let together: Vec<usize> = left.iter().copied().filter(|place| told[*place].tenant == tenant).collect();
            left.retain(|place| !together.contains(place));
            let planned = together.iter().map(|place| told[*place].planned.clone()).collect();
            self.parts().recorder.strict_all(planned).await.map_err(|error| not_recorded(&error))?;
            for place in together {
                self.0.recent.remember(told[place].planned.id, told[place].says);
            }
        }
        Ok(())
    }
}

/// A time of RFC 3339: with a fraction or without, in UTC or with an offset.
fn time_of(text: &str) -> Option<Timestamp> {
    let (clock, rest) = text.split_at_checked("2026-11-24T09:00:00".len())?;
    let zone = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (fraction, zone) = rest.split_at(zone);
    let digits = match fraction.strip_prefix('.') {
        Some(digits) => digits,
        None if fraction.is_empty() => "0",
        None => return None,
    };
    if digits.is_empty() || digits.len() > 9 || digits.contains('.') {
        return None;
    }
    let local: Timestamp = format!("{}.{:0<6.6}Z", clock.replace(['t', ' '], "T"), digits).parse().ok()?;
    let (sign, offset) = zone.split_at_checked(1)?;
    let minutes = match (sign, offset) {
        ("Z" | "z", "") => 0,
        ("+" | "-", offset) => {
            let (hours, minutes) =
                offset.split_once(':').filter(|(hours, minutes)| hours.len() + minutes.len() == 4)?;
            let of = |text: &str, max: u64| text.parse::<u64>().ok().filter(|number| *number <= max);
            of(hours, 23)? * 60 + of(minutes, 59)?
        }
        _ => return None,
    };
    let offset_us = minutes * 60_000_000;
    let us = local.as_micros();
    let us = if sign == "+" { us.checked_sub(offset_us)? } else { us.checked_add(offset_us)? };
    Some(Timestamp::from_micros(us))
}

fn not_recorded(error: &RecordError) -> Fault {
    match error {
        RecordError::Invalid(invalid) => Fault::Malformed(format!("the action cannot be recorded: {invalid}")),
        other => Fault::NotRecorded(format!("the actions are not recorded yet, send them again: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_languages_write_them() {
        for (text, expected) in [
            ("2026-11-24T09:00:00Z", Some("2026-11-24T09:00:00.000000Z")),
            ("2026-11-24T09:00:00.123Z", Some("2026-11-24T09:00:00.123000Z")),
            ("2026-11-24T09:00:00.123456789Z", Some("2026-11-24T09:00:00.123456Z")),
            ("2026-11-24 10:30:00.5+01:30", Some("2026-11-24T09:00:00.500000Z")),
            ("2026-11-24T04:00:00-05:00", Some("2026-11-24T09:00:00.000000Z")),
            ("2026-11-24T09:00:00", None),
            ("2026-11-24T09:00:00.Z", None),
            ("2026-02-30T09:00:00Z", None),
            ("2026-11-24T09:00:00+1:30", None),
            ("2026-11-24T09:00:00\u{e9}", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(time_of(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
    }
}
