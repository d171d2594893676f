//! The HTTP links against a real server on loopback.
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Frame as BodyFrame, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    Reach, SseLink,
    testing::{all, message},
};

type Body = BoxBody<Bytes, Infallible>;
type Seen = Arc<Mutex<Vec<(Method, HeaderMap, Bytes)>>>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn chunks(parts: mpsc::Receiver<Bytes>) -> Body {
    let parts = futures::stream::unfold(parts, |mut parts| async {
        parts.recv().await.map(|part| (Ok::<_, Infallible>(BodyFrame::data(part)), parts))
    });
    BodyExt::boxed(StreamBody::new(parts))
}

fn reply(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A server that answers each request with what `answer` makes of it.
async fn serve<F>(answer: F) -> (SocketAddr, Seen)
where
    F: Fn(&Method, &HeaderMap, &Bytes) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (answer, log) = (answer.clone(), Arc::clone(&log));
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, log) = (answer.clone(), Arc::clone(&log));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    log.lock().push((head.method.clone(), head.headers.clone(), body.clone()));
                    Ok::<_, Infallible>(answer(&head.method, &head.headers, &body))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, seen)
}

fn target(address: SocketAddr) -> Arc<HttpTarget> {
    let headers = [("Authorization", "Bearer configured")];
    Arc::new(HttpTarget::new(&format!("http://{address}/mcp"), headers).expect("valid"))
}

fn link(address: SocketAddr) -> HttpLink {
    HttpLink::new(HttpClient::new(&Limits::default()), target(address), Limits::default())
}

async fn send(link: &dyn Link, text: &str, headers: &ForwardHeaders) -> Result<Exchange, LinkError> {
    link.forward(link.prepare(&message(text), headers)?).await
}

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

