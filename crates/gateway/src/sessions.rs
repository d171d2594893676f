//! The legacy sessions that are open over HTTP, found by server and session id.
//!
//! Bounded in number; a session without traffic is closed after a while. A session id is a bearer secret, so a session is
//! found only together with the server and the caller that it belongs to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cairn_clock::Timestamp;
use parking_lot::Mutex;

use crate::{
    session::{Caller, Session},
    upstream::Server,
};

/// All open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<(String, String), Arc<Session>>>);

impl Sessions {
    /// The caller's session of that id at that server. What is somebody else's is as good as absent.
    pub(crate) fn find(&self, server: &Server, caller: &Caller, id: &str) -> Option<Arc<Session>> {
        let sessions = self.0.lock();
        sessions.get(&(server.name.clone(), id.to_owned())).filter(|session| session.caller == *caller).cloned()
    }

    /// Whether a session of that id is there, whosever it is.
    pub(crate) fn holds(&self, server: &Server, id: &str) -> bool {
        self.0.lock().contains_key(&(server.name.clone(), id.to_owned()))
    }

    /// Keeps a session under its id.
    pub(crate) fn keep(&self, session: &Arc<Session>, id: &str) {
        self.0.lock().insert((session.server.name.clone(), id.to_owned()), session.clone());
    }

    /// Forgets a session.
    pub(crate) fn forget(&self, session: &Session) {
        if let Some(id) = session.secret.lock().clone() {
            self.0.lock().remove(&(session.server.name.clone(), id));
        }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Sessions that have been idle for longer than `idle`.
    pub(crate) fn idle(&self, now: Timestamp, idle: Duration) -> Vec<Arc<Session>> {
        let sessions = self.0.lock();
        sessions
            .values()
            .filter(|session| !session.is_busy() && now.since(session.last_used()) > idle)
            .cloned()
            .collect()
    }

    /// Every session.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.0.lock().values().cloned().collect()
    }
}
