//! Step 4 of the life of a call: what of a payload and of a free text goes into the record.
//!
//! Payloads go into the vault, and a reference stands for them; which ones, and whether only a digest or nothing at all is
//! left, is for the operator to say ([`PayloadRules`]). Free texts are masked and cut. A strict call waits until what its
//! events refer to is durable ([`Pending`]). Nothing here touches the traffic.

use std::{borrow::Cow, time::Duration};

use cairn_backbone::RecordError;
use cairn_contract::{CatalogKind, DigestKey, EventType, Reference, Target};
use cairn_policy::Masking;
use cairn_screen::Screener;
use cairn_vault::{Kept, NotKept, Subject, Ticket, Vault};
use serde_json::{Map, Value};

use crate::{Gateway, call::Call, masking::Part, session::Caller};

/// Longest free text in an event, in characters.
const TEXT_CHARS_MAX: usize = 256;
/// Most of a free text that is looked at; what lies behind it is not shown.
const TEXT_SEEN_BYTES_MAX: usize = 64 * 1024;
/// Longest name or URI in an event, in characters.
const NAME_CHARS_MAX: usize = 2_048;

/// How long a strict call waits for its payloads: as long as for its events. A disk that stalls must not hold a client.
const DURABLE_WITHIN: Duration = Duration::from_secs(5);

/// Arguments are kept once, for the intent; the decision shows the same.
const ARGUMENTS_TWICE: (EventType, EventType) = (EventType::CallDecision, EventType::CallIntent);

/// What payloads of MCP are.
const JSON: &str = "application/json";

/// What the record holds of a payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum PayloadMode {
    /// Nothing, where the event can do without; else a digest.
    None,
    /// A keyed digest.
    Digest,
    /// A reference to the payload in the vault.
    #[default]
    Reference,
    /// The payload itself, masked, in the event: where its contract permits that, else a reference.
    Inline,
}

/// Which payload of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PayloadField {
    /// What the client sends.
    Arguments,
    /// What comes back: results, errors, contents, messages.
    Result,
    /// What policy decided on.
    Inputs,
}

impl PayloadField {
    /// The field of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "arguments" => Self::Arguments,
            "result" => Self::Result,
            "inputs" => Self::Inputs,
            _ => return None,
        })
    }
}

/// One rule on payloads; what it does not name fits all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadRule {
    /// The server, by its name in the configuration.
    pub server: Option<String>,
    /// The tool, prompt or resource.
    pub name: Option<String>,
    /// Which payload.
    pub field: Option<PayloadField>,
    /// In which event.
    pub contract: Option<EventType>,
    /// What the record holds.
    pub mode: PayloadMode,
}

/// What the record holds of payloads: the first rule that fits, else the general mode.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PayloadRules {
    /// Where no rule fits.
    pub mode: PayloadMode,
    /// In order.
    pub rules: Vec<PayloadRule>,
    /// Longest payload that stands in an event itself, in bytes.
    pub inline_bytes_max: usize,
}

impl PayloadRules {
    /// What policy decided on holds the arguments, so it is kept as little as they are.
    fn mode(&self, server: &str, target: &Target, field: PayloadField, event: EventType) -> PayloadMode {
        let own = self.ruled(server, target, field, event);
        match field {
            PayloadField::Inputs => own.min(self.ruled(server, target, PayloadField::Arguments, event)),
            _ => own,
        }
    }

    /// The same for a payload that is of no call: rules for a server or a name do not fit it.
    #[must_use]
    pub fn mode_of(&self, field: PayloadField, event: EventType) -> PayloadMode {
        let fits = |rule: &&PayloadRule| {
            rule.server.is_none()
                && rule.name.is_none()
                && rule.field.is_none_or(|wanted| wanted == field)
                && rule.contract.is_none_or(|wanted| wanted == event)
        };
        self.rules.iter().find(fits).map_or(self.mode, |rule| rule.mode)
    }

    fn ruled(&self, server: &str, target: &Target, field: PayloadField, event: EventType) -> PayloadMode {
        let fits = |rule: &&PayloadRule| {
            rule.server.as_deref().is_none_or(|wanted| wanted == server)
                && rule.name.as_deref().is_none_or(|wanted| target.name() == Some(wanted))
                && rule.field.is_none_or(|wanted| wanted == field)
                && rule.contract.is_none_or(|wanted| wanted == event || (wanted, event) == ARGUMENTS_TWICE)
        };
        self.rules.iter().find(fits).map_or(self.mode, |rule| rule.mode)
    }
}

