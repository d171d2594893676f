//! The ingest address over HTTP: who may send, in which form, and what they are answered.
//!
//! | request | what it takes |
//! | --- | --- |
//! | `POST /v1/traces` | OTLP's `ExportTraceServiceRequest`, `application/x-protobuf` or `application/json`, as it is or as gzip |
//! | `POST /v1/logs` | the same of `ExportLogsServiceRequest` |
//! | `POST /v1/actions` | actions of servers, JSON: see [`actions`](crate::actions) |
//!
//! Answers are OTLP's: 200 with a partial success where something was refused, 400 for what cannot be read, 503 with `Retry-After` where
//! it should be sent again; the words are a `google.rpc.Status` in the form of the request. A body is read once it is known whose it is.

use axum::{
    Extension, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use cairn_identity::{Identity, Presented, Reason, Rejection};
use http::{HeaderMap, HeaderValue, StatusCode, header, request};
use serde_json::json;

use crate::{
    Ingest, Peer, RESOURCE, actions,
    body::Packing,
    conventions::{self, Report},
    fault::Fault,
    otlp::{self, Excess, LogRecord, Source, wire},
};

/// Words of a refusal that a partial success tells.
const REASONS_MAX: usize = 4;
/// Spans of which log records in one request are gathered.
const GATHERED_MAX: usize = 1_024;

/// What a request of OTLP holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Traces,
    Logs,
}

/// How a request of OTLP is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Protobuf,
    Json,
}

impl Format {
    const fn media(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn of(head: &HeaderMap) -> Result<Self, Fault> {
        let media = head.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(Fault::Media("send application/x-protobuf or application/json".to_owned())),
        }
    }
}

/// What became of a request of OTLP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken {
    /// Items that were refused, for which reasons.
    pub(crate) refused: u64,
    pub(crate) words: String,
}

impl Taken {
    /// The response of that name in OTLP, which are the same for traces and logs but for a member's name.
    pub(crate) fn answer(&self, signal: Signal, format: Format) -> Vec<u8> {
        if self.refused == 0 {
            return if format == Format::Json { b"{}".to_vec() } else { Vec::new() };
        }
        match format {
            Format::Json => {
                let name = if signal == Signal::Traces { "rejectedSpans" } else { "rejectedLogRecords" };
                let partial = json!({ name: self.refused.to_string(), "errorMessage": self.words });
                json!({ "partialSuccess": partial }).to_string().into_bytes()
            }
            Format::Protobuf => {
                let (mut partial, mut whole) = (Vec::new(), Vec::new());
                wire::put_number(&mut partial, 1, self.refused);
                wire::put_bytes(&mut partial, 2, self.words.as_bytes());
                wire::put_bytes(&mut whole, 1, &partial);
                whole
            }
        }
    }
}

/// The routes. Every request needs a [`Peer`] among its extensions.
pub fn router(ingest: Ingest) -> Router {
    let routes = Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/logs", post(logs))
        .route("/v1/actions", post(report));
    #[cfg(feature = "grpc")]
    let routes = routes.merge(crate::grpc::routes());
    routes.fallback(nowhere).method_not_allowed_fallback(other_method).with_state(ingest)
}

async fn nowhere() -> Response {
    let words = "no such path: /v1/traces, /v1/logs and /v1/actions are served here";
    (StatusCode::NOT_FOUND, axum::Json(json!({ "error": words }))).into_response()
}

async fn other_method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(json!({ "error": "use POST" }))).into_response()
}

async fn traces(State(ingest): State<Ingest>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    export(&ingest, &peer, request, Signal::Traces).await
}

async fn logs(State(ingest): State<Ingest>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    export(&ingest, &peer, request, Signal::Logs).await
}

