//! Every error that Cairn itself gives a client: code, message, data. Documented in `docs/errors.md`.
//!
//! Codes lie outside −32768 to −32000, which JSON-RPC and MCP keep for themselves, so that no client mistakes a refusal
//! for something the server said. A refusal never repeats a payload.

use cairn_contract::{Freshness, StoodOn};
use cairn_limits::{Bound, Exceeded};
use cairn_mcp::{LinkError, LinkFault, Message, ParseFault, RawId, ScanFault};
use serde_json::{Value, json};

use crate::approval::URL_ELICITATION_REQUIRED;
use crate::limiting::{of_each, retry_after};

/// Why Cairn answered in the server's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Policy says no.
    Denied {
        /// The version that said so.
        policy_version: String,
        /// The policies that determined it; empty where no policy permits.
        policies: Vec<String>,
        /// What the call stands on and is not fresh: another read may help.
        not_fresh: Vec<StoodOn>,
    },
    /// Policies want the arguments rewritten in a way that cannot be done.
    NotRewritten {
        /// Which policies.
        policies: Vec<String>,
        /// Why it cannot.
        reason: String,
    },
    /// The decision point gave no decision that can be followed.
    NoDecision {
        /// Why.
        reason: String,
    },
    /// The server has answered, and its answer holds what policies keep from clients.
    OutputBlocked {
        /// Which policies.
        policies: Vec<String>,
        /// Which rules found something.
        rules: Vec<String>,
    },
    /// What the server offers there is not what somebody approved.
    NotApproved {
        /// Server and name.
        name: String,
        /// How its definition stands.
        standing: &'static str,
    },
    /// An approver said no.
    ApprovalDenied {
        /// Which hold.
        approval_id: String,
        /// What the approver gave as the reason.
        reason: Option<String>,
    },
    /// Nobody approved in time.
    ApprovalExpired {
        /// Which hold.
        approval_id: String,
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// The approval waits on, and the call may be made again when it is there.
    ApprovalPending {
        /// Which approval.
        approval_id: String,
        /// Until when it waits.
        expires_at: String,
        /// What a retry may bring.
        retry_token: String,
        /// Where people can look at it.
        url: Option<String>,
    },
    /// The client's user has to open an address first (MCP 2025-11-25).
    ApprovalByUrl {
        /// Which approval.
        approval_id: String,
        /// The address.
        url: String,
        /// What it is for.
        words: String,
    },
    /// A bound was reached; nothing was sent.
    Busy {
        /// The setting.
        setting: &'static str,
        /// Its value.
        limit: u64,
    },
    /// A limit was reached; nothing was sent.
    LimitExceeded {
        /// Which, and by how much.
        exceeded: Box<Exceeded>,
    },
    /// The call does not say what it costs.
    NoCost {
        /// The limit that counts it.
        limit: String,
        /// Where in the arguments the number should be.
        pointer: String,
        /// What is wrong.
        why: String,
    },
    /// More is counted by limits than can be; nothing was sent.
    TooManyCounted {
        /// The most.
        limit: usize,
    },
    /// The intent could not be made durable; nothing was sent.
    NotRecorded {
        /// Why.
        reason: String,
    },
    /// A person must log in to the server, at this machine: the words say how.
    LoginRequired {
        /// What to run.
        reason: String,
    },
    /// Cairn could not prove itself to the server.
    Unproven {
        /// Why.
        reason: String,
    },
    /// The server acted, but the outcome could not be made durable.
    ExecutedNotRecorded {
        /// Why.
        reason: String,
    },
    /// The server could not be reached; nothing was sent.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The connection broke after the call was sent: nobody can know what became of it.
    Lost {
        /// Why.
        reason: String,
    },
    /// The server took too long.
    TimedOut {
        /// After how long, in milliseconds.
        after_ms: u64,
    },
    /// A message is larger or deeper than the bound.
    TooLarge {
        /// What was exceeded.
        reason: String,
    },
    /// Something of one era that has no equal in the other.
    NotBridged {
        /// What.
        what: String,
    },
    /// The workflow id that the client gave is out of bounds.
    BadWorkflow {
        /// Which bound.
        reason: String,
    },
    /// The call was cancelled before it was forwarded.
    Cancelled,
    /// The request state that came with a retry is not one that this request can go on from.
    BadState {
        /// Why, and what to do.
        reason: String,
    },
    /// The server needs input, and the client gave an error in its place.
    InputRefused {
        /// The client's words.
        reason: String,
    },
    /// The server asked for input again and again.
    TooManyRounds {
        /// How often at most.
        limit: u32,
    },
}