#[tokio::test]
async fn the_body_goes_as_it_is_with_headers_that_mirror_it() {
    let (address, seen) = serve(|_, _, _| {
        reply("application/json; charset=utf-8", full(r#"{"jsonrpc":"2.0","id":1,"result":{"x":1.50}}"#))
    })
    .await;
    let mut given = ForwardHeaders::default();
    given.passed.insert("authorization", HeaderValue::from_static("Bearer of the client"));
    given.passed.insert("traceparent", HeaderValue::from_static("00-t"));
    given.passed.insert("mcp-name", HeaderValue::from_static("lie"));
    let (messages, _) = all(send(&link(address), MODERN, &given).await.expect("sent")).await;
    assert_eq!(messages[0].result_raw().as_deref(), Some(&br#"{"x":1.50}"#[..]));
    let (method, headers, body) = seen.lock()[0].clone();
    assert_eq!((method, &body[..]), (Method::POST, MODERN.as_bytes()));
    for (name, value) in [
        ("mcp-method", "tools/call"),
        ("mcp-name", "a"),
        ("mcp-protocol-version", "2026-07-28"),
        ("traceparent", "00-t"),
        ("authorization", "Bearer configured"),
        ("accept", "application/json, text/event-stream"),
    ] {
        assert_eq!(headers[name], value);
    }
}

#[tokio::test]
async fn frames_pass_before_the_answer_is_there_and_the_stream_ends_after_it() {
    let (sender, parts) = mpsc::channel(8);
    let parts = Arc::new(Mutex::new(Some(parts)));
    let (address, _) =
        serve(move |_, _, _| reply("text/event-stream", chunks(parts.lock().take().expect("one call")))).await;
    let exchange = {
        sender
            .send(Bytes::from_static(
                b": hi\n\nid: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\nda",
            ))
            .await
            .expect("room");
        send(&link(address), MODERN, &ForwardHeaders::default()).await.expect("sent")
    };
    let Content::Stream(mut frames) = exchange.content else { panic!("a stream") };
    let first = frames.recv().await.expect("at once").expect("no error");
    assert_eq!(first.event_id.as_deref(), Some("5"));
    sender.send(Bytes::from_static(b"ta: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n")).await.expect("room");
    let last = frames.recv().await.expect("the answer").expect("no error");
    assert_eq!(last.message.expect("a message").kind(), Kind::Response);
    assert!(frames.recv().await.is_none(), "though the server holds its stream open");
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_is_lost() {
    let (address, _) = serve(|_, _, _| reply("text/event-stream", full("id: 1\nretry: 10\ndata:\n\n"))).await;
    let exchange = send(&link(address), MODERN, &ForwardHeaders::default()).await.expect("sent");
    let Content::Stream(mut frames) = exchange.content else { panic!("a stream") };
    let resume = frames.recv().await.expect("a frame").expect("no error");
    assert_eq!((resume.event_id.as_deref(), resume.retry_ms, resume.message.is_none()), (Some("1"), Some(10), true));
    let error = frames.recv().await.expect("an error").expect_err("no answer came");
    assert!(matches!(error, LinkError::Lost { cause: LinkFault::StreamEnded, .. }));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (sender, parts) = mpsc::channel(1);
    let parts = Arc::new(Mutex::new(Some(parts)));
    let (address, _) =
        serve(move |_, _, _| reply("text/event-stream", chunks(parts.lock().take().expect("one call")))).await;
    let exchange = send(&link(address), MODERN, &ForwardHeaders::default()).await.expect("sent");
    drop(exchange);
    sender.closed().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_before_its_answer_begins_is_cancelled_in_the_legacy_era() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let (address, seen) = serve(move |method, _, body| {
        let (hold, parts) = mpsc::channel(1);
        if *method == Method::GET {
            hold.try_send(Bytes::from_static(b"event: endpoint\ndata: /messages?s=1\n\n")).expect("room");
            held.lock().push(hold);
            return reply("text/event-stream", chunks(parts));
        }
        if body.windows(4).any(|word| word == b"slow" || word == b"init") {
            held.lock().push(hold); // the answer never comes
        }
        reply("application/json", chunks(parts))
    })
    .await;
    let client = HttpClient::new(&Limits::default());
    let old = SseLink::connect(client, target(address), Limits::default()).await.expect("an endpoint");
    let new = link(address);
    let has =
        |words: &'static [u8]| seen.lock().iter().any(|(.., body)| body.windows(words.len()).any(|at| at == words));
    let wait_for = async |words: &'static [u8]| {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        while !has(words) {
            assert!(tokio::time::Instant::now() < until, "it never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let calls: [(&dyn Link, &str, &[u8]); 4] = [
        (&new, r#"{"jsonrpc":"2.0","id":3,"method":"initialize"}"#, b"\"id\":3"),
        (&new, r#"{"jsonrpc":"2.0","id":4,"method":"slow"}"#, b"\"id\":4"),
        (&old, r#"{"jsonrpc":"2.0","id":5,"method":"initialize"}"#, b"\"id\":5"),
        (&old, r#"{"jsonrpc":"2.0","id":6,"method":"slow"}"#, b"\"id\":6"),
    ];
    for (link, text, words) in calls {
        let given = ForwardHeaders::default();
        tokio::select! {
            _ = send(link, text, &given) => panic!("it was answered"),
            () = wait_for(words) => {}
        }
    }
    wait_for(b"\"requestId\":4}").await;
    wait_for(b"\"requestId\":6}").await;
    assert!(!has(b"\"requestId\":3}") && !has(b"\"requestId\":5}"), "no client may cancel that");
}

#[tokio::test]
async fn a_session_is_remembered_listened_to_and_ended() {
    let (address, seen) = serve(|method, _, body| {
        let mut response = match *method {
            Method::GET => reply("text/event-stream", full("id: 9\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n")),
            _ if body.is_empty() => Response::new(full("")),
            _ => reply("application/json", full(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)),
        };
        response.headers_mut().insert(SESSION, HeaderValue::from_static("s-1"));
        response
    })
    .await;
    let link = link(address);
    let begun = send(&link, r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#, &ForwardHeaders::default()).await;
    assert_eq!(begun.expect("sent").session_id.as_deref(), Some("s-1"));
    let given = ForwardHeaders {
        protocol_version: Some("2025-06-18".to_owned()),
        last_event_id: Some("8".to_owned()),
        ..ForwardHeaders::default()
    };
    let (messages, error) = all(link.listen(&given).await.expect("sent")).await;
    assert_eq!((messages.len(), error.is_none()), (1, true));
    link.close().await;
    let seen = seen.lock();
    let (_, listened, _) = &seen[1];
    assert_eq!(
        (&listened[SESSION], &listened[LAST_EVENT]),
        (&HeaderValue::from_static("s-1"), &HeaderValue::from_static("8"))
    );
    assert_eq!(listened[headers::PROTOCOL_VERSION], "2025-06-18");
    assert_eq!((seen[2].0.clone(), &seen[2].1[SESSION]), (Method::DELETE, &HeaderValue::from_static("s-1")));
}

#[tokio::test]
async fn statuses_and_bodies_that_are_no_messages_are_passed_on() {
    let (address, _) = serve(|_, _, _| {
        let mut response = reply("text/plain", full("who are you"));
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response
    })
    .await;
    let exchange = send(&link(address), MODERN, &ForwardHeaders::default()).await.expect("sent");
    assert_eq!(exchange.status, 401);
    assert!(matches!(exchange.content, Content::Other { body, .. } if &body[..] == b"who are you"));
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_lost() {
    let (address, _) = serve(|_, _, _| reply("application/json", full(vec![b' '; 5_000]))).await;
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let link = HttpLink::new(HttpClient::new(&limits), target(address), limits);
    let error = send(&link, MODERN, &ForwardHeaders::default()).await.expect_err("too long");
    assert!(matches!(error, LinkError::Lost { cause: LinkFault::TooLong { limit: 1_000 }, .. }));
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let limits = Limits { connect_wait_max: std::time::Duration::from_millis(100), ..Limits::default() };
    let link = HttpLink::new(HttpClient::new(&limits), target(address), limits);
    let error = send(&link, MODERN, &ForwardHeaders::default()).await.expect_err("refused");
    assert!(matches!(error, LinkError::NotSent { cause: LinkFault::Refused { waited_ms: 20.., .. }, .. }), "{error}");
}

/// The server answers the first request, takes the second on the same connection, and hangs up.
#[tokio::test]
async fn a_request_on_a_connection_that_breaks_is_lost_and_not_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = socket.read(&mut buffer).await;
            let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
            let text = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(text.as_bytes()).await;
            let _ = socket.read(&mut buffer).await;
        }
    });
    let link = link(address);
    send(&link, MODERN, &ForwardHeaders::default()).await.expect("answered");
    let error = send(&link, MODERN, &ForwardHeaders::default()).await.expect_err("hung up");
    assert_eq!(error.reach(), Reach::Lost);
    assert_eq!(connections.load(Ordering::SeqCst), 1, "the second request was not tried on another connection");
}

#[tokio::test]
async fn a_server_of_2024_is_spoken_to_over_its_stream() {
    let (sender, parts) = mpsc::channel(8);
    let parts = Arc::new(Mutex::new(Some(parts)));
    let stream = sender.clone();
    let (address, seen) = serve(move |method, _, body| {
        if *method == Method::GET {
            stream.try_send(Bytes::from_static(b"event: endpoint\ndata: /messages?s=1\n\n")).expect("room");
            return reply("text/event-stream", chunks(parts.lock().take().expect("one stream")));
        }
        let asked = Message::parse(body.clone(), &Limits::default()).expect("a message");
        let answer = Message::result(asked.id().expect("an id"), b"{}").expect("valid");
        let event = crate::sse::Event::message(answer.bytes().clone()).encode();
        stream.try_send(event).expect("room");
        let mut response = reply("text/plain", full("Accepted"));
        *response.status_mut() = http::StatusCode::ACCEPTED;
        response
    })
    .await;
    let client = HttpClient::new(&Limits::default());
    let link = SseLink::connect(client, target(address), Limits::default()).await.expect("an endpoint");
    let exchange = send(&link, r#"{"jsonrpc":"2.0","id":"a","method":"initialize"}"#, &ForwardHeaders::default()).await;
    let (messages, error) = all(exchange.expect("sent")).await;
    assert_eq!((messages[0].id(), error.is_none()), (Some(&RawId::text("a")), true));
    assert_eq!(seen.lock()[1].1["authorization"], "Bearer configured");
    link.close().await;
    let later = send(&link, r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#, &ForwardHeaders::default()).await;
    assert_eq!(later.expect_err("closed").reach(), Reach::NotSent);
}
