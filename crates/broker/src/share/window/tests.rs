//! A window against a model that keeps one state for each offset, and what Kafka's page says of each way to end.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { lock_ms: 100, deliveries_max: 3, locks_max: 20 };
const END: u64 = 60;

fn member(n: u8) -> Arc<str> {
    format!("m{n}").into()
}

/// One offset in the model: the same states, and how often it was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct One(State, u16);

#[derive(Debug, Clone)]
enum Step {
    /// Who takes, how many, from a log of batches of this length, exactly so many or whole batches.
    Take(u8, u64, u64, bool),
    /// Who judges which offsets, from the start on, how.
    Judge(u8, u64, u64, u8),
    Lost(u8, bool),
    /// There are no records from there, behind the start, so many.
    Nothing(u64, u64),
    Wait(u64),
    Cut(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 1..12_u64, 1..7_u64, any::<bool>()).prop_map(|(who, most, length, exact)| Step::Take(who, most, length, exact)),
        6 => (0..3_u8, 0..20_u64, 0..6_u64, 0..5_u8).prop_map(|(who, first, more, how)| Step::Judge(who, first, more, how)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(who, lost)| Step::Lost(who, lost)),
        1 => (0..30_u64, 1..4_u64).prop_map(|(first, count)| Step::Nothing(first, count)),
        2 => (1..120_u64).prop_map(Step::Wait),
        1 => (0..5_u64).prop_map(Step::Cut),
        1 => Just(Step::Restart),
    ]
}

struct Model {
    window: Window,
    all: Vec<One>,
    start: u64,
    now_ms: u64,
}

impl Model {
    fn back(&mut self, which: impl Fn(&State) -> bool, less: u16) {
        for One(state, count) in self.all.iter_mut().filter(|one| which(&one.0)) {
            *state = if less == 0 && *count >= RULES.deliveries_max { State::Archived } else { State::Available };
            *count -= less;
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Take(who, most, length, exact) => self.take(&member(who), most, length, exact),
            Step::Judge(who, first, more, how) => self.judge(&member(who), first, more, how),
            Step::Lost(who, lost) => {
                let id = member(who);
                self.back(|state| matches!(state, State::Acquired { by, .. } if *by == id), u16::from(!lost));
                let returned = if lost { Returned::Lost } else { Returned::Unseen };
                self.window.take_back(&id, returned, &RULES);
            }
            Step::Nothing(first, count) => {
                let (first, last) = (self.start + first, (self.start + first + count).min(END) - 1);
                if first > last {
                    return;
                }
                for One(state, _) in self.all[first as usize..=last as usize].iter_mut() {
                    if *state == State::Available {
                        *state = State::Archived;
                    }
                }
                self.window.archive(first, last);
            }
            Step::Wait(ms) => {
                self.now_ms += ms;
                let now_ms = self.now_ms;
                self.back(|state| matches!(state, State::Acquired { until_ms, .. } if *until_ms <= now_ms), 0);
                self.window.expire(now_ms, &RULES);
            }
            Step::Cut(more) => {
                let log_start = (self.start + more).min(END);
                self.all[..log_start as usize].fill(One(State::Archived, 0));
                self.window.begin_at(log_start);
            }
            Step::Restart => {
                self.back(|state| matches!(state, State::Acquired { .. }), 1);
                self.window = Window::restore(self.window.start(), &self.window.kept());
            }
        }
        while matches!(self.all.get(self.start as usize), Some(One(State::Accepted | State::Archived, _))) {
            self.start += 1;
        }
    }

    fn take(&mut self, id: &Arc<str>, most: u64, length: u64, exact: bool) {
        let next = self.window.next(END, &RULES);
        let free = |one: &One| one.0 == State::Available;
        let expected = (self.start..END.min(self.start + RULES.locks_max)).find(|at| free(&self.all[*at as usize]));
        assert_eq!(next, expected);
        let Some(from) = next else { return };
        let batches: Vec<(u64, u64)> =
            (from / length..END.div_ceil(length)).map(|n| (n * length, (n * length + length).min(END) - 1)).collect();
        let taken = self.window.acquire(id, &batches, (most, exact), &RULES, self.now_ms);
        let offsets: Vec<(u64, u16)> =
            taken.iter().flat_map(|of| (of.first..=of.last).map(|at| (at, of.count))).collect();
        assert_eq!(offsets.first().map(|(at, _)| *at), Some(from), "what is free first is handed out first");
        assert!(offsets.len() as u64 <= if exact { most } else { most + length - 1 }, "{taken:?}");
        for (at, count) in offsets {
            let One(state, before) = &mut self.all[at as usize];
            assert_eq!((&*state, *before + 1), (&State::Available, count), "offset {at}");
            assert!(at < self.start + RULES.locks_max, "too many under way");
            *state = State::Acquired { by: Arc::clone(id), until_ms: self.now_ms + RULES.lock_ms };
            *before = count;
        }
    }