/// Whether an error code is one of Cairn's own.
pub(crate) const fn is_own(code: i64) -> bool {
    matches!(code, -31_099..=-31_001)
}

/// The setting that bounds what a peer's message was refused for.
const fn setting_of(refusal: &cairn_mcp::Refusal) -> &'static str {
    match refusal.fault {
        ParseFault::TooLong { .. } => " (message_bytes_max)",
        ParseFault::Scan(ScanFault::TooDeep { .. }) => " (nesting_depth_max)",
        _ => "",
    }
}

/// What went wrong with a link, with the setting that bounds it.
pub(crate) fn reason(error: &LinkError) -> String {
    let setting = match error.cause() {
        LinkFault::BadAnswer(refusal) => setting_of(refusal),
        LinkFault::Refused { .. } => " (server_connect_ms_max)",
        LinkFault::NotReady { .. } => " (server_restart_ms_max)",
        LinkFault::TooLong { .. } => " (message_bytes_max)",
        LinkFault::SlowReader { .. } => " (client_queue_max)",
        _ => "",
    };
    format!("{error}{setting}")
}

/// What the caller must know of a resource that is not fresh, to recover by itself.
fn stood_on(stood: &StoodOn) -> String {
    let uri = &stood.mcp_resource_uri;
    let version = |version: &Option<String>| version.as_deref().unwrap_or("a version that is not known").to_owned();
    match stood.state {
        Freshness::Stale => {
            let (seen, known) = (version(&stood.seen), version(&stood.known));
            format!("; {uri} is stale: you have {seen}, and it is {known} by now: read it again")
        }
        Freshness::Changing => format!("; {uri} is being changed at this moment: wait, and read it again"),
        Freshness::Unknown if uri.is_empty() => {
            "; which resource the call stands on cannot be told from its arguments, or its tool declares none"
                .to_owned()
        }
        Freshness::Unknown => format!("; you have not read {uri}: read it first"),
        Freshness::Behind => {
            format!("; what is known of {uri} is behind what has happened: try again in a moment")
        }
        Freshness::Fresh => format!("; {uri} was read too long ago: read it again"),
    }
}

impl Refusal {
    /// Every word that [`Refusal::word`] gives.
    pub const WORDS: [&'static str; 22] = [
        "approval_denied",
        "approval_expired",
        "approval_pending",
        "bad_workflow_id",
        "busy",
        "cancelled",
        "denied",
        "executed_not_recorded",
        "limit_exceeded",
        "login_required",
        "no_cost",
        "no_decision",
        "not_approved",
        "not_bridged",
        "not_recorded",
        "not_rewritten",
        "output_blocked",
        "timed_out",
        "too_large",
        "upstream_lost",
        "upstream_unavailable",
        "upstream_unproven",
    ];

    /// A server could not be reached; what to do is said where a setting matters.
    pub(crate) fn unavailable(error: &LinkError) -> Self {
        Self::Unavailable { reason: reason(error) }
    }

    /// A client's message is beyond a bound.
    pub(crate) fn too_large(refusal: &cairn_mcp::Refusal) -> Self {
        Self::TooLarge { reason: format!("{refusal}{}; send less or raise the setting", setting_of(refusal)) }
    }

    /// This gateway takes no new calls.
    pub(crate) fn stopping() -> Self {
        Self::NotRecorded { reason: "the gateway is stopping".to_owned() }
    }

    /// A policy demands an approval where no call can be held.
    pub(crate) fn unheld(permit: &cairn_policy::Permit) -> Self {
        let needs = permit.approval().map(|demand| demand.needs).unwrap_or_default();
        let policies = needs.iter().map(|need| need.policy.clone()).collect();
        Self::Denied { policy_version: permit.version().to_owned(), policies, not_fresh: Vec::new() }
    }

    /// The JSON-RPC error code.
    #[must_use]
    pub const fn code(&self) -> i64 {
        match self {
            Self::Denied { .. } => -31_001,
            Self::ApprovalDenied { .. } => -31_002,
            Self::ApprovalExpired { .. } => -31_003,
            Self::Busy { .. } | Self::TooManyCounted { .. } => -31_004,
            Self::NotRecorded { .. } => -31_005,
            Self::ExecutedNotRecorded { .. } => -31_006,
            Self::Unavailable { .. } => -31_007,
            Self::Lost { .. } => -31_008,
            Self::TimedOut { .. } => -31_009,
            Self::TooLarge { .. } => -31_010,
            Self::NotBridged { .. } => -31_011,
            Self::Cancelled => -31_012,
            Self::BadWorkflow { .. } => -31_013,
            Self::BadState { .. } => -31_014,
            Self::InputRefused { .. } => -31_015,
            Self::TooManyRounds { .. } => -31_016,
            Self::NotApproved { .. } => -31_017,
            Self::LoginRequired { .. } => -31_040,
            Self::Unproven { .. } => -31_041,
            Self::ApprovalPending { .. } => -31_018,
            Self::NotRewritten { .. } => -31_020,
            Self::OutputBlocked { .. } => -31_021,
            Self::LimitExceeded { .. } => -31_019,
            Self::NoCost { .. } => -31_022,
            Self::NoDecision { .. } => -31_023,
            Self::ApprovalByUrl { .. } => URL_ELICITATION_REQUIRED,
        }
    }