/// What keeps payloads.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// What masks.
    pub screener: Screener,
    /// Where payloads lie; without it digests alone are left, under the gateway's own key.
    pub vault: Option<Vault>,
    /// Whether strict calls are refused while the vault does not take their payloads.
    pub required: bool,
    /// What is kept.
    pub rules: PayloadRules,
}

/// Payloads that a strict call's next event refers to, on their way to the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    tickets: Vec<Ticket>,
    pub(crate) refused: Option<NotKept>,
}

impl Pending {
    /// Why the vault does not take the payload, where it cannot.
    pub(crate) fn refused(&self) -> Option<String> {
        match self.refused? {
            NotKept::Busy => Some("the vault has no room for its payload at the moment: try again".to_owned()),
            _ => Some("the vault cannot keep its payload at the moment".to_owned()),
        }
    }
}

fn subject(caller: &Caller) -> Subject {
    Subject { tenant: caller.tenant.clone(), name: caller.principal.clone() }
}

impl Gateway {
    pub(crate) fn keeping(&self) -> &Keeping {
        &self.0.parts.keeping
    }

    /// Whether strict calls must not go on without their payloads being kept.
    pub(crate) fn payloads_are_required(&self) -> bool {
        self.keeping().required && self.keeping().vault.is_some()
    }

    /// The key of digests over what is somebody's; it goes when they are erased.
    pub(crate) fn payload_key(&self, caller: &Caller) -> DigestKey {
        match &self.keeping().vault {
            Some(vault) => vault.digest_key(&subject(caller)),
            None => self.keys().payload.clone(),
        }
    }

    /// The digest of bytes of somebody's, under the key that goes with them.
    pub(crate) fn payload_digest(&self, caller: &Caller, bytes: &[u8]) -> String {
        self.payload_key(caller).digest(bytes)
    }

    /// Waits until payloads are durable, where they are required to be.
    pub(crate) async fn payloads_durable(&self, pending: Pending) -> Result<(), RecordError> {
        let Some(vault) = self.keeping().vault.as_ref().filter(|_| self.payloads_are_required()) else { return Ok(()) };
        match tokio::time::timeout(DURABLE_WITHIN, vault.durable(&pending.tickets)).await {
            Ok(kept) => kept.map_err(|error| RecordError::Unavailable { reason: error.to_string() }),
            Err(_) => {
                let reason = format!("the vault has not written its payload within {} s", DURABLE_WITHIN.as_secs());
                Err(RecordError::Unavailable { reason })
            }
        }
    }

    /// What stands for a payload of a call's in its next event; nothing where nothing is to stand for it.
    pub(crate) fn kept(&self, call: &mut Call, event: EventType, part: Part, payload: &[u8]) -> Option<Reference> {
        let mode = self.mode(call, event, part);
        (mode != PayloadMode::None).then(|| self.kept_as(call, event, mode, part, payload))
    }

    /// The same where the event cannot do without.
    pub(crate) fn kept_always(&self, call: &mut Call, event: EventType, part: Part, payload: &[u8]) -> Reference {
        let mode = self.mode(call, event, part);
        self.kept_as(call, event, mode, part, payload)
    }

    /// What is configured, or less where policies want less.
    fn mode(&self, call: &Call, event: EventType, part: Part) -> PayloadMode {
        let configured = self.keeping().rules.mode(&call.session.server.name, &call.target, part.field(), event);
        configured.min(part.mode(&call.masking))
    }

    fn kept_as(&self, call: &mut Call, event: EventType, mode: PayloadMode, part: Part, payload: &[u8]) -> Reference {
        let whose = subject(&call.session.caller);
        let payload = &*self.masked(&call.masking, part, payload);
        if mode == PayloadMode::Inline
            && let Some(inline) = self.inline(call, event, part, payload)
        {
            let key = self.payload_key(&call.session.caller);
            return Reference { inline: Some(inline), ..key.reference(payload, JSON) };
        }
        match &self.keeping().vault {
            None => self.keys().payload.reference(payload, JSON),
            Some(vault) if mode < PayloadMode::Reference => vault.digest_key(&whose).reference(payload, JSON),
            Some(vault) => {
                // Whoever waits for it hurries it, together with the event that refers to it.
                let Kept { reference, ticket } = vault.keep(&whose, payload, JSON, false);
                match ticket {
                    Ok(ticket) => call.pending.tickets.push(ticket),
                    // What is too large is the operator's choice, and the reference says so.
                    Err(NotKept::TooLarge) => {}
                    Err(why) => call.pending.refused = Some(why),
                }
                reference
            }
        }
    }

