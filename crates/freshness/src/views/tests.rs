//! The views, held to stories of reads, writes and changes, made up ones included.

use proptest::prelude::*;

use super::*;

fn at(second: u64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn order(id: &str) -> Resource {
    Resource { tenant: None, server: "orders".to_owned(), uri: format!("order://{id}") }
}

fn viewer(principal: &str) -> Viewer {
    Viewer { tenant: None, principal: principal.to_owned(), agent: None }
}

fn v(version: &str) -> Version {
    Some(version.to_owned())
}

fn state(views: &Views, who: &str, now: u64) -> State {
    views.standing(&viewer(who), &order("1"), None, at(now)).state
}

#[test]
fn what_nobody_read_is_unknown_and_what_was_read_is_fresh() {
    let views = Views::default();
    assert_eq!(state(&views, "ada", 1), State::Unknown);
    assert!(!views.read(&viewer("ada"), &order("1"), v("a"), at(1)));
    assert_eq!(state(&views, "ada", 2), State::Fresh);
    assert_eq!(state(&views, "bob", 2), State::Unknown);
    let of_a_tenant = Viewer { tenant: Some("t".to_owned()), ..viewer("ada") };
    let standing = views.standing(&of_a_tenant, &order("1"), None, at(2));
    assert_eq!(standing.state, State::Unknown);
    let agent = Viewer { agent: Some("other".to_owned()), ..viewer("ada") };
    assert_eq!(views.standing(&agent, &order("1"), None, at(2)).state, State::Unknown);
}

#[test]
fn each_kind_of_news_makes_a_view_stale_and_a_read_makes_it_fresh_again() {
    for news in ["notice", "read", "write", "elsewhere"] {
        let views = Views::default();
        let _ = views.read(&viewer("ada"), &order("1"), v("a"), at(1));
        match news {
            "notice" => views.changed(&order("1"), None, at(2), None),
            "read" => assert!(views.read(&viewer("bob"), &order("1"), v("b"), at(2))),
            "write" => views.writing(&viewer("bob"), vec![order("1")], "c").done(&HashMap::new(), at(2)),
            _ => views.changed_elsewhere(&order("1"), v("b"), at(2)),
        }
        assert_eq!(state(&views, "ada", 3), State::Stale, "{news}");
        let _ = views.read(&viewer("ada"), &order("1"), v("b"), at(4));
        assert_eq!(state(&views, "ada", 5), State::Fresh, "{news}");
    }
}

#[test]
fn the_refusal_can_name_both_versions() {
    let views = Views::default();
    let _ = views.read(&viewer("ada"), &order("1"), v("a"), at(1));
    let _ = views.read(&viewer("bob"), &order("1"), v("b"), at(3));
    let standing = views.standing(&viewer("ada"), &order("1"), None, at(4));
    let expected = Standing {
        uri: "order://1".to_owned(),
        state: State::Stale,
        seen: v("a"),
        known: v("b"),
        age: Some(Duration::from_secs(3)),
    };
    assert_eq!(standing, expected);
}

#[test]
fn a_read_that_ran_beside_a_write_is_older_than_it_unless_it_shows_what_was_written() {
    for (read, expected) in [("old", State::Stale), ("new", State::Fresh)] {
        let views = Views::default();
        let writing = views.writing(&viewer("bob"), vec![order("1")], "c");
        // Asked for before the write was done, answered after it.
        let asked = at(5);
        writing.done(&HashMap::from([("order://1".to_owned(), "new".to_owned())]), at(6));
        let _ = views.read(&viewer("ada"), &order("1"), v(read), asked);
        assert_eq!(state(&views, "ada", 7), expected, "{read}");
        assert_eq!(state(&views, "bob", 7), State::Fresh, "whoever wrote knows");
    }
}

#[test]
fn a_slow_answer_takes_nothing_back() {
    let views = Views::default();
    let _ = views.read(&viewer("ada"), &order("1"), v("new"), at(6));
    assert!(!views.read(&viewer("bob"), &order("1"), v("old"), at(5)));
    assert!(!views.read(&viewer("ada"), &order("1"), v("old"), at(5)));
    assert_eq!((state(&views, "ada", 7), state(&views, "bob", 7)), (State::Fresh, State::Stale));
}

#[test]
fn while_a_write_runs_it_is_changing_and_one_that_may_have_happened_makes_all_stale() {
    let views = Views::default();
    let _ = views.read(&viewer("ada"), &order("1"), v("a"), at(1));
    let writing = views.writing(&viewer("bob"), vec![order("1")], "c");
    assert_eq!(state(&views, "ada", 2), State::Changing);
    writing.unknown(at(3));
    assert_eq!((state(&views, "ada", 4), state(&views, "bob", 4)), (State::Stale, State::Unknown));
    let _ = views.read(&viewer("ada"), &order("1"), v("a"), at(5));
    assert_eq!(state(&views, "ada", 6), State::Fresh);
    views.writing(&viewer("bob"), vec![order("1")], "d").undone();
    assert_eq!(state(&views, "ada", 7), State::Fresh);
    drop(views.writing(&viewer("bob"), vec![order("1")], "e"));
    assert_eq!(state(&views, "ada", 8), State::Stale);
}

#[test]
fn of_two_writes_side_by_side_nobody_knows_which_came_last() {
    let views = Views::default();
    let one = views.writing(&viewer("ada"), vec![order("1")], "c");
    let two = views.writing(&viewer("bob"), vec![order("1")], "d");
    one.done(&HashMap::from([("order://1".to_owned(), "a".to_owned())]), at(3));
    assert_ne!(state(&views, "ada", 4), State::Fresh);
    two.done(&HashMap::from([("order://1".to_owned(), "b".to_owned())]), at(4));
    assert_ne!(state(&views, "ada", 5), State::Fresh);
    assert_ne!(state(&views, "bob", 5), State::Fresh);
}

#[test]
fn what_the_call_says_it_stands_on_counts_before_what_was_read() {
    let views = Views::default();
    let standing = |declared: &str| views.standing(&viewer("ada"), &order("1"), v(declared), at(9)).state;
    assert_eq!(standing("a"), State::Unknown);
    let _ = views.read(&viewer("ada"), &order("1"), v("b"), at(2));
    assert_eq!((standing("a"), standing("b")), (State::Stale, State::Fresh));
    views.changed(&order("1"), None, at(3), None);
    assert_eq!((standing("a"), standing("b")), (State::Stale, State::Stale));
}

#[test]
fn other_readers_of_what_has_no_version_make_nobody_stale() {
    let views = Views::default();
    let _ = views.read(&viewer("ada"), &order("1"), None, at(1));
    let _ = views.read(&viewer("bob"), &order("1"), None, at(2));
    let _ = views.read(&viewer("carol"), &order("1"), v("x"), at(3));
    assert_eq!((state(&views, "ada", 4), state(&views, "bob", 4)), (State::Fresh, State::Fresh));
    views.changed(&order("1"), None, at(4), None);
    assert_eq!((state(&views, "ada", 5), state(&views, "carol", 5)), (State::Stale, State::Stale));
}

#[test]
fn a_guard_that_is_behind_calls_nothing_fresh_and_still_knows_what_is_stale() {
    let views = Views::default();
    let _ = views.read(&viewer("ada"), &order("1"), v("a"), at(100));
    views.follow();
    assert_eq!(state(&views, "ada", 101), State::Behind);
    views.caught_up(at(101));
    assert_eq!(state(&views, "ada", 102), State::Fresh);
    assert_eq!(state(&views, "ada", 104), State::Behind);
    assert_eq!(state(&views, "bob", 104), State::Unknown);
    views.changed(&order("1"), None, at(104), None);
    assert_eq!(state(&views, "ada", 105), State::Stale);
    views.caught_up(at(50)); // an older look says nothing newer
    assert_eq!(views.lag(at(105)), Some(Duration::from_secs(4)));
}

#[test]
fn what_is_forgotten_is_unknown_and_a_running_write_is_not_forgotten() {
    let views = Views::new(Bounds { resources_max: 3, viewers_max: 2, ..Bounds::default() });
    let writing = views.writing(&viewer("bob"), vec![order("w")], "c");
    for i in 0..10 {
        let _ = views.read(&viewer("ada"), &order(&i.to_string()), v("a"), at(i));
        assert!(views.len() <= 3);
    }
    assert_eq!(views.standing(&viewer("ada"), &order("0"), None, at(20)).state, State::Unknown);
    assert_eq!(views.standing(&viewer("ada"), &order("9"), None, at(20)).state, State::Fresh);
    assert_eq!(views.standing(&viewer("ada"), &order("w"), None, at(20)).state, State::Changing);
    drop(writing);
    for (i, who) in ["a", "b", "c"].into_iter().enumerate() {
        let _ = views.read(&viewer(who), &order("9"), v("a"), at(30 + i as u64));
    }
    assert_eq!(views.standing(&viewer("a"), &order("9"), None, at(40)).state, State::Unknown);
    assert_eq!(views.standing(&viewer("c"), &order("9"), None, at(40)).state, State::Fresh);
}

#[test]
fn what_is_remembered_is_bounded_in_bytes_and_long_versions_are_still_told_apart() {
    let views = Views::default();
    let long = order(&"x".repeat(URI_BYTES_MAX));
    let _ = views.read(&viewer("ada"), &long, v("a"), at(1));
    views.changed(&long, None, at(2), Some(&viewer("ada")));
    drop(views.writing(&viewer("ada"), vec![long.clone()], "c"));
    assert!(views.is_empty());
    assert_eq!(views.standing(&viewer("ada"), &long, None, at(3)).state, State::Unknown);
    let version = |last: &str| v(&("x".repeat(1 << 20) + last));
    let _ = views.read(&viewer("ada"), &order("1"), version("a"), at(1));
    let standing = views.standing(&viewer("ada"), &order("1"), version("a"), at(2));
    assert!(standing.state == State::Fresh && standing.known.is_some_and(|known| known.len() < VERSION_BYTES_MAX));
    assert!(views.read(&viewer("bob"), &order("1"), version("b"), at(3)));
    assert_eq!(state(&views, "ada", 4), State::Stale);
}

/// What really happens at the server: a value that writes change, with reads that take time.
#[derive(Clone, Debug)]
enum Happens {
    Write { who: usize, version: bool },
    Read { who: usize, slow: bool },
    Outside { told: bool },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..3_usize, any::<bool>()).prop_map(|(who, version)| Happens::Write { who, version }),
        (0..3_usize, any::<bool>()).prop_map(|(who, slow)| Happens::Read { who, slow }),
        any::<bool>().prop_map(|told| Happens::Outside { told }),
    ]
}