async fn export(ingest: &Ingest, peer: &Peer, request: Request, signal: Signal) -> Response {
    let (head, body) = request.into_parts();
    let format = Format::of(&head.headers);
    let shown = *format.as_ref().unwrap_or(&Format::Json);
    let taken = async {
        ingest.named(&head)?;
        let format = format?;
        let packing = head.headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
        let packing = Packing::named(packing)?;
        let who = ingest.admit(peer, &head).await?;
        let limit = ingest.bounds().body_bytes_max;
        let (body, room) = ingest.read(body, limit).await?;
        let taken = ingest.take(who, body, packing, (signal, format)).await;
        drop(room);
        taken
    };
    match taken.await {
        Ok(taken) => {
            let media = HeaderValue::from_static(shown.media());
            ([(header::CONTENT_TYPE, media)], taken.answer(signal, shown)).into_response()
        }
        Err(fault) => refused(ingest, &fault, shown),
    }
}

/// A refusal: a `google.rpc.Status` in the form of the request.
fn refused(ingest: &Ingest, fault: &Fault, format: Format) -> Response {
    let body = match format {
        Format::Json => json!({ "code": fault.code(), "message": fault.says() }).to_string().into_bytes(),
        Format::Protobuf => {
            let mut status = Vec::new();
            wire::put_number(&mut status, 1, u64::from(fault.code()));
            wire::put_bytes(&mut status, 2, fault.says().as_bytes());
            status
        }
    };
    answered(ingest, fault, format.media(), body)
}

fn answered(ingest: &Ingest, fault: &Fault, media: &'static str, body: Vec<u8>) -> Response {
    ingest.parts().metrics.refused(fault.word());
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, HeaderValue::from_static(media))], body).into_response();
    if let Some(seconds) = fault.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(u16::from(seconds)));
    }
    if let Fault::NotLetIn(rejection) = fault {
        let challenges = ingest.parts().verifier.challenges(rejection, RESOURCE, &ingest.parts().scopes);
        for challenge in challenges.into_iter().filter_map(|challenge| HeaderValue::try_from(challenge).ok()) {
            response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
    }
    response
}

async fn report(State(ingest): State<Ingest>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let taken = async {
        ingest.named(&head)?;
        if Format::of(&head.headers).ok() != Some(Format::Json) {
            return Err(Fault::Media("send application/json".to_owned()));
        }
        let who = match ingest.identify(&peer, &head).await {
            Ok(who) => Some(who),
            // A handle is a credential for its call. It is enough for a server on this machine, and not for one elsewhere.
            Err(rejection) if rejection.reason == Reason::NoCredentials && is_here(&peer) => None,
            Err(rejection) => return Err(ingest.not_let_in(&peer, rejection)),
        };
        let (body, _room) = ingest.read(body, actions::BODY_BYTES_MAX).await?;
        ingest.take_actions(who.as_ref(), &body).await
    };
    match taken.await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(fault) => {
            let body = json!({ "error": fault.says() }).to_string().into_bytes();
            answered(&ingest, &fault, Format::Json.media(), body)
        }
    }
}

fn is_here(peer: &Peer) -> bool {
    peer.ip.to_canonical().is_loopback()
}

impl Ingest {
    /// Whether a request may name this address as it does.
    pub(crate) fn named(&self, head: &request::Parts) -> Result<(), Fault> {
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        self.parts().surroundings.named(&head.headers, authority).map_err(Fault::Named)
    }

    async fn identify(&self, peer: &Peer, head: &request::Parts) -> Result<Identity, Rejection> {
        let presented = Presented {
            method: head.method.as_str(),
            headers: &head.headers,
            certificate: peer.certificate.as_ref(),
            peer: peer.ip,
            server: RESOURCE,
        };
        let who = self.parts().verifier.identify(&presented).await?;
        let missing = who.lacks(&self.parts().scopes);
        if missing.is_empty() { Ok(who) } else { Err(Rejection::lacking(missing, &who)) }
    }

    fn not_let_in(&self, peer: &Peer, rejection: Rejection) -> Fault {
        self.parts().surroundings.not_let_in(&rejection, peer.ip);
        Fault::NotLetIn(Box::new(rejection))
    }

