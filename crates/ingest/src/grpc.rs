//! OTLP over gRPC: one message in, one message out, over HTTP/2.
//!
//! `opentelemetry.proto.collector.trace.v1.TraceService/Export` and its sibling for logs. Both are unary and their messages are read by
//! [`otlp`](crate::otlp), so that what is left of gRPC is a frame of five bytes and two trailers. Source: gRPC over HTTP/2, PROTOCOL-HTTP2.md.

use std::convert::Infallible;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    Ingest, Peer,
    body::Packing,
    door::{Format, Signal, Taken},
    fault::Fault,
};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// What stands before a message: whether it is packed, and its length.
const PREFIX_BYTES: usize = 5;
/// What does not stand in `grpc-message` as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

pub(crate) fn routes() -> Router<Ingest> {
    Router::new().route(TRACES, post(traces)).route(LOGS, post(logs))
}

async fn traces(State(ingest): State<Ingest>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    export(&ingest, &peer, request, Signal::Traces).await
}

async fn logs(State(ingest): State<Ingest>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    export(&ingest, &peer, request, Signal::Logs).await
}

async fn export(ingest: &Ingest, peer: &Peer, request: Request, signal: Signal) -> Response {
    match taken(ingest, peer, request, signal).await {
        Ok(taken) => answer(&taken.answer(signal, Format::Protobuf)),
        Err(fault) => {
            ingest.parts().metrics.refused(fault.word());
            refused(&fault)
        }
    }
}

async fn taken(ingest: &Ingest, peer: &Peer, request: Request, signal: Signal) -> Result<Taken, Fault> {
    let (head, body) = request.into_parts();
    ingest.named(&head)?;
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !matches!(media.split(';').next().unwrap_or_default().trim(), "application/grpc" | "application/grpc+proto") {
        return Err(Fault::Media("send application/grpc".to_owned()));
    }
    let who = ingest.admit(peer, &head).await?;
    let (frame, room) = ingest.read(body, ingest.bounds().body_bytes_max + PREFIX_BYTES).await?;
    let named = head.headers.get("grpc-encoding").map(|value| value.to_str().unwrap_or("?"));
    let (message, packing) = message(&frame, named)?;
    let taken = ingest.take(who, message, packing, (signal, Format::Protobuf)).await;
    drop(room);
    taken
}

/// The one message of a unary request.
fn message(frame: &Bytes, named: Option<&str>) -> Result<(Bytes, Packing), Fault> {
    let bad = |words: &str| Fault::Malformed(words.to_owned());
    let prefix: [u8; PREFIX_BYTES] = frame
        .get(..PREFIX_BYTES)
        .and_then(|prefix| prefix.try_into().ok())
        .ok_or_else(|| bad("there is no message"))?;
    let [flag, length @ ..] = prefix;
    if usize::try_from(u32::from_be_bytes(length)) != Ok(frame.len() - PREFIX_BYTES) {
        return Err(bad("the request is not one message of the length that it says"));
    }
    let packing = match flag {
        0 => Packing::None,
        1 => Packing::named(named).map_err(|_| bad("messages are sent as they are or as gzip"))?,
        _ => return Err(bad("the message's flag is neither 0 nor 1")),
    };
    Ok((frame.slice(PREFIX_BYTES..), packing))
}

/// One message and the status OK.
fn answer(message: &[u8]) -> Response {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from(frame))), Ok(Frame::trailers(trailers))];
    with_body(Body::new(StreamBody::new(stream::iter(frames))))
}

/// Another status, which needs no message: it stands in the head.
fn refused(fault: &Fault) -> Response {
    let mut response = with_body(Body::empty());
    let says = utf8_percent_encode(fault.says(), ESCAPED).to_string();
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(u16::from(fault.code())));
    if let Ok(says) = HeaderValue::try_from(says) {
        headers.insert("grpc-message", says);
    }
    response
}

fn with_body(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_message_of_its_length() {
        let frame = |flag: u8, length: u32, rest: &[u8]| {
            let mut frame = vec![flag];
            frame.extend(length.to_be_bytes());
            frame.extend(rest);
            Bytes::from(frame)
        };
        let (read, packing) = message(&frame(0, 2, b"ab"), None).expect("a message");
        assert_eq!((&read[..], packing), (&b"ab"[..], Packing::None));
        assert_eq!(message(&frame(1, 2, b"ab"), Some("gzip")).expect("a message").1, Packing::Gzip);
        for bad in [Bytes::new(), frame(0, 3, b"ab"), frame(0, 1, b"ab"), frame(2, 2, b"ab"), frame(0, u32::MAX, b"ab")]
        {
            assert!(message(&bad, None).is_err());
        }
        assert!(message(&frame(1, 2, b"ab"), Some("snappy")).is_err());
    }

    #[test]
    fn a_refusal_is_told_in_the_head() {
        let response = refused(&Fault::Busy("later, 100%\u{e9}".to_owned()));
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "later, 100%25%C3%A9");
    }
}
