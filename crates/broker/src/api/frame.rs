//! One request on the wire: header in, header out. Called by the server and the request files.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::{Decodable, Encodable},
};

use super::{
    ADVERTISED,
    fetch::FetchAnswer,
    guard::{Guarded, Undecided},
};
use crate::{
    budget::Overloaded,
    options::BrokerLimits,
    wire::{self, Pieces, ShapeError},
};

/// Bytes of every header up to the correlation id.
const HEADER_BYTES_MIN: usize = 8;
/// The first version of Produce that carries record batches.
const PRODUCE_FIRST: i16 = 3;
/// What an array element of a request takes in memory when it is decoded, generously.
const ELEMENT_BYTES: usize = 256;
/// What a decoded request may take without a share of the budget.
const DECODED_FREE_BYTES: usize = 64 << 10;

/// Why a request cannot be answered; the connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("request kind {key} is not offered")]
    Unknown { key: i16 },
    #[error("version {version} of {key:?} is not offered")]
    Version { key: ApiKey, version: i16 },
    #[error("{key:?} version {version}: {source}")]
    Shape { key: ApiKey, version: i16, source: ShapeError },
    #[error("cannot decode: {reason}")]
    Codec { reason: String },
    #[error("an answer does not fit {key:?} version {version}: {reason}")]
    Answer { key: ApiKey, version: i16, reason: String },
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("a SASL token is not valid, or its user is unknown")]
    Token,
}

/// What a client sends to prove who it is.
pub(super) trait AboutLogin: Decodable {}

impl AboutLogin for SaslHandshakeRequest {}
impl AboutLogin for SaslAuthenticateRequest {}

/// A request whose shape was checked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) client_id: String,
    /// False for ApiVersions of a version that we do not know: it is answered with those that we do (KIP-511).
    pub(crate) known_version: bool,
    correlation: i32,
    /// Array elements in it.
    pub(super) elements: usize,
    /// The version that its body has by now, for the codec.
    coded: i16,
    body: Bytes,
    /// What of the body the codec has no room for.
    rest: Bytes,
}

impl Request {
    /// Reads the header and checks that kind, version, shape and bounds are ours.
    pub(crate) fn parse(mut frame: Bytes, limits: &BrokerLimits) -> Result<Self, RequestError> {
        if frame.len() < HEADER_BYTES_MIN {
            return Err(RequestError::Codec { reason: "the header is cut short".to_owned() });
        }
        let raw_key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let correlation = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
        let key = ApiKey::try_from(raw_key).map_err(|()| RequestError::Unknown { key: raw_key })?;
        let offered = ADVERTISED.iter().find(|(offered, _)| *offered == key);
        let (_, versions) = offered.ok_or(RequestError::Unknown { key: raw_key })?;
        if !versions.contains(&version) {
            if key == ApiKey::ApiVersions {
                let (client_id, body, rest) = (String::new(), Bytes::new(), Bytes::new());
                let (version, coded, elements, known_version) = (0, 0, 0, false);
                return Ok(Self { key, version, client_id, known_version, correlation, elements, coded, body, rest });
            }
            return Err(RequestError::Version { key, version });
        }
        let header = RequestHeader::decode(&mut frame, key.request_header_version(version)).map_err(codec)?;
        let client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
        let misshapen = |source| RequestError::Shape { key, version, source };
        let elements = wire::check(key, version, &frame, limits.request_elements_max).map_err(misshapen)?;
        let wire::Older { version: coded, body, rest } = wire::older(key, version, frame).map_err(misshapen)?;
        Ok(Self { key, version, client_id, known_version: true, correlation, elements, coded, body, rest })
    }

    /// A Produce request of a version that carries message formats of before Kafka 0.11; the codec does not know it.
    pub(super) const fn is_old_produce(&self) -> bool {
        self.is_produce() && self.version < PRODUCE_FIRST
    }

    /// As [`Self::is_old_produce`], and the body, for the fuzz targets.
    #[cfg(fuzzing)]
    pub(crate) const fn is_old(&self) -> bool {
        self.is_old_produce()
    }

    /// Whether the codec can read it, for the fuzz targets.
    #[cfg(fuzzing)]
    pub(crate) fn is_readable(&self) -> bool {
        super::decode_only(self.key, self.coded, self.body.clone())
    }

