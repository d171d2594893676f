//! Share sessions (KIP-932): which partitions a member of a share group fetches, so that each of its requests says only what changed.
//! Called by the share requests.
//!
//! A session is named by its group and member. Its requests count up; one that comes out of turn is refused, and the member begins anew.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use uuid::Uuid;

/// Sessions that are open at once, as many as a broker of Kafka has.
const SESSIONS_MAX: usize = 2_000;
/// Partitions of all of them together.
const PARTITIONS_MAX: usize = 100_000;
/// Requests with these epochs open a session, and close it.
pub(crate) const OPENS: i32 = 0;
pub(crate) const CLOSES: i32 = -1;

/// Whose session it is.
pub(crate) type Who = (Arc<str>, Arc<str>);
/// Topic and partition.
pub(crate) type Place = (Uuid, i32);

/// Why a request does not belong to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionError {
    NotFound,
    Epoch,
    Full,
}

#[derive(Debug, Default)]
struct ShareSession {
    /// What the next request has.
    next: i32,
    places: BTreeSet<Place>,
    /// Where the last request began to look, so that none of the partitions is always behind the others.
    turn: usize,
    /// By which connection it was opened.
    connection: u64,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct ShareSessions(Mutex<HashMap<Who, ShareSession>>);

impl ShareSessions {
    /// Opens a session in place of one that there may be, and puts these partitions in it.
    pub(crate) fn open(&self, who: Who, places: &[Place], connection: u64) -> Result<Vec<Place>, SessionError> {
        let mut all = self.0.lock();
        let partitions: usize = all.values().map(|session| session.places.len()).sum();
        let is_full = all.len() >= SESSIONS_MAX && !all.contains_key(&who);
        if is_full || partitions + places.len() > PARTITIONS_MAX {
            return Err(SessionError::Full);
        }
        let places: BTreeSet<Place> = places.iter().copied().collect();
        let told = places.iter().copied().collect();
        all.insert(who, ShareSession { next: 1, places, turn: 0, connection });
        Ok(told)
    }

    /// Takes the next request of a session: adds partitions and forgets some; what is to be fetched, in turns.
    pub(crate) fn go_on(
        &self,
        who: &Who,
        epoch: i32,
        added: &[Place],
        forgotten: &[Place],
    ) -> Result<Vec<Place>, SessionError> {
        let mut all = self.0.lock();
        let partitions: usize = all.values().map(|session| session.places.len()).sum();
        let session = all.get_mut(who).ok_or(SessionError::NotFound)?;
        if session.next != epoch {
            return Err(SessionError::Epoch);
        }
        session.next = epoch.checked_add(1).unwrap_or(1);
        let forgotten: BTreeSet<Place> = forgotten.iter().copied().collect();
        session.places.retain(|place| !forgotten.contains(place));
        if partitions + added.len() > PARTITIONS_MAX {
            return Err(SessionError::Full);
        }
        session.places.extend(added.iter().filter(|place| !forgotten.contains(place)));
        session.turn = session.turn.wrapping_add(1);
        let mut places: Vec<Place> = session.places.iter().copied().collect();
        if !places.is_empty() {
            let turn = session.turn % places.len();
            places.rotate_left(turn);
        }
        Ok(places)
    }

    /// Ends a session; what was in it.
    pub(crate) fn close(&self, who: &Who) -> Result<Vec<Place>, SessionError> {
        let ended = self.0.lock().remove(who).ok_or(SessionError::NotFound)?;
        Ok(ended.places.into_iter().collect())
    }

    /// Ends those that were opened by a connection which is gone; whose they were.
    pub(crate) fn hang_up(&self, connection: u64) -> Vec<Who> {
        let mut all = self.0.lock();
        let of = |session: &ShareSession| session.connection == connection;
        let gone: Vec<Who> = all.iter().filter(|(_, session)| of(session)).map(|(who, _)| who.clone()).collect();
        gone.iter().for_each(|who| drop(all.remove(who)));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(member: &str) -> Who {
        ("g".into(), member.into())
    }

    fn places(partitions: std::ops::Range<i32>) -> Vec<Place> {
        partitions.map(|partition| (Uuid::from_u128(1), partition)).collect()
    }

    #[test]
    fn requests_of_a_session_come_in_turn_and_each_partition_is_first_once() {
        let sessions = ShareSessions::default();
        assert_eq!(sessions.go_on(&who("a"), 1, &[], &[]), Err(SessionError::NotFound));
        assert_eq!(sessions.open(who("a"), &places(0..2), 7), Ok(places(0..2)));
        assert_eq!(sessions.go_on(&who("a"), 2, &[], &[]), Err(SessionError::Epoch));
        let mut first = BTreeSet::new();
        for epoch in 1..4 {
            let added = if epoch == 1 { places(2..3) } else { Vec::new() };
            let told = sessions.go_on(&who("a"), epoch, &added, &[]).expect("in turn");
            assert_eq!(told.len(), 3);
            first.insert(told[0]);
        }
        assert_eq!(first.len(), 3);
        assert_eq!(sessions.go_on(&who("a"), 4, &[], &places(0..2)), Ok(places(2..3)));
        assert_eq!(sessions.go_on(&who("a"), 4, &[], &[]), Err(SessionError::Epoch), "it came already");
        assert_eq!(sessions.close(&who("a")), Ok(places(2..3)));
        assert_eq!(sessions.close(&who("a")), Err(SessionError::NotFound));
    }

    #[test]
    fn a_session_ends_with_the_connection_that_opened_it_and_no_other() {
        let sessions = ShareSessions::default();
        sessions.open(who("a"), &[], 1).expect("room");
        sessions.open(who("b"), &[], 2).expect("room");
        // The member came again by another connection before the first was seen to be gone.
        sessions.open(who("a"), &[], 3).expect("room");
        assert_eq!(sessions.hang_up(1), Vec::new());
        assert_eq!(sessions.hang_up(2), vec![who("b")]);
        assert!(sessions.go_on(&who("a"), 1, &[], &[]).is_ok());
    }

    #[test]
    fn sessions_and_their_partitions_are_bounded() {
        let sessions = ShareSessions::default();
        for n in 0..SESSIONS_MAX {
            sessions.open(who(&n.to_string()), &[], 1).expect("room");
        }
        assert_eq!(sessions.open(who("one more"), &[], 1), Err(SessionError::Full));
        assert_eq!(sessions.open(who("7"), &[], 1), Ok(Vec::new()), "in place of its own");
        let many = places(0..i32::try_from(PARTITIONS_MAX).expect("few"));
        assert!(sessions.open(who("7"), &many, 1).is_ok());
        assert_eq!(sessions.go_on(&who("8"), 1, &places(0..1), &[]), Err(SessionError::Full));
    }
}