    /// What stands for the result of a call that was approved and made later.
    pub(crate) fn kept_of(
        &self,
        request: &cairn_approvals::Request,
        masking: &Masking,
        payload: &[u8],
    ) -> Option<Reference> {
        let target = Target::tool(request.target.clone());
        let mode = self.keeping().rules.mode(&request.server, &target, PayloadField::Result, EventType::CallSettled);
        let mode = mode.min(Part::Result.mode(masking));
        let payload = &*self.masked(masking, Part::Result, payload);
        let whose = Subject { tenant: request.tenant.clone(), name: request.principal.clone() };
        match (&self.keeping().vault, mode) {
            (_, PayloadMode::None) => None,
            (None, _) => Some(self.keys().payload.reference(payload, JSON)),
            (Some(vault), PayloadMode::Digest) => Some(vault.digest_key(&whose).reference(payload, JSON)),
            // The server may be gone by now, and with it what it says of its fields: not inline.
            (Some(vault), PayloadMode::Reference | PayloadMode::Inline) => {
                Some(vault.keep(&whose, payload, JSON, false).reference)
            }
        }
    }

    /// Free text, as it may stand in an event: masked, printable and short.
    #[must_use]
    pub fn screen(&self, text: &str) -> String {
        self.screened(text, TEXT_CHARS_MAX)
    }

    /// A name as it may stand in an event.
    pub(crate) fn screen_name(&self, name: &str) -> String {
        self.screened(name, NAME_CHARS_MAX)
    }

    fn screened(&self, text: &str, chars_max: usize) -> String {
        // What is longer than is looked at is cut first; then it is masked whole, and only then cut to what is shown.
        let end = (0..=TEXT_SEEN_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let seen = &text[..end];
        let masked = self.keeping().screener.text(seen);
        masked.chars().filter(|c| !c.is_control()).take(chars_max).collect()
    }

    /// A resource's URI as it may stand in an event. Where that is not the URI itself a keyed digest follows, so that two
    /// resources never become one.
    #[must_use]
    pub fn screen_uri(&self, uri: &str) -> String {
        let shown = self.screened(uri, NAME_CHARS_MAX);
        if shown == uri { shown } else { format!("{shown}#{}", self.keys().version.digest(uri.as_bytes())) }
    }

    /// A resource's version as it may stand in an event: as it is, or as a keyed digest.
    pub(crate) fn screen_version(&self, version: String) -> String {
        let shown = self.screened(&version, TEXT_CHARS_MAX);
        if shown == version { version } else { self.keys().version.digest(version.as_bytes()) }
    }

    /// A resource and its version as both may stand in an event.
    pub(crate) fn screen_named(&self, (uri, version): (String, Option<String>)) -> (String, Option<String>) {
        (self.screen_uri(&uri), version.map(|version| self.screen_version(version)))
    }

    /// The name of what a server lists.
    pub(crate) fn screen_listed(&self, kind: CatalogKind, name: &str) -> String {
        if kind == CatalogKind::Resource { self.screen_uri(name) } else { self.screen_name(name) }
    }

    /// A workflow id as it may stand in an event: as it is, or as a keyed digest, so that two never become one.
    #[must_use]
    pub fn screen_id(&self, id: String) -> String {
        if self.keeping().screener.is_clean(&id) { id } else { self.keys().secret.digest(id.as_bytes()) }
    }

    /// A target as it may stand in an event.
    pub(crate) fn screen_target(&self, target: &Target) -> Target {
        match target {
            Target::Tool { gen_ai_tool_name: name } => Target::tool(self.screen_name(name)),
            Target::Resource { mcp_resource_uri: uri } => Target::resource(self.screen_uri(uri)),
            Target::Prompt { prompt_name: name } => Target::prompt(self.screen_name(name)),
            Target::None => Target::None,
        }
    }

    /// A value that stands in an event whole, such as a definition.
    pub(crate) fn screen_value(&self, value: &Value) -> Value {
        self.keeping().screener.value(value)
    }

    /// The same for an object.
    pub(crate) fn screen_object(&self, object: &Map<String, Value>) -> Map<String, Value> {
        match self.screen_value(&Value::Object(object.clone())) {
            Value::Object(masked) => masked,
            _ => Map::new(),
        }
    }

    /// A vendor's trace state, where it may stand in a record's header.
    pub(crate) fn screen_header(&self, text: &str) -> Option<String> {
        matches!(self.keeping().screener.text(text), Cow::Borrowed(_)).then(|| text.to_owned())
    }
}