    /// The body, for who reads it without the codec.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Bytes that the decoded request takes in memory, as far as they are many.
    pub(crate) const fn decoded_bytes(&self) -> usize {
        self.elements.saturating_mul(ELEMENT_BYTES).saturating_sub(DECODED_FREE_BYTES)
    }

    pub(crate) const fn is_produce(&self) -> bool {
        matches!(self.key, ApiKey::Produce)
    }

    /// Whether it is how a client finds out what there is, or proves who it is.
    pub(crate) const fn is_login(&self) -> bool {
        matches!(self.key, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate)
    }

    /// What is asked; to be judged before anything of it is seen.
    pub(super) fn decode<R: Guarded>(&self) -> Result<Undecided<R>, RequestError> {
        let mut decoded = R::decode(&mut self.body.clone(), self.coded).map_err(codec)?;
        if self.coded < self.version {
            decoded.add(&mut self.rest.clone());
        }
        Ok(Undecided::new(decoded))
    }

    /// A message of a login, which anybody may send.
    pub(super) fn decode_login<R: AboutLogin>(&self) -> Result<R, RequestError> {
        R::decode(&mut self.body.clone(), self.coded).map_err(codec)
    }

    /// What of it the codec has no room for.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The whole frame of an answer whose body is written already, of a version before header tags.
    pub(super) fn respond_raw(&self, body: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(body.len() + 8);
        out.put_i32(i32::try_from(body.len() + 4).expect("answers are bounded far below 2 GiB"));
        out.put_i32(self.correlation);
        out.extend_from_slice(body);
        out.freeze()
    }

    /// The whole frame of the answer to a kind of request, in its version.
    pub(super) fn respond_to<R: Guarded>(&self, response: &R::Answer) -> Result<Bytes, RequestError> {
        if wire::answer_coded(self.key, self.version) == self.version {
            return self.respond(response);
        }
        self.respond_adding(response, &R::newer(response))
    }

    /// The whole frame of an answer.
    pub(super) fn respond<R: Encodable>(&self, response: &R) -> Result<Bytes, RequestError> {
        self.respond_adding(response, &[])
    }

    /// The whole frame of an answer to Fetch.
    pub(super) fn respond_fetch(&self, answer: FetchAnswer) -> Result<Pieces, RequestError> {
        let (key, version) = (self.key, self.version);
        let unfit = |reason: String| RequestError::Answer { key, version, reason };
        let mut header = BytesMut::new();
        let correlation = ResponseHeader::default().with_correlation_id(self.correlation);
        let header_version = key.response_header_version(version);
        correlation.encode(&mut header, header_version).map_err(|error| unfit(error.to_string()))?;
        let mut frame = answer.encode(version).map_err(unfit)?;
        let length = i32::try_from(header.len() + frame.len()).expect("answers are bounded far below 2 GiB");
        frame.push_front([length.to_be_bytes().as_slice(), &header].concat().into());
        Ok(frame)
    }

    /// The same with what a newer version than the codec's has besides, in order.
    pub(super) fn respond_adding<R: Encodable>(&self, response: &R, added: &[u8]) -> Result<Bytes, RequestError> {
        let (key, version) = (self.key, self.version);
        let unfit = |reason: String| RequestError::Answer { key, version, reason };
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        let coded = wire::answer_coded(key, version);
        let size = response.compute_size(coded).map_err(|error| unfit(error.to_string()))?;
        let mut out = BytesMut::with_capacity(size + 16);
        out.put_i32(0);
        let header_version = key.response_header_version(version);
        header.encode(&mut out, header_version).map_err(|error| unfit(error.to_string()))?;
        let head = out.len();
        response.encode(&mut out, coded).map_err(|error| unfit(error.to_string()))?;
        if let Some(body) = wire::newer(key, version, &out[head..], added).map_err(|error| unfit(error.to_string()))? {
            out.truncate(head);
            out.extend_from_slice(&body);
        }
        let length = i32::try_from(out.len() - 4).expect("answers are bounded far below 2 GiB");
        out[..4].copy_from_slice(&length.to_be_bytes());
        Ok(out.freeze())
    }
}

fn codec(error: impl std::fmt::Display) -> RequestError {
    RequestError::Codec { reason: error.to_string() }
}
