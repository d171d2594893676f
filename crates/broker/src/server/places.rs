//! The places that connections take, so many and no more. Called by the listener.
//!
//! When all are taken, a newcomer gets the place of the connection that has been quiet for longest: a flood of silent
//! connections locks nobody out, and a client whose connection was quiet opens another when it needs one. A connection
//! with a request in progress is never closed for this.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a newcomer waits until the one that it replaces is gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// All places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
}

#[derive(Debug)]
struct Seat {
    /// Since when nothing is asked; none while a request is in progress.
    quiet_since: Mutex<Option<Instant>>,
    leave: CancellationToken,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default(), freed: Notify::new() })
    }

    /// A free place, or that of the quietest; none where everybody is at work.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        if let Some(place) = self.sit() {
            return Some(place);
        }
        self.quietest()?.leave.cancel();
        let until_free = async {
            loop {
                if let Some(place) = self.sit() {
                    return place;
                }
                self.freed.notified().await;
            }
        };
        timeout(LEAVE_LIMIT, until_free).await.ok()
    }

    fn sit(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.seats.len() >= self.most {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat { quiet_since: Mutex::new(Some(Instant::now())), leave: CancellationToken::new() });
        taken.seats.insert(number, Arc::clone(&seat));
        Some(Place { places: Arc::clone(self), number, seat })
    }

    fn quietest(&self) -> Option<Arc<Seat>> {
        let taken = self.taken.lock();
        let quiet = taken.seats.values().filter(|seat| !seat.leave.is_cancelled());
        let quiet = quiet.filter_map(|seat| seat.quiet_since.lock().map(|since| (since, seat)));
        quiet.min_by_key(|(since, _)| *since).map(|(_, seat)| Arc::clone(seat))
    }
}

impl Place {
    /// A request is in progress.
    pub(super) fn work(&self) {
        *self.seat.quiet_since.lock() = None;
    }

    /// Nothing is in progress; says so again as often as one likes.
    pub(super) fn rest(&self) {
        self.seat.quiet_since.lock().get_or_insert_with(Instant::now);
    }

    /// Resolves when another needs this place.
    pub(super) fn leave(&self) -> CancellationToken {
        self.seat.leave.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().seats.remove(&self.number);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newcomer_gets_the_place_of_the_quietest_and_of_nobody_at_work() {
        let places = Places::new(2);
        let (busy, quiet) = (places.take().await.expect("free"), places.take().await.expect("free"));
        busy.work();
        let leave = quiet.leave();
        let holder = tokio::spawn(async move {
            leave.cancelled().await;
            drop(quiet);
        });
        let third = places.take().await.expect("the quiet one's");
        holder.await.expect("it left");
        assert!(!busy.leave().is_cancelled());
        third.work();
        assert!(places.take().await.is_none(), "everybody is at work");
    }
}
