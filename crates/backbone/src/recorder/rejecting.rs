//! Events that break their contract: kept whole where payloads lie, and told of on `mcp.rejected`.
//!
//! Such an event takes no place in a chain, so the trail shows no gap for it; whoever waits for it hears why at once, and
//! a strict call whose event it is does not go on. Must never write to the trail what was refused.

use std::{fmt::Debug, sync::Arc, sync::atomic::Ordering};

use cairn_contract::{Draft, EventRejected, EventType, Reference, SealError};

use super::{Inner, Planned, RecordError, Recorder, lane::Unstamped};

/// Keeps events that broke their contract.
pub trait KeepsRejected: Debug + Send + Sync {
    /// Keeps the whole of one as somebody's payload; nothing where it cannot.
    fn keep(&self, tenant: Option<&str>, principal: &str, whole: &[u8]) -> Option<Reference>;
}

/// Whose payload an event is that names nobody.
const NOBODY: &str = "cairn";

impl Recorder {
    /// From here on events that break their contract are kept.
    pub fn keep_rejected(&self, keeps: Arc<dyn KeepsRejected>) {
        for inner in self.all() {
            // Nobody gives it twice; the first one would stay.
            let _ = inner.rejected.set(keeps.clone());
        }
    }
}

impl Inner {
    /// The event, unless it breaks its contract: then that is told, to whoever waits and on `mcp.rejected`.
    pub(super) fn unless_rejected(&self, item: Unstamped) -> Option<Unstamped> {
        let (id, error, mut reply) = match item.refused() {
            Ok(item) => return Some(item),
            Err(refused) => refused,
        };
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "an event breaks its contract: it lies in the vault, and mcp.rejected says so");
        if let SealError::Contract { event, version, faults, refused } = &error
            // What tells of it would only break the same contract again.
            && *event != EventType::EventRejected.name()
        {
            let principal = refused.common.principal.as_deref().unwrap_or(NOBODY);
            let keeps = self.rejected.get();
            let body = EventRejected {
                rejected_type: (*event).to_owned(),
                rejected_version: *version,
                rejected_id: id.to_string(),
                reason: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                event: keeps.and_then(|keeps| keeps.keep(refused.common.tenant.as_deref(), principal, &refused.whole)),
            };
            let draft = Draft {
                key: (*event).to_owned(),
                subject: None,
                traceparent: None,
                tracestate: None,
                common: named(&refused.common),
                body: body.into(),
            };
            self.enqueue_relaxed(Planned { id: self.entropy.uuid_v7(self.clock.now()), draft });
        }
        reply.tell(Err(RecordError::Invalid(Arc::new(error))));
        None
    }
}

/// Who and where, of what the event says: texts that themselves may be what breaks the contract are left out.
fn named(common: &cairn_contract::Common) -> cairn_contract::Common {
    cairn_contract::Common {
        call_id: common.call_id,
        tenant: common.tenant.clone(),
        principal: common.principal.clone(),
        server: common.server.clone(),
        ..cairn_contract::Common::default()
    }
}