proptest! {
    /// Nobody is called fresh whose newest knowledge is older than a change that Cairn was told of, or than a version that
    /// somebody read. Against what somebody knows without a version, another version says nothing.
    #[test]
    fn nothing_known_to_be_stale_is_fresh(story in proptest::collection::vec(happens(), 1..40)) {
        let views = Views::default();
        let who = |i: usize| viewer(&i.to_string());
        let (mut now, mut truth, mut told, mut shown) = (1, 0_u32, 0_u32, 0_u32);
        let mut knows = [None::<(u32, bool)>; 3];
        let mut slow: Vec<(usize, u32, Timestamp)> = Vec::new();
        for step in story {
            now += 2;
            match step {
                Happens::Write { who: i, version } => {
                    let writing = views.writing(&who(i), vec![order("1")], "c");
                    truth += 1;
                    told = truth;
                    let versions = if version { HashMap::from([("order://1".to_owned(), truth.to_string())]) } else { HashMap::new() };
                    writing.done(&versions, at(now));
                    knows[i] = Some((truth, version));
                }
                Happens::Read { who: i, slow: false } => {
                    let _ = views.read(&who(i), &order("1"), v(&truth.to_string()), at(now));
                    knows[i] = Some((truth, true));
                    shown = truth;
                }
                Happens::Read { who: i, slow: true } => slow.push((i, truth, at(now))),
                Happens::Outside { told: says } => {
                    truth += 1;
                    if says {
                        told = truth;
                        views.changed(&order("1"), None, at(now), None);
                    }
                }
            }
            // A slow answer comes one step later.
            if slow.len() > 1 || (slow.len() == 1 && now % 3 == 0) {
                let (i, read, asked) = slow.remove(0);
                let _ = views.read(&who(i), &order("1"), v(&read.to_string()), asked);
                knows[i] = knows[i].max(Some((read, true)));
                shown = shown.max(read);
            }
            for (i, known) in knows.iter().enumerate() {
                let state = views.standing(&who(i), &order("1"), None, at(now + 1)).state;
                if state == State::Fresh {
                    let Some((known, versioned)) = *known else { return Err(TestCaseError::fail("it knows nothing")) };
                    prop_assert!(known >= told, "{i} knows {known}, {told} was told");
                    prop_assert!(!versioned || known >= shown, "{i} knows {known}, {shown} was read");
                }
            }
        }
    }
}
