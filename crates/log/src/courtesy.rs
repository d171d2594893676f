//! Steps aside, within long work, for whoever waits for a processor. Called by all that reads, checks, uploads or merges much.
//!
//! A low priority alone does not help a thread that has just woken: Linux lets the one that runs have its slice first, and where it is
//! built without preemption nobody looks before the next tick, up to 4 ms later. So long work asks every few dozen microseconds who else
//! wants to run (`sched_yield(2)`), which costs well below one where nobody does.
//!
//! It guarantees: who steps aside loses by it no more than it worked, but for the last time, however busy the processors are.

use std::{cell::Cell, thread, time::Duration};

use tokio::time::Instant;

/// No more than this of what passed since the last question was work: the thread may have had none to do.
const WORK_MAX: Duration = Duration::from_millis(1);
/// Work that may be lost at most without more of it.
const CREDIT_MAX: Duration = Duration::from_millis(50);

/// What a thread may lose by stepping aside.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// What it worked, up to [`CREDIT_MAX`].
    credit: Duration,
    /// What it lost beyond that, and has to work before it steps aside again.
    debt: Duration,
    since: Option<Instant>,
    asked: u64,
}

thread_local! {
    static ACCOUNT: Cell<Account> = const { Cell::new(Account::NEW) };
}

impl Account {
    const NEW: Self = Self { credit: Duration::ZERO, debt: Duration::ZERO, since: None, asked: 0 };

    fn step_aside(&mut self, now: impl Fn() -> Instant, yield_now: impl FnOnce()) {
        self.asked += 1;
        let worked = self.passed(now()).min(WORK_MAX);
        let earned = worked.saturating_sub(self.debt);
        self.debt = self.debt.saturating_sub(worked);
        self.credit = (self.credit + earned).min(CREDIT_MAX);
        if !self.debt.is_zero() {
            return;
        }
        yield_now();
        let lost = self.passed(now());
        self.debt = lost.saturating_sub(self.credit);
        self.credit = self.credit.saturating_sub(lost);
    }

    fn passed(&mut self, now: Instant) -> Duration {
        self.since.replace(now).map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Lets another thread run that waits for this processor, if there is one. For work that takes longer than some dozen microseconds, and
/// that somebody may wait behind.
pub fn step_aside() {
    let mut account = ACCOUNT.get();
    account.step_aside(Instant::now, thread::yield_now);
    ACCOUNT.set(account);
}

/// How often this thread has asked, for tests.
#[doc(hidden)]
#[must_use]
pub fn asked() -> u64 {
    ACCOUNT.get().asked
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_micros(50);

    /// A thread that steps aside after each piece of work, and loses so much whenever it does.
    struct Worker {
        account: Account,
        now: Cell<Instant>,
        worked: Duration,
        lost: Duration,
    }

    impl Worker {
        fn new() -> Self {
            let mut worker = Self {
                account: Account::NEW,
                now: Cell::new(Instant::now()),
                worked: Duration::ZERO,
                lost: Duration::ZERO,
            };
            worker.ask(Duration::ZERO);
            worker
        }

        /// Whether it stepped aside.
        fn ask(&mut self, loss: Duration) -> bool {
            let before = self.now.get();
            let mut yielded = false;
            self.account.step_aside(
                || self.now.get(),
                || {
                    self.now.set(before + loss);
                    yielded = true;
                },
            );
            self.lost += self.now.get() - before;
            yielded
        }

        fn work(&mut self, passed: Duration) {
            self.now.set(self.now.get() + passed);
            self.worked += passed;
        }
    }

    #[test]
    fn who_steps_aside_loses_no_more_than_it_worked() {
        for loss in [10, 40, 60, 4_000, 90_000, 5_000_000].map(Duration::from_micros) {
            let mut worker = Worker::new();
            for _ in 0..500_000 {
                worker.work(PIECE);
                worker.ask(loss);
                assert!(worker.lost <= worker.worked + loss, "{:?} lost for {:?}", worker.lost, worker.worked);
            }
            let share = worker.lost.as_secs_f64() / worker.worked.as_secs_f64();
            assert!(loss < PIECE || share > 0.9, "a loss of {loss:?} each time comes to {share} of the work");
        }
    }

    #[test]
    fn who_loses_little_steps_aside_after_each_piece_and_what_was_long_ago_counts_little() {
        let mut worker = Worker::new();
        for _ in 0..100_000 {
            worker.work(PIECE);
            assert!(worker.ask(PIECE / 2));
        }
        assert!(worker.ask(CREDIT_MAX + 9 * WORK_MAX), "it has worked for 2.5 s more than it lost");
        for _ in 0..9 {
            // It waited for work.
            worker.work(Duration::from_secs(60));
            assert!(!worker.ask(Duration::ZERO), "no more than a millisecond of that was work");
        }
        worker.work(2 * WORK_MAX);
        assert!(worker.ask(Duration::ZERO));
    }

    #[test]
    fn each_thread_has_an_account_of_its_own() {
        let before = asked();
        step_aside();
        assert_eq!(asked(), before + 1);
        assert_eq!(thread::spawn(asked).join().expect("no panic"), 0);
    }
}
