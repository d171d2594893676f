//! Tests with real children.
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    ForwardHeaders, Reach,
    testing::{all, message, server},
};

fn options(role: &str) -> SupervisorOptions {
    let mut options = SupervisorOptions::new(server(role), Limits::default(), true);
    options.pause_min = Duration::from_millis(1);
    options
}

async fn call(link: &StdioLink, method: &str) -> Option<LinkError> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let prepared = link.prepare(&message(&text), &ForwardHeaders::default()).expect("prepared");
    all(link.forward(prepared).await.expect("sent")).await.1
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_calls_wait_for_it() {
    let supervisor = Supervisor::start(options("echo"), Entropy::seeded(1), None);
    let first = supervisor.link().await.expect("it starts");
    assert_eq!(call(&first, "die").await.expect("it died").reach(), Reach::Lost);
    let second = supervisor.link().await.expect("it starts again");
    assert_ne!(first.pid(), second.pid());
    assert!(call(&second, "echo").await.is_none());
    assert!(matches!(supervisor.state(), ServerState::Ready { starts: 2, .. }));
    supervisor.close().await;
    assert!(matches!(supervisor.link().await.expect_err("closed").cause(), LinkFault::Closed));
}

#[tokio::test]
async fn a_call_waits_until_the_server_was_greeted() {
    let greeted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&greeted);
    let greeter: Greeter = Arc::new(move |link| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            assert!(call(&link, "echo").await.is_none());
            // The first greeting fails, so the server is started a second time.
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Err(LinkError::not_sent(LinkFault::Closed)),
                _ => Ok(()),
            }
        })
    });
    let supervisor = Supervisor::start(options("echo"), Entropy::seeded(2), Some(greeter));
    let calls = [supervisor.link(), supervisor.link(), supervisor.link()];
    let links = futures::future::join_all(calls).await;
    let pids: Vec<u32> = links.into_iter().map(|link| link.expect("it starts").pid()).collect();
    assert_eq!(pids[0], pids[1]);
    assert_eq!(greeted.load(Ordering::SeqCst), 2);
    supervisor.close().await;
}

#[tokio::test]
async fn waiting_is_bounded_and_says_why_the_server_does_not_start() {
    let mut options = options("failing");
    options.start_wait_max = Duration::from_millis(300);
    options.waiting_calls_max = 1;
    let greeter: Greeter = Arc::new(|link| Box::pin(async move { Err(link.wait().await) }));
    let supervisor = Supervisor::start(options, Entropy::seeded(3), Some(greeter));
    let mut state = supervisor.watch();
    state.wait_for(|state| matches!(state, ServerState::Starting { last: Some(_), .. })).await.expect("it failed");
    let (first, second) = tokio::join!(supervisor.link(), supervisor.link());
    let refused = [first.expect_err("never ready"), second.expect_err("never ready")];
    assert!(refused.iter().any(|error| matches!(error.cause(), LinkFault::TooManyCalls { limit: 1 })));
    let late = refused.iter().find(|error| matches!(error.cause(), LinkFault::NotReady { .. })).expect("one waited");
    assert!(late.to_string().contains("cannot find the database"), "{late}");
    assert_eq!(late.reach(), Reach::NotSent);
    supervisor.close().await;
}

#[test]
fn pauses_double_up_to_the_longest_and_differ_by_chance() {
    let mut options = options("echo");
    options.pause_min = Duration::from_millis(100);
    options.pause_max = Duration::from_secs(1);
    for (failures, longest) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (40, 1000), (u32::MAX, 1000)] {
        let (least, most) = (pause(&options, failures, 0), pause(&options, failures, 1_000_000_007));
        assert_eq!(least.as_millis(), longest / 2);
        assert!(most > least && most.as_millis() <= longest);
    }
}