    fn judge(&mut self, id: &Arc<str>, first: u64, more: u64, how: u8) {
        let (first, last) = (self.start + first, (self.start + first + more).min(END - 1));
        if first > last {
            return;
        }
        // One word for all, or one for each of which one is another.
        let said = Verdict::of_code(how as i8).expect("a code");
        let mut verdicts = vec![said];
        if more % 2 == 1 {
            verdicts = vec![said; (last - first + 1) as usize];
            verdicts[0] = Verdict::Release;
        }
        let has = |at: u64| matches!(&self.all[at as usize].0, State::Acquired { by, .. } if by == id);
        let may = (first..=last).all(has);
        let before = self.window.clone();
        let judged = Judged { first, last, verdicts: verdicts.clone() };
        let result = self.window.judge(id, std::slice::from_ref(&judged), &RULES, self.now_ms);
        assert_eq!(result.is_ok(), may, "{judged:?}");
        if !may {
            assert_eq!(self.window, before, "it counts whole or not at all");
            return;
        }
        for (n, at) in (first..=last).enumerate() {
            let One(state, count) = &mut self.all[at as usize];
            match verdicts[n.min(verdicts.len() - 1)] {
                Verdict::Gap | Verdict::Reject => *state = State::Archived,
                Verdict::Accept => *state = State::Accepted,
                Verdict::Release => *state = freed(*count, &RULES),
                Verdict::Renew => {
                    *state = State::Acquired { by: Arc::clone(id), until_ms: self.now_ms + RULES.lock_ms };
                }
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.window.start(), self.start);
        let mut at = self.window.start;
        for (first, span) in &self.window.spans {
            assert_eq!(*first, at, "no hole");
            for offset in *first..=span.last {
                assert_eq!(One(span.state.clone(), span.count), self.all[offset as usize], "offset {offset}");
            }
            at = span.last + 1;
        }
        assert_eq!(at, self.window.end);
        assert!(self.all[at as usize..].iter().all(|one| *one == One(State::Available, 0)));
        let until = self.all.iter().filter_map(|one| match one.0 {
            State::Acquired { until_ms, .. } => Some(until_ms),
            _ => None,
        });
        assert_eq!(self.window.deadline_ms(), until.min());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_offset_is_with_one_member_and_done_with_once(steps in prop::collection::vec(step(), 1..120)) {
        let all = vec![One(State::Available, 0); END as usize];
        let mut model = Model { window: Window::new(0), all, start: 0, now_ms: 0 };
        for step in &steps {
            model.run(step);
            model.check();
        }
    }
}

#[test]
fn what_compaction_and_markers_left_out_is_passed_over() {
    let mut window = Window::new(0);
    window.archive(0, 4);
    assert_eq!(window.start(), 5);
    window.archive(7, 8);
    let taken = window.acquire(&member(1), &[(5, 6), (9, 9)], (100, false), &RULES, 0);
    assert_eq!(taken, [Acquired { first: 5, last: 6, count: 1 }, Acquired { first: 9, last: 9, count: 1 }]);
    let accepts = |first, last| Judged { first, last, verdicts: vec![Verdict::Accept] };
    window.judge("m1", &[accepts(5, 6), accepts(9, 9)], &RULES, 1).expect("it has them");
    assert_eq!((window.start(), window.next(10, &RULES)), (10, None));
    // What somebody has is not taken from it.
    window.acquire(&member(1), &[(10, 12)], (100, false), &RULES, 0);
    window.archive(10, 20);
    assert_eq!(window.judge("m1", &[accepts(10, 12)], &RULES, 1), Ok(()));
    assert_eq!(window.start(), 21);
    // What lies between is still to be handed out, also where more was passed over than may be under way.
    window.archive(23, 90);
    assert_eq!(window.next(100, &RULES), Some(21));
    let taken = window.acquire(&member(1), &[(21, 22), (91, 99)], (100, false), &RULES, 0);
    assert_eq!(taken, [Acquired { first: 21, last: 22, count: 1 }]);
    assert_eq!(window.next(100, &RULES), None, "until these are done with");
    window.judge("m1", &[accepts(21, 22)], &RULES, 1).expect("it has them");
    assert_eq!((window.start(), window.next(100, &RULES)), (91, Some(91)));
}

#[test]
fn an_acknowledgement_that_makes_no_sense_changes_nothing() {
    let mut window = Window::new(0);
    window.acquire(&member(1), &[(0, 9)], (100, false), &RULES, 0);
    let before = window.clone();
    let judged = |first, last, verdicts: usize| Judged { first, last, verdicts: vec![Verdict::Accept; verdicts] };
    for (wrong, error) in [
        (judged(3, 2, 1), JudgeError::Malformed),
        (judged(0, 9, 0), JudgeError::Malformed),
        (judged(0, 9, 9), JudgeError::Malformed),
        (judged(0, u64::MAX, 2), JudgeError::Malformed),
        (judged(0, 10, 1), JudgeError::NotAcquired),
        (judged(0, u64::MAX, 1), JudgeError::NotAcquired),
    ] {
        assert_eq!(window.judge("m1", &[judged(0, 1, 1), wrong], &RULES, 1), Err(error));
        assert_eq!(window, before);
    }
    assert_eq!(window.judge("m2", &[judged(0, 0, 1)], &RULES, 1), Err(JudgeError::NotAcquired));
}
