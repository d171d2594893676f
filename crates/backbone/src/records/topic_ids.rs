//! Asks a broker for the ids of its topics, by a connection of its own: librdkafka does not tell them. Called by `records`.
//!
//! TLS and SASL PLAIN are spoken as librdkafka's properties say; with other mechanisms, or where the peer's certificate is
//! not to be checked, nothing is asked. Everything is bounded in time and bytes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_tls::ClientTls;
use kafka_protocol::{
    messages::{
        ApiKey, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use rdkafka::ClientConfig;
use uuid::Uuid;

const ASK_WITHIN: Duration = Duration::from_secs(10);
/// An answer with every topic's id is not larger than this.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The first version of the Metadata request whose answer has topic ids.
const METADATA_VERSION: i16 = 10;
const SASL_VERSION: i16 = 1;

/// How a broker is reached. It may hold a secret, so nothing prints it.
pub(crate) struct Way {
    tls: Option<ClientTls>,
    login: Option<(String, String)>,
}

impl Way {
    /// What the properties say; `None` where that cannot be done here.
    pub(crate) fn of(config: &ClientConfig) -> Option<Self> {
        let value = |name: &str| config.get(name).unwrap_or_default();
        let protocol = value("security.protocol").to_ascii_lowercase();
        let (tls, login) = match protocol.as_str() {
            "" | "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => return None,
        };
        let lax = value("enable.ssl.certificate.verification") == "false"
            || value("ssl.endpoint.identification.algorithm") == "none";
        let mechanism = format!("{}{}", value("sasl.mechanisms"), value("sasl.mechanism"));
        if tls && lax || login && !mechanism.eq_ignore_ascii_case("PLAIN") {
            return None;
        }
        let path = |name: &str| Some(value(name)).filter(|path| !path.is_empty()).map(Into::into);
        let tls = tls.then(|| ClientTls {
            authorities: path("ssl.ca.location"),
            own: path("ssl.certificate.location").zip(path("ssl.key.location")),
        });
        let login = login.then(|| (value("sasl.username").to_owned(), value("sasl.password").to_owned()));
        Some(Self { tls, login })
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Asks each address until one answers; empty where nobody does, or where it cannot be done.
pub(crate) fn ask_any(bootstrap: &str, way: Option<&Way>) -> BTreeMap<String, Uuid> {
    let Some(way) = way else { return BTreeMap::new() };
    bootstrap.split(',').find_map(|address| ask(address.trim(), way)).unwrap_or_default()
}

fn ask(address: &str, way: &Way) -> Option<BTreeMap<String, Uuid>> {
    let mut stream = connect(address, way)?;
    if let Some((user, secret)) = &way.login {
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        let mut answer = exchange(&mut stream, ApiKey::SaslHandshake, SASL_VERSION, &request)?;
        let told = SaslHandshakeResponse::decode(&mut answer, SASL_VERSION).ok()?;
        let token = Bytes::from(format!("\0{user}\0{secret}"));
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token);
        let mut answer = exchange(&mut stream, ApiKey::SaslAuthenticate, SASL_VERSION, &request)?;
        let let_in = SaslAuthenticateResponse::decode(&mut answer, SASL_VERSION).ok()?;
        if told.error_code != 0 || let_in.error_code != 0 {
            return None;
        }
    }
    let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
    let mut answer = exchange(&mut stream, ApiKey::Metadata, METADATA_VERSION, &request)?;
    let told = answer.has_remaining().then(|| MetadataResponse::decode(&mut answer, METADATA_VERSION))?.ok()?;
    let named = told.topics.into_iter().filter(|topic| !topic.topic_id.is_nil());
    Some(named.filter_map(|topic| Some((topic.name?.0.to_string(), topic.topic_id))).collect())
}

fn connect(address: &str, way: &Way) -> Option<Box<dyn Stream>> {
    let found = address.to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&found, ASK_WITHIN).ok()?;
    stream.set_read_timeout(Some(ASK_WITHIN)).ok()?;
    stream.set_write_timeout(Some(ASK_WITHIN)).ok()?;
    let Some(tls) = &way.tls else { return Some(Box::new(stream)) };
    let host = address.rsplit_once(':')?.0.trim_start_matches('[').trim_end_matches(']');
    let name = host.to_owned().try_into().ok()?;
    let session = rustls::ClientConnection::new(Arc::new(tls.config().ok()?), name).ok()?;
    Some(Box::new(rustls::StreamOwned::new(session, stream)))
}

/// One request, and its answer's body.
fn exchange(stream: &mut dyn Stream, key: ApiKey, version: i16, body: &impl Encodable) -> Option<Bytes> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .with_client_id(Some(StrBytes::from_static_str("cairn")));
    let mut request = BytesMut::new();
    request.put_i32(0);
    header.encode(&mut request, key.request_header_version(version)).ok()?;
    body.encode(&mut request, version).ok()?;
    let length = i32::try_from(request.len() - 4).ok()?;
    request[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&request).ok()?;
    stream.flush().ok()?;

    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok().filter(|length| *length <= ANSWER_BYTES_MAX)?;
    let mut answer = Vec::new();
    Read::take(stream, length as u64).read_to_end(&mut answer).ok()?;
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, key.response_header_version(version)).ok()?;
    Some(answer)
}