    /// The word that stands in `error_type` of the outcome and in `data.cairn` of the error.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::ApprovalDenied { .. } => "approval_denied",
            Self::ApprovalExpired { .. } => "approval_expired",
            Self::Busy { .. } | Self::TooManyCounted { .. } => "busy",
            Self::NotRecorded { .. } => "not_recorded",
            Self::ExecutedNotRecorded { .. } => "executed_not_recorded",
            Self::Unavailable { .. } => "upstream_unavailable",
            Self::Lost { .. } => "upstream_lost",
            Self::TimedOut { .. } => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::NotBridged { .. } => "not_bridged",
            Self::Cancelled => "cancelled",
            Self::BadWorkflow { .. } => "bad_workflow_id",
            Self::BadState { .. } => "bad_request_state",
            Self::InputRefused { .. } => "input_refused",
            Self::TooManyRounds { .. } => "too_many_rounds",
            Self::NotApproved { .. } => "not_approved",
            Self::NotRewritten { .. } => "not_rewritten",
            Self::OutputBlocked { .. } => "output_blocked",
            Self::LimitExceeded { .. } => "limit_exceeded",
            Self::NoCost { .. } => "no_cost",
            Self::NoDecision { .. } => "no_decision",
            Self::LoginRequired { .. } => "login_required",
            Self::Unproven { .. } => "upstream_unproven",
            Self::ApprovalPending { .. } | Self::ApprovalByUrl { .. } => "approval_pending",
        }
    }

    /// What the person reading the error should know and do.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Denied { policy_version, policies, not_fresh } => {
                let denied = if policies.is_empty() {
                    format!("denied: no policy permits this call (policy version {policy_version}); ask for a permit")
                } else {
                    format!("denied by policy {} (policy version {policy_version})", policies.join(", "))
                };
                denied + &not_fresh.iter().map(stood_on).collect::<String>()
            }
            Self::NotApproved { name, standing } => format!(
                "the definition of {name} is {standing}, and only approved ones can be called: an operator looks at it with `cairn catalogue` and approves it"
            ),
            Self::NotRewritten { policies, reason } => {
                format!("denied: {} cannot be followed: {reason}; nothing was sent", policies.join(", "))
            }
            Self::NoDecision { reason } => {
                format!("denied, because the decision point decided nothing: {reason}; nothing was sent")
            }
            Self::OutputBlocked { policies, rules } => format!(
                "the server has acted, and {} keeps its answer from you: found by {}",
                policies.join(", "),
                rules.join(", ")
            ),
            Self::ApprovalDenied { approval_id, reason } => match reason {
                Some(reason) => format!("approval {approval_id} was denied: {reason}"),
                None => format!("approval {approval_id} was denied"),
            },
            Self::ApprovalExpired { approval_id, after_ms } => format!(
                "approval {approval_id} did not come within {after_ms} ms (hold_ms_max); nothing was sent; call again to ask again"
            ),
            Self::ApprovalPending { approval_id, expires_at, url, .. } => {
                let look = url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
                format!(
                    "approval {approval_id} waits for people until {expires_at}{look}; nothing was sent; make the same call again when it is there"
                )
            }
            Self::ApprovalByUrl { words, url, .. } => format!("{words}: open {url}, then make the same call again"),
            Self::Busy { setting, limit } => {
                format!("too many at once: {setting} is {limit}; nothing was sent; retry later or raise the setting")
            }
            Self::LimitExceeded { exceeded } => {
                let Exceeded { name, bound, per, .. } = &**exceeded;
                let what = match bound {
                    Bound::Rate(_) => format!("{bound} calls"),
                    Bound::Concurrency(_) => format!("{bound} calls at once"),
                    Bound::Budget(_) => bound.to_string(),
                };
                let when = match retry_after(exceeded) {
                    Some(wait) => format!("retry in {:.1} s", wait.as_secs_f64().max(0.1)),
                    None => "it is not renewed, or never large enough: ask whoever set it".to_owned(),
                };
                format!("over the limit {name} ({what} {}); nothing was sent; {when}", of_each(per))
            }
            Self::TooManyCounted { limit } => {
                format!("limits count {limit} callers, tools and workflows, and no more; nothing was sent; retry later")
            }
            Self::NoCost { limit, pointer, why } => format!(
                "the limit {limit} counts the number at {pointer} of the arguments, and {why}; nothing was sent; give a number of at least 0"
            ),
            Self::NotRecorded { reason } => {
                format!("not recorded, so not forwarded: {reason}; nothing was sent; retry when recording works again")
            }
            Self::ExecutedNotRecorded { reason } => format!(
                "executed, not recorded: the server has acted and its outcome could not be made durable: {reason}; do not repeat the call without looking"
            ),
            Self::Unavailable { reason } => format!("the server cannot be reached: {reason}; nothing was sent"),
            Self::Lost { reason } => {
                format!("the server was lost during the call: {reason}; whether it acted is not known")
            }
            Self::TimedOut { after_ms } => {
                format!("no answer within {after_ms} ms (call_timeout_ms); whether the server acted is not known")
            }
            Self::TooLarge { reason } | Self::BadWorkflow { reason } | Self::BadState { reason } => reason.clone(),
            Self::InputRefused { reason } => {
                format!("the server needs input that the client did not give: {reason}; the call did not go on")
            }
            Self::TooManyRounds { limit } => {
                format!("the server asked for input {limit} times and was not content; the call did not go on")
            }
            Self::LoginRequired { reason } => format!("{reason}; the server did nothing"),
            Self::Unproven { reason } => {
                format!("Cairn could not prove itself to the server: {reason}; the server did nothing")
            }
            Self::NotBridged { what } => format!("{what} cannot be carried between these MCP revisions"),
            Self::Cancelled => "cancelled before it was forwarded; nothing was sent".to_owned(),
        }
    }

    /// The JSON-RPC error, to the request of that id.
    #[must_use]
    pub fn response(&self, id: Option<&RawId>) -> Message {
        let data = self.data().to_string();
        Message::error(id, self.code(), &self.message(), Some(data.as_bytes())).expect("an error of ours is a message")
    }

    /// The `data` member of the error.
    #[must_use]
    pub fn data(&self) -> Value {
        let mut data = json!({ "cairn": self.word() });
        match self {
            Self::Denied { policy_version, policies, not_fresh } => {
                data["policy_version"] = json!(policy_version);
                data["determining_policies"] = json!(policies);
                if !not_fresh.is_empty() {
                    data["freshness"] = json!(not_fresh);
                }
            }
            Self::ApprovalDenied { approval_id, .. } | Self::ApprovalExpired { approval_id, .. } => {
                data["approval_id"] = json!(approval_id);
            }
            Self::ApprovalPending { approval_id, expires_at, retry_token, url } => {
                data["approval_id"] = json!(approval_id);
                data["expires_at"] = json!(expires_at);
                data["retry_token"] = json!(retry_token);
                if let Some(url) = url {
                    data["url"] = json!(url);
                }
            }
            Self::ApprovalByUrl { approval_id, url, words } => {
                data["approval_id"] = json!(approval_id);
                let asked = json!({ "mode": "url", "elicitationId": approval_id, "url": url, "message": words });
                data["elicitations"] = json!([asked]);
            }
            Self::NotRewritten { policies, .. } => data["determining_policies"] = json!(policies),
            Self::OutputBlocked { policies, rules } => {
                data["determining_policies"] = json!(policies);
                data["rules"] = json!(rules);
            }
            Self::NotApproved { name, standing } => {
                data["name"] = json!(name);
                data["standing"] = json!(standing);
            }
            Self::LimitExceeded { exceeded } => {
                data["limit"] = json!(&*exceeded.name);
                data["dimension"] = json!(exceeded.bound.dimension().word());
                data["allowed"] = json!(exceeded.bound.to_string());
                data["per"] = json!(exceeded.per.iter().map(|part| part.word()).collect::<Vec<_>>());
                if let Some(wait) = retry_after(exceeded) {
                    data["retry_after_ms"] = json!(u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX));
                }
            }
            Self::NoCost { limit, pointer, .. } => {
                data["limit"] = json!(limit);
                data["pointer"] = json!(pointer);
            }
            Self::Busy { setting, limit } => {
                data["setting"] = json!(setting);
                data["limit"] = json!(limit);
            }
            _ => {}
        }
        data
    }
}