    /// Who sends a request.
    pub(crate) async fn admit(&self, peer: &Peer, head: &request::Parts) -> Result<Identity, Fault> {
        self.identify(peer, head).await.map_err(|rejection| self.not_let_in(peer, rejection))
    }

    /// Unpacks, reads and records a request of OTLP.
    pub(crate) async fn take(
        &self,
        who: Identity,
        body: bytes::Bytes,
        packing: Packing,
        form: (Signal, Format),
    ) -> Result<Taken, Fault> {
        self.may_record()?;
        let turn = tokio::time::timeout(self.bounds().read_max, self.0.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Fault::Busy("too many requests are being read: send it again later".to_owned()));
        };
        let ingest = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let body = ingest.unpack(body, packing)?;
            let (reports, taken) = ingest.reports(&body, form)?;
            ingest.write(&who, reports);
            Ok(taken)
        });
        reading.await.unwrap_or_else(|_| Err(Fault::Malformed("the request could not be read".to_owned())))
    }

    /// The model calls that a request tells of.
    fn reports(&self, body: &[u8], (signal, format): (Signal, Format)) -> Result<(Vec<Report>, Taken), Fault> {
        let (mut reports, mut tally) = (Vec::new(), Tally::default());
        let read = match signal {
            Signal::Traces => {
                let mut sink = |source: &Source, span: Result<otlp::Span, Excess>| match span {
                    Ok(span) => match conventions::of_span(source, &span) {
                        Some(report) => reports.push(report),
                        None => tally.passed_by += 1,
                    },
                    Err(excess) => tally.refuse(excess),
                };
                match format {
                    Format::Protobuf => otlp::protobuf::traces(body, &mut sink),
                    Format::Json => otlp::json::traces(body, &mut sink),
                }
            }
            Signal::Logs => {
                let mut gathered: Vec<(Source, Vec<LogRecord>)> = Vec::new();
                let mut sink = |source: &Source, record: Result<LogRecord, Excess>| match record {
                    Ok(record) if conventions::is_of_model_call(&record) => {
                        let same = |(known, records): &(Source, Vec<LogRecord>)| {
                            let first = &records[0];
                            (first.trace_id, first.span_id) == (record.trace_id, record.span_id) && known == source
                        };
                        match gathered.iter().position(same) {
                            Some(place) => gathered[place].1.push(record),
                            None if gathered.len() < GATHERED_MAX => gathered.push((source.clone(), vec![record])),
                            None => tally.refuse(Excess::Items),
                        }
                    }
                    Ok(_) => tally.passed_by += 1,
                    // A record without a span is nothing that anybody refused.
                    Err(Excess::Ids) => tally.passed_by += 1,
                    Err(excess) => tally.refuse(excess),
                };
                let read = match format {
                    Format::Protobuf => otlp::protobuf::logs(body, &mut sink),
                    Format::Json => otlp::json::logs(body, &mut sink),
                };
                reports.extend(gathered.iter().filter_map(|(source, records)| conventions::of_logs(source, records)));
                read
            }
        };
        read.map_err(|malformed| Fault::Malformed(malformed.to_string()))?;
        self.parts().metrics.spans("passed_by", tally.passed_by);
        self.parts().metrics.spans("refused", tally.refused);
        Ok((reports, tally.taken()))
    }
}

/// What became of the items of a request.
#[derive(Default)]
struct Tally {
    passed_by: u64,
    refused: u64,
    why: std::collections::BTreeSet<Excess>,
}

impl Tally {
    fn refuse(&mut self, excess: Excess) {
        self.refused += 1;
        self.why.insert(excess);
    }

    fn taken(&self) -> Taken {
        let words: Vec<String> = self.why.iter().take(REASONS_MAX).map(|excess| excess.says()).collect();
        Taken { refused: self.refused, words: words.join("; ") }
    }
}
