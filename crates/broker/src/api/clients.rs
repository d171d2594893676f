//! ApiVersions and InitProducerId: what a client asks before it works.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use super::{ADVERTISED, Request, RequestError, codes, frame::AboutLogin, text};
use crate::{
    broker::Broker,
    txn::{TxnError, VERSION_BUMPS},
};

/// Features of Kafka's that this broker has, and at which level: the new group protocol (KIP-848), and transactions whose end bumps
/// the epoch of their producer (KIP-890).
const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("share.version", 1), ("transaction.version", VERSION_BUMPS)];
/// The first version that tells of features, and the first that can say that one may be switched off.
const FEATURES_FIRST: i16 = 3;
const LEVEL_ZERO_FIRST: i16 = 4;
/// The first version in which a client says which program it is, and that in which it says whom it means.
const SOFTWARE_FIRST: i16 = 3;
const NODE_FIRST: i16 = 5;
/// What stands for no node.
const NO_NODE: i32 = -1;
/// The first version of InitProducerId whose answer can say that somebody else has the transactional id (KIP-588).
const FENCED_FIRST: i16 = 4;
/// The first version of it that names a producer.
const EPOCH_FIRST: i16 = 3;

/// What a client says of itself before anything else, and of whom it takes this for (KIP-511, KIP-1242).
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) software: Software,
    /// The cluster and the node that it means to talk to, where it knows them.
    cluster: Option<String>,
    node: Option<i32>,
}

/// Which program a client is, and of which version, as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Software {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl AboutLogin for ApiVersionsRequest {}

/// Reads ApiVersions.
pub(super) fn greeting(request: &Request) -> Result<Greeting, RequestError> {
    if request.version < SOFTWARE_FIRST {
        return Ok(Greeting::default());
    }
    let decoded = request.decode_login::<ApiVersionsRequest>()?;
    let software = Software {
        name: decoded.client_software_name.to_string(),
        version: decoded.client_software_version.to_string(),
    };
    if request.version < NODE_FIRST {
        return Ok(Greeting { software, ..Greeting::default() });
    }
    // A text whose length comes first, one more than it is; then the node's number.
    let (cluster, node) = request.rest().split_last_chunk::<4>().unwrap_or((&[], &[0xff; 4]));
    let text = cluster.iter().position(|byte| byte & 0x80 == 0).map_or(&[][..], |at| &cluster[at + 1..]);
    let cluster = (cluster.first() > Some(&0)).then(|| String::from_utf8_lossy(text).into_owned());
    let node = Some(i32::from_be_bytes(*node)).filter(|node| *node != NO_NODE);
    Ok(Greeting { software, cluster, node })
}

/// Whether a text may be the name or the version of a program: letters and digits, with dots and hyphens between them.
fn is_plain(text: &str) -> bool {
    let ends = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(inner)
}

/// Answers ApiVersions: with why not, where that was meant for another, or cannot be.
pub(super) fn greet(broker: &Broker, asked: &Greeting, request: &Request) -> ApiVersionsResponse {
    let Software { name, version } = &asked.software;
    let is_half = asked.cluster.is_some() != asked.node.is_some();
    let refused = if is_half || request.version >= SOFTWARE_FIRST && !(is_plain(name) && is_plain(version)) {
        Some(ResponseError::InvalidRequest)
    } else {
        let is_other_cluster =
            asked.cluster.as_ref().is_some_and(|id| *id != broker.inner.topics.cluster().to_string());
        let is_other_node = asked.node.is_some_and(|node| node != broker.inner.options.node_id);
        (is_other_cluster || is_other_node).then_some(ResponseError::RebootstrapRequired)
    };
    match refused {
        Some(error) => ApiVersionsResponse::default().with_error_code(error.code()),
        None => api_versions(request),
    }
}

pub(super) fn api_versions(request: &Request) -> ApiVersionsResponse {
    let keys = ADVERTISED.iter().map(|(key, versions)| {
        let key = ApiVersion::default().with_api_key(*key as i16);
        key.with_min_version(*versions.start()).with_max_version(*versions.end())
    });
    let code = if request.known_version { 0 } else { ResponseError::UnsupportedVersion.code() };
    let supported = FEATURES.iter().map(|(name, level)| {
        SupportedFeatureKey::default().with_name(text(*name)).with_min_version(0).with_max_version(*level)
    });
    // Up to version 3 a client could not read that a feature may be at level 0 (KAFKA-17011): it is not told of them.
    let told = request.version >= LEVEL_ZERO_FIRST;
    let finalized = FEATURES.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(text(*name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    let response = ApiVersionsResponse::default().with_error_code(code).with_api_keys(keys.collect());
    if request.version < FEATURES_FIRST {
        return response;
    }
    response
        .with_supported_features(supported.filter(|_| told).collect())
        .with_finalized_features_epoch(0)
        .with_finalized_features(finalized.collect())
}

pub(super) async fn init_producer_id(
    broker: &Broker,
    request: InitProducerIdRequest,
    version: i16,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    if let Some(id) = &request.transactional_id {
        let named = match (request.producer_id.0, request.producer_epoch) {
            (-1, -1) => Ok(None),
            (producer, epoch) if producer >= 0 && epoch >= 0 => Ok(Some((producer, epoch))),
            _ => Err(TxnError::HalfNamed),
        };
        let begun = match named {
            Ok(named) => broker.initialise_producer(id, request.transaction_timeout_ms, named).await,
            Err(error) => Err(error),
        };
        return match begun {
            Ok((producer, epoch)) => response.with_producer_id(producer.into()).with_producer_epoch(epoch),
            Err(error) => {
                let code = codes::of_transaction(error, version >= FENCED_FIRST);
                response.with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1)
            }
        };
    }
    let is_half = (request.producer_id.0 == -1) != (request.producer_epoch == -1);
    if version >= EPOCH_FIRST && is_half {
        let code = codes::of_transaction(TxnError::HalfNamed, true);
        return response.with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1);
    }
    match broker.inner.topics.next_producer_id() {
        // An id of its own for each request, also where the client names an older one: its sequence starts anew.
        Some(id) => response.with_producer_id(id.into()).with_producer_epoch(0),
        None => response.with_error_code(ResponseError::CoordinatorNotAvailable.code()).with_producer_id((-1).into()),
    }
}
