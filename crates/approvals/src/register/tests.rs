//! Approvals are asked for once, voted on by different people, and claimed once, whatever is tried.

use std::fs;

use super::*;
use crate::Need;

const KEY: [u8; 32] = [3; 32];
const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const LATER: Timestamp = Timestamp::from_micros(9_000_000);

fn request(id: &str) -> Request {
    Request {
        id: id.to_owned(),
        tenant: None,
        principal: "ada".to_owned(),
        agent: Some("agent-7".to_owned()),
        verified: true,
        server: "orders".to_owned(),
        method: "tools/call".to_owned(),
        target: "refund_order".to_owned(),
        arguments: r#"{"card":"4111-canary"}"#.to_owned(),
        workflow_id: "w".to_owned(),
        call_id: "c".to_owned(),
        policy_version: "v".to_owned(),
        tool_digest: None,
        binding: format!("binding of {id}"),
        needs: vec![Need { policy: "p".to_owned(), approvers: Vec::new(), quorum: 1 }],
        requested_at: NOW,
        expires_at: LATER,
        outlives: true,
        about: serde_json::Value::Null,
    }
}

fn yes(who: &str) -> Vote {
    Vote { approver: who.to_owned(), identity: who.to_owned(), at: NOW, reason: None, event: None }
}

fn asked(approvals: &Approvals, request: Request) -> Approval {
    match approvals.ask(request, NOW).expect("room") {
        Asked::New(approval) => approval,
        Asked::Before(_) => panic!("it is new"),
    }
}

#[test]
fn it_is_asked_for_once_and_claimed_once() {
    let approvals = Approvals::default();
    asked(&approvals, request("ap-1"));
    let again = Request { binding: "binding of ap-1".to_owned(), ..request("ap-2") };
    assert!(matches!(approvals.ask(again, NOW), Ok(Asked::Before(before)) if before.request.id == "ap-1"));
    assert!(approvals.claim("binding of ap-1", NOW).expect("kept").is_none(), "nobody has said yes");
    assert_eq!(approvals.status("ap-1"), Status::Waiting);
    approvals.count("ap-1", yes("grace")).expect("counts");
    assert_eq!(approvals.status("ap-1"), Status::Approved);
    assert!(approvals.claim("binding of ap-9", NOW).expect("kept").is_none(), "another call");
    assert!(approvals.claim("binding of ap-1", LATER).expect("kept").is_none(), "too late");
    assert!(matches!(approvals.count("ap-1", yes("ben")), Err(VoteError::Unknown { .. })), "it is settled");
    let claimed = approvals.claim("binding of ap-1", NOW).expect("kept").expect("approved");
    assert_eq!(claimed.votes[0].approver, "grace");
    assert!(approvals.claim("binding of ap-1", NOW).expect("kept").is_none(), "it counts once");
    assert_eq!(approvals.status("ap-1"), Status::Ended(Ended::Claimed));
    assert!(matches!(approvals.count("ap-1", yes("grace")), Err(VoteError::Unknown { .. })));
}

#[test]
fn nobody_approves_their_own_call_under_any_name() {
    let approvals = Approvals::default();
    asked(&approvals, request("ap-1"));
    for who in ["ada", "ADA", "agent-7"] {
        assert!(matches!(approvals.count("ap-1", yes(who)), Err(VoteError::OwnCall { .. })), "{who}");
    }
    let under_another = Vote { approver: "grace".to_owned(), ..yes("ada") };
    assert!(matches!(approvals.count("ap-1", under_another), Err(VoteError::OwnCall { .. })));
    let claims_to_be = Vote { approver: "ada".to_owned(), ..yes("operator") };
    assert!(matches!(approvals.count("ap-1", claims_to_be), Err(VoteError::OwnCall { .. })));
    asked(&approvals, Request { principal: "key/grace".to_owned(), ..request("ap-3") });
    assert!(matches!(approvals.count("ap-3", yes("grace")), Err(VoteError::OwnCall { .. })));
    let local = Request { verified: false, ..request("ap-2") };
    asked(&approvals, local);
    approvals.count("ap-2", yes("ada")).expect("a name that nobody verified is nobody's");
}

#[test]
fn a_quorum_is_of_different_people_and_each_policy_has_its_own() {
    let approvals = Approvals::default();
    let needs = vec![
        Need {
            policy: "a".to_owned(),
            approvers: vec!["ann".to_owned(), "ben".to_owned(), "cy".to_owned()],
            quorum: 2,
        },
        Need { policy: "b".to_owned(), approvers: vec!["dan".to_owned()], quorum: 1 },
    ];
    asked(&approvals, Request { needs, ..request("ap-1") });
    let error = approvals.count("ap-1", yes("eve")).expect_err("nobody asked her").to_string();
    assert!(error.contains("ann, ben, cy, dan"), "{error}");
    approvals.count("ap-1", yes("ann")).expect("counts");
    let twice = Vote { approver: "ben".to_owned(), ..yes("ann") };
    assert!(matches!(approvals.count("ap-1", twice), Err(VoteError::Again { given: 1, wanted: 2, .. })));
    approvals.count("ap-1", yes("dan")).expect("counts");
    assert_eq!(approvals.status("ap-1"), Status::Waiting, "two of the first policy's it is not");
    assert!(approvals.claim("binding of ap-1", NOW).expect("kept").is_none());
    approvals.count("ap-1", yes("cy")).expect("counts");
    assert_eq!(approvals.status("ap-1"), Status::Approved);
}

