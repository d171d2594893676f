//! Versions of Kafka 4 that the codec does not know, in terms of those that it knows. Called where frames are read and written.
//!
//! A body is written as the codec's newest version, by its shape: what that has no room for comes beside it, in order, and the
//! request's own file knows what it is. Answers go the other way.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::{
    shape::{ShapeError, rewrite},
    shapes,
};

/// Requests that are newer here than in the codec: the last versions of request and answer that it knows.
const CODED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::ListOffsets, 10, 10),
    (ApiKey::OffsetCommit, 9, 10),
    (ApiKey::OffsetFetch, 9, 10),
    (ApiKey::ApiVersions, 4, 4),
    (ApiKey::WriteTxnMarkers, 1, 1),
    (ApiKey::TxnOffsetCommit, 5, 5),
    (ApiKey::DescribeLogDirs, 4, 4),
    (ApiKey::DeleteGroups, 2, 2),
    (ApiKey::ShareFetch, 1, 1),
    (ApiKey::ShareAcknowledge, 1, 1),
];

/// A request's body as the codec knows it.
#[derive(Debug)]
pub(crate) struct Older {
    /// Its version then.
    pub(crate) version: i16,
    pub(crate) body: Bytes,
    /// What that version has no room for, one after the other as they stood.
    pub(crate) rest: Bytes,
}

/// The last version of a request that the codec knows, where that is not the last there is.
pub(super) fn request_coded(key: ApiKey) -> i16 {
    CODED.iter().find(|(of, ..)| *of == key).map_or(i16::MAX, |(_, request, _)| *request)
}

/// Writes a request's body, whose shape was checked, as a version that the codec knows.
pub(crate) fn older(key: ApiKey, version: i16, body: Bytes) -> Result<Older, ShapeError> {
    let coded = request_coded(key);
    if version <= coded {
        return Ok(Older { version, body, rest: Bytes::new() });
    }
    let fields = shapes::of(key).ok_or(ShapeError::Unknown)?;
    let rewritten = rewrite(fields, (version, coded), &body, &[])?;
    Ok(Older { version: coded, body: rewritten.body.into(), rest: rewritten.dropped.into() })
}

/// The version by which the codec writes an answer.
pub(crate) fn answer_coded(key: ApiKey, version: i16) -> i16 {
    CODED.iter().find(|(of, ..)| *of == key).map_or(version, |(.., answer)| version.min(*answer))
}

/// Writes an answer's body of the codec's newest version as a newer one; `added` is what only that has, in order.
pub(crate) fn newer(key: ApiKey, version: i16, body: &[u8], added: &[u8]) -> Result<Option<Vec<u8>>, ShapeError> {
    let coded = answer_coded(key, version);
    match shapes::of_answer(key) {
        Some(fields) if coded < version => Ok(Some(rewrite(fields, (coded, version), body, added)?.body)),
        _ => Ok(None),
    }
}
