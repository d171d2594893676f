//! What the fuzz targets ask of the broker: a request off the wire, without a socket.
//!
//! Built for `cargo xtask fuzz` alone; nothing of it is in Cairn.

use bytes::Bytes;

use crate::{BrokerLimits, api, telemetry};

/// Bytes that decoding a frame may take without a share of the budget, whatever is in it.
pub const FREE_BYTES: usize = 256 << 10;

/// Checks a frame as a connection does; what decoding it may take in memory, where it is a request.
#[must_use]
pub fn claimed(frame: &Bytes) -> Option<usize> {
    let request = api::Request::parse(frame.clone(), &BrokerLimits::default()).ok()?;
    Some(request.decoded_bytes().saturating_add(frame.len()).saturating_add(FREE_BYTES))
}

/// Reads metrics that a client pushed, unpacked; whether they are any.
#[must_use]
pub fn metrics(bytes: &[u8]) -> bool {
    telemetry::read_pushed(bytes).is_ok()
}

/// Decodes a frame, as answering it does; whether it could be.
#[must_use]
pub fn decode(frame: Bytes) -> bool {
    let Ok(request) = api::Request::parse(frame, &BrokerLimits::default()) else { return false };
    if request.is_old() {
        return api::refuse_old(&request);
    }
    request.is_readable()
}
