//! The contract of [`Store`] as a suite. Each backend's tests call [`run`] with two handles on one empty store.
//! A call that fails for its own reasons is sent again as it was, which is what the log does: the contract must hold so.

use bytes::Bytes;

use crate::{
    StoreError,
    store::{Head, HeadVersion, Store},
};

/// How often a call is sent again before the suite gives up on the store.
const TRIES_MAX: usize = 200;

/// Sends a call again until it has an answer.
macro_rules! settled {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(StoreError::Failed { reason }) => {
                    tries += 1;
                    assert!(tries < TRIES_MAX, "the store never answers: {reason}");
                }
                answer => break answer,
            }
        }
    }};
}

/// Runs all of it; panics at the first broken promise.
pub(crate) async fn run(one: &dyn Store, two: &dyn Store) {
    settled!(one.prepare()).expect("a store that can be used is prepared");
    settled!(two.prepare()).expect("and may be prepared again");
    calls(one, two).await;
}

/// All but the start.
pub(crate) async fn calls(one: &dyn Store, two: &dyn Store) {
    objects(one, two).await;
    lists(one, two).await;
    heads(one, two).await;
    races(one, two).await;
}

async fn objects(one: &dyn Store, two: &dyn Store) {
    let name = "data/00000001/0000000000000001";
    let bytes = Bytes::from((0..100_000_u32).map(|n| n as u8).collect::<Vec<_>>());
    let missing = settled!(two.get_all(name));
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "MUST say that there is none: {missing:?}");
    let missing = settled!(two.get(name, 0..1));
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "MUST say that there is none: {missing:?}");
    // A first answer may have been lost: then the second is `Exists`, and the bytes are ours.
    let put = settled!(one.put(name, bytes.clone()));
    assert!(matches!(put, Ok(()) | Err(StoreError::Exists { .. })), "{put:?}");
    let again = settled!(two.put(name, Bytes::from_static(b"other")));
    assert!(matches!(again, Err(StoreError::Exists { .. })), "MUST be create-only: {again:?}");
    assert_eq!(settled!(two.get_all(name)).expect("readable"), bytes, "MUST keep what was put first");
    assert_eq!(settled!(two.get(name, 0..1)).expect("readable"), bytes[..1]);
    assert_eq!(settled!(two.get(name, 70_001..99_999)).expect("readable"), bytes[70_001..99_999]);
    let short = settled!(one.get(name, 99_999..100_001));
    assert!(short.is_err(), "MUST NOT give fewer bytes than asked for: {short:?}");
    settled!(one.put("data/00000001/empty", Bytes::new())).or_else(taken).expect("an empty object is an object");
    assert_eq!(settled!(one.get_all("data/00000001/empty")).expect("readable").len(), 0);
    settled!(two.delete(name)).expect("deleted");
    settled!(two.delete(name)).expect("deleting again is no error");
    let gone = settled!(one.get_all(name));
    assert!(matches!(gone, Err(StoreError::Missing { .. })), "MUST NOT be seen: {gone:?}");
    settled!(one.delete("data/00000001/empty")).expect("deleted");
}

fn taken(error: StoreError) -> Result<(), StoreError> {
    if matches!(error, StoreError::Exists { .. }) { Ok(()) } else { Err(error) }
}

async fn lists(one: &dyn Store, two: &dyn Store) {
    assert_eq!(settled!(one.list("data/")).expect("a list"), [], "MUST list nothing where there is nothing");
    for epoch in [2, 10, 1] {
        for number in 0..3 {
            let name = format!("data/{epoch:08x}/{number:016x}");
            settled!(one.put(&name, Bytes::from(vec![0; number]))).or_else(taken).expect("put");
        }
    }
    settled!(one.put("index/00000001/a", Bytes::from_static(b"x"))).or_else(taken).expect("put");
    let found = settled!(two.list("data/")).expect("a list");
    let names: Vec<_> = found.iter().map(|listed| listed.name.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted, "MUST be in order");
    assert_eq!(names.len(), 9, "MUST list all, and nothing of another folder: {names:?}");
    assert!(found[2].bytes >= 2, "MUST say sizes");
    for listed in found {
        settled!(two.delete(&listed.name)).expect("deleted");
    }
    assert_eq!(settled!(one.list("data/")).expect("a list"), [], "MUST NOT list what was deleted");
}

async fn heads(one: &dyn Store, two: &dyn Store) {
    assert_eq!(settled!(one.head()).expect("readable"), None, "MUST have no head at first");
    let first = settled!(one.replace_head(None, Bytes::from_static(b"first"))).expect("the first head");
    let head = settled!(two.head()).expect("readable").expect("a head");
    assert_eq!(head, Head { version: first.clone(), bytes: Bytes::from_static(b"first") });
    let again = settled!(one.replace_head(None, Bytes::from_static(b"first"))).expect("MUST settle a lost answer");
    assert_eq!(again, first);
    let late = settled!(two.replace_head(None, Bytes::from_static(b"late")));
    assert!(matches!(late, Err(StoreError::HeadChanged)), "MUST NOT replace a head as if there were none: {late:?}");
    let second = settled!(two.replace_head(Some(&first), Bytes::from_static(b"second"))).expect("the second head");
    assert_ne!(second, first);
    let late = settled!(one.replace_head(Some(&first), Bytes::from_static(b"stale")));
    assert!(matches!(late, Err(StoreError::HeadChanged)), "MUST NOT replace another's head: {late:?}");
    let head = settled!(one.head()).expect("readable").expect("a head");
    assert_eq!(head, Head { version: second, bytes: Bytes::from_static(b"second") });
}

/// Two owners take turns without knowing of each other: every head but one loses.
async fn races(one: &dyn Store, two: &dyn Store) {
    for round in 0..20 {
        let was = settled!(one.head()).expect("readable").map(|head| head.version);
        let attempt = |store, who| take(store, was.as_ref(), format!("{who} {round}"));
        let (a, b) = futures::join!(attempt(one, "one"), attempt(two, "two"));
        let won = [&a, &b].into_iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(won, 1, "MUST have one winner: {a:?} {b:?}");
        let head = settled!(two.head()).expect("readable").expect("a head");
        let winner = if a.is_ok() { "one" } else { "two" };
        assert_eq!(head.bytes, format!("{winner} {round}"), "MUST hold the winner's bytes");
    }
}

async fn take(store: &dyn Store, was: Option<&HeadVersion>, bytes: String) -> Result<HeadVersion, StoreError> {
    settled!(store.replace_head(was, Bytes::from(bytes.clone())))
}
