//! What a call brings its server, so that the server can say what it did for it, and for no other call.
//!
//! A handle is `cairn-call.<base64url>`: the call's id, and behind it who called what within which workflow, sealed (AES-256-GCM) under a key of
//! its own that follows from Cairn's and the call's id. So ingest needs no memory of calls, a server cannot make one for a call that it never got,
//! nor learn from one who called it; and a handle that was changed opens no more. Whoever has it may report for that call until it is too old.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_contract::{Common, Direction};
use cairn_keys::Secret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const PREFIX: &str = "cairn-call.";
/// Longest handle that is looked at.
const HANDLE_BYTES_MAX: usize = 8 * 1024;
/// What a handle is bound to besides.
const ABOUT: &[u8] = b"cairn call handle 1";

/// Makes and opens handles.
#[derive(Clone, Debug)]
pub struct CallHandles {
    key: Secret,
    clock: Clock,
    entropy: Entropy,
}

/// The call that a handle is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Handed {
    #[serde(rename = "c")]
    pub(crate) call_id: Uuid,
    #[serde(rename = "w")]
    pub(crate) workflow_id: String,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    agent_name: Option<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<String>,
    /// When, in milliseconds since 1970.
    #[serde(rename = "at")]
    at_ms: u64,
}

impl Handed {
    /// What the call's events share, as far as its actions share it too.
    pub(crate) fn common(&self) -> Common {
        Common {
            workflow_id: self.workflow_id.clone(),
            call_id: Some(self.call_id),
            trace_id: self.trace_id.clone(),
            span_id: self.span_id.clone(),
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            agent: self.agent.clone(),
            agent_name: self.agent_name.clone(),
            server: self.server.clone(),
            mcp_method_name: self.method.clone(),
            direction: Some(Direction::ToServer),
            ..Common::default()
        }
    }
}

/// Why a handle does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadHandle {
    /// It is none, or was changed, or another Cairn gave it.
    #[error("it is no handle that this Cairn gave a server: send _meta[\"io.cairn/call\"] of the request as it came")]
    Unknown,
    /// The call is too long ago.
    #[error("its call is longer ago than actions are taken for")]
    Old,
}

impl CallHandles {
    /// Handles under this key: 32 bytes that stay.
    #[must_use]
    pub const fn new(key: Secret, clock: Clock, entropy: Entropy) -> Self {
        Self { key, clock, entropy }
    }

    fn key_of(&self, call_id: Uuid) -> Secret {
        self.key.derive(&format!("call handle {call_id}"))
    }

    /// The handle of a call whose events share `common`; `tool` as it stands in events.
    #[must_use]
    pub fn give(&self, common: &Common, tool: Option<&str>) -> String {
        let call_id = common.call_id.unwrap_or_default();
        let handed = Handed {
            call_id,
            workflow_id: common.workflow_id.clone(),
            trace_id: common.trace_id.clone(),
            span_id: common.span_id.clone(),
            tenant: common.tenant.clone(),
            principal: common.principal.clone(),
            agent: common.agent.clone(),
            agent_name: common.agent_name.clone(),
            server: common.server.clone(),
            method: common.mcp_method_name.clone(),
            tool: tool.map(ToOwned::to_owned),
            at_ms: self.clock.now().as_micros() / 1_000,
        };
        let plain = serde_json::to_vec(&handed).expect("texts and numbers are JSON");
        let mut bytes = call_id.as_bytes().to_vec();
        bytes.extend(self.key_of(call_id).seal(&self.entropy, ABOUT, &plain));
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The call that a handle is of.
    pub(crate) fn open(&self, handle: &str, age_max: Duration) -> Result<Handed, BadHandle> {
        let text = handle.strip_prefix(PREFIX).filter(|_| handle.len() <= HANDLE_BYTES_MAX);
        let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(BadHandle::Unknown)?;
        let (id, sealed) = bytes.split_at_checked(16).ok_or(BadHandle::Unknown)?;
        let call_id = Uuid::from_slice(id).map_err(|_| BadHandle::Unknown)?;
        let plain = self.key_of(call_id).open(ABOUT, sealed).ok_or(BadHandle::Unknown)?;
        let handed: Handed = serde_json::from_slice(&plain).map_err(|_| BadHandle::Unknown)?;
        if handed.call_id != call_id {
            return Err(BadHandle::Unknown);
        }
        let given = Timestamp::from_micros(handed.at_ms.saturating_mul(1_000));
        if self.clock.now().since(given) > age_max { Err(BadHandle::Old) } else { Ok(handed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handles(clock: &Clock) -> CallHandles {
        CallHandles::new(Secret::new([7; 32]), clock.clone(), Entropy::seeded(1))
    }

    fn common() -> Common {
        Common {
            workflow_id: "refund-4711".into(),
            call_id: Some(Uuid::from_u128(5)),
            tenant: Some("acme".into()),
            principal: Some("ann@example.org".into()),
            server: Some("orders".into()),
            mcp_method_name: Some("tools/call".into()),
            ..Common::default()
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_handle_opens_as_the_call_that_it_was_given_for() {
        let clock = Clock::manual(Timestamp::from_micros(1_795_521_600_000_000));
        let handles = handles(&clock);
        let handle = handles.give(&common(), Some("refund_order"));
        let handed = handles.open(&handle, DAY).expect("it was given");
        assert_eq!(handed.common(), Common { direction: Some(Direction::ToServer), ..common() });
        assert_eq!(handed.tool.as_deref(), Some("refund_order"));
        assert!(handle.is_ascii() && !handle.contains("ann") && !handle.contains("acme"), "it tells nobody who called");
        clock.advance(DAY + Duration::from_secs(1));
        assert_eq!(handles.open(&handle, DAY), Err(BadHandle::Old));
    }

    #[test]
    fn a_handle_that_was_changed_or_made_elsewhere_opens_nothing() {
        let clock = Clock::manual(Timestamp::from_micros(1_795_521_600_000_000));
        let handle = handles(&clock).give(&common(), None);
        let other = CallHandles::new(Secret::new([8; 32]), clock.clone(), Entropy::seeded(1));
        assert_eq!(other.open(&handle, DAY), Err(BadHandle::Unknown));
        let bytes = URL_SAFE_NO_PAD.decode(handle.strip_prefix(PREFIX).expect("it begins so")).expect("base64url");
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let changed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(handles(&clock).open(&changed, DAY), Err(BadHandle::Unknown), "byte {place}");
        }
        for bad in ["", "cairn-call.", "cairn-call.AAAA", "01996b5e-7c00-7000-8000-000000000001", &"x".repeat(9_000)] {
            assert_eq!(handles(&clock).open(bad, DAY), Err(BadHandle::Unknown));
        }
    }
}
