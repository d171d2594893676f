//! Logins that somebody has begun and not finished, and how the last ones ended. Asked by `cairn login` through the admin
//! API; finished by the browser at `/oauth/callback`. Bounded: a new login pushes out the oldest.
//!
//! The URL of a login is for operators alone: whoever logs in lends an account to every agent that may call the server.

use std::{collections::VecDeque, fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::CredentialError;

/// Logins of one server that may be open at once.
const OPEN_MAX: usize = 8;
/// Endings that are remembered.
const ENDED_MAX: usize = 16;
/// How long a person may take.
pub(crate) const LOGIN_MAX: Duration = Duration::from_secs(600);

/// A login that was begun.
#[derive(Clone)]
pub struct Login {
    /// Names it towards operators; opens nothing.
    pub id: String,
    /// Where the person logs in. For operators alone.
    pub url: String,
    /// How long the person may take.
    pub within: Duration,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How far a login has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginState {
    /// The person has not come back yet.
    Open,
    /// The token is there.
    Done,
    /// It failed.
    Failed(CredentialError),
    /// Nobody knows it: it took too long, or never was.
    Unknown,
}

/// What the browser brings back.
#[derive(Clone)]
pub struct Callback {
    /// Names the login; a secret of the browser's and ours.
    pub state: String,
    /// What is exchanged for the token; none where the person or the server said no.
    pub code: Option<String>,
    /// Who sent the browser back (RFC 9207).
    pub issuer: Option<String>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

/// The logins of one server, each with what is needed to finish it.
#[derive(Debug)]
pub(crate) struct Logins<T> {
    /// How long a person may take.
    within: Duration,
    open: Mutex<VecDeque<Open<T>>>,
    ended: Mutex<VecDeque<(String, LoginState)>>,
}

struct Open<T> {
    id: String,
    state: String,
    began: Instant,
    rest: T,
}

impl<T> fmt::Debug for Open<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<T> Default for Logins<T> {
    fn default() -> Self {
        Self { within: LOGIN_MAX, open: Mutex::default(), ended: Mutex::default() }
    }
}

impl<T> Logins<T> {
    pub(crate) fn begin(&self, id: &str, state: &str, rest: T) {
        let mut open = self.open.lock();
        open.retain(|login| login.began.elapsed() < self.within);
        if open.len() >= OPEN_MAX {
            open.pop_front();
        }
        open.push_back(Open { id: id.to_owned(), state: state.to_owned(), began: Instant::now(), rest });
    }

    /// Takes the login of that state, once. Its id and what is needed to finish it.
    pub(crate) fn take(&self, state: &str) -> Option<(String, T)> {
        let mut open = self.open.lock();
        open.retain(|login| login.began.elapsed() < self.within);
        let at = open.iter().position(|login| ring_equal(&login.state, state))?;
        let login = open.remove(at)?;
        drop(open);
        self.end(&login.id, LoginState::Open); // it is being finished
        Some((login.id, login.rest))
    }

    /// Whether a login of that state is open.
    pub(crate) fn knows(&self, state: &str) -> bool {
        let open = self.open.lock();
        open.iter().any(|login| login.began.elapsed() < self.within && ring_equal(&login.state, state))
    }

    pub(crate) fn end(&self, id: &str, state: LoginState) {
        let mut ended = self.ended.lock();
        ended.retain(|(other, _)| other != id);
        if ended.len() >= ENDED_MAX {
            ended.pop_front();
        }
        ended.push_back((id.to_owned(), state));
    }

    pub(crate) fn state(&self, id: &str) -> LoginState {
        if let Some((_, state)) = self.ended.lock().iter().find(|(ended, _)| ended == id) {
            return state.clone();
        }
        let open = self.open.lock();
        let is_open = open.iter().any(|login| login.id == id && login.began.elapsed() < self.within);
        if is_open { LoginState::Open } else { LoginState::Unknown }
    }
}

/// Compares in a time that does not tell where they differ.
fn ring_equal(one: &str, other: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest(one).as_ref() == digest(other).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_opens_its_login_once_and_only_for_a_while() {
        let logins = Logins::default();
        logins.begin("1", "state-1", 'a');
        logins.begin("2", "state-2", 'b');
        assert!(logins.take("state-3").is_none());
        assert_eq!(logins.take("state-1"), Some(("1".to_owned(), 'a')));
        assert!(logins.take("state-1").is_none(), "a second time it is somebody else's");
        assert_eq!(logins.state("2"), LoginState::Open);
        let late = Logins { within: Duration::ZERO, ..logins };
        assert!(late.take("state-2").is_none());
        assert_eq!(late.state("2"), LoginState::Unknown);
    }

    #[test]
    fn open_logins_are_bounded() {
        let logins = Logins::default();
        for count in 0..100 {
            logins.begin(&count.to_string(), &format!("state-{count}"), ());
            logins.end(&count.to_string(), LoginState::Done);
        }
        assert_eq!(logins.open.lock().len(), OPEN_MAX);
        assert_eq!(logins.ended.lock().len(), ENDED_MAX);
        assert!(!format!("{logins:?}").contains("state-"));
    }
}