#[test]
fn a_restart_loses_nothing_and_lets_nothing_count_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("approvals");
    let open = || Approvals::open(&path, &KEY, Entropy::system()).expect("readable");
    let approvals = open();
    let quorum = |quorum| vec![Need { policy: "p".to_owned(), approvers: Vec::new(), quorum }];
    asked(&approvals, Request { needs: quorum(2), ..request("ap-1") });
    asked(&approvals, request("ap-2"));
    asked(&approvals, request("ap-3"));
    approvals.count("ap-1", yes("ann")).expect("counts");
    approvals.count("ap-2", yes("ann")).expect("counts");
    approvals.end("ap-3", Ended::Withdrawn).expect("kept").expect("it waited");
    let approvals = open();
    assert!(matches!(approvals.count("ap-1", yes("ann")), Err(VoteError::Again { .. })), "votes are kept");
    assert_eq!(approvals.get("ap-1").expect("waits").request.arguments, request("ap-1").arguments);
    assert_eq!(approvals.status("ap-3"), Status::Unknown);
    approvals.claim("binding of ap-2", NOW).expect("kept").expect("approved before");
    let approvals = open();
    assert!(approvals.claim("binding of ap-2", NOW).expect("kept").is_none(), "it counted before the restart");
    assert_eq!(approvals.len(), 1);
    // Nothing of it can be read on disk, moved to another id, or opened with another key.
    let file = path.join("ap-1");
    let bytes = fs::read(&file).expect("there");
    assert!(!bytes.windows(6).any(|part| part == b"canary"));
    fs::rename(&file, path.join("ap-9")).expect("moved");
    assert_eq!(open().len(), 0);
    assert!(path.join("ap-9.damaged").exists());
    fs::write(&file, &bytes).expect("written");
    assert_eq!(Approvals::open(&path, &[4; 32], Entropy::system()).expect("readable").len(), 0);
}

#[test]
fn what_waits_is_bounded_and_ends_in_time() {
    let approvals = Approvals::default();
    for i in 0..APPROVALS_OF_ONE_MAX {
        asked(&approvals, request(&format!("ap-{i}")));
    }
    assert!(matches!(
        approvals.ask(request("ap-more"), NOW),
        Err(Full::TooMany { setting: "approvals_of_one_max", .. })
    ));
    for i in APPROVALS_OF_ONE_MAX..APPROVALS_MAX {
        asked(&approvals, Request { principal: format!("p{}", i / 100), ..request(&format!("ap-{i}")) });
    }
    let other = Request { principal: "zoe".to_owned(), ..request("ap-more") };
    assert!(matches!(approvals.ask(other, NOW), Err(Full::TooMany { setting: "approvals_max", .. })));
    assert_eq!(approvals.expire(NOW).expect("kept").len(), 0);
    assert_eq!(approvals.expire(LATER).expect("kept").len(), APPROVALS_MAX);
    assert_eq!(approvals.status("ap-0"), Status::Ended(Ended::Expired));
    assert!(matches!(approvals.count("ap-0", yes("ann")), Err(VoteError::Unknown { .. })));
    for i in 0..5 * APPROVALS_MAX {
        let id = format!("ap-x{i}");
        asked(&approvals, request(&id));
        approvals.end(&id, Ended::Withdrawn).expect("kept");
    }
    assert_eq!(approvals.status("ap-0"), Status::Unknown, "ends are forgotten in turn");
    assert!(approvals.inner.lock().ended.len() <= ENDED_MAX);
}

#[test]
fn what_waits_is_bounded_in_bytes_over_a_restart_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("approvals");
    let open = || Approvals::open(&path, &KEY, Entropy::system()).expect("readable");
    let large = |id: &str| Request { arguments: "x".repeat(APPROVALS_BYTES_MAX / 4), ..request(id) };
    let full = |asked: Result<Asked, Full>| matches!(asked, Err(Full::TooMany { setting: "approvals_bytes_max", .. }));
    let approvals = open();
    for id in ["ap-1", "ap-2", "ap-3"] {
        asked(&approvals, large(id));
    }
    assert!(full(approvals.ask(large("ap-4"), NOW)));
    let approvals = open();
    assert!(full(approvals.ask(large("ap-4"), NOW)));
    asked(&approvals, request("ap-small"));
    for id in ["ap-1", "ap-2"] {
        approvals.end(id, Ended::Withdrawn).expect("kept");
    }
    asked(&approvals, large("ap-4"));
}
