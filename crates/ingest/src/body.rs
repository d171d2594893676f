//! A request's body: read within bounds of its own and of all together, and unpacked within bounds.

use std::io::Read as _;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::{Ingest, fault::Fault};

/// A body with its part of what all bodies may hold; it is given back when the request has been read.
#[derive(Debug)]
pub(crate) struct Room(#[allow(dead_code, reason = "what it holds is given back with it")] OwnedSemaphorePermit);

/// How a body is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// Not at all.
    None,
    /// As gzip.
    Gzip,
}

impl Packing {
    /// The packing of that name.
    pub(crate) fn named(name: Option<&str>) -> Result<Self, Fault> {
        match name.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => Ok(Self::None),
            Some("gzip") => Ok(Self::Gzip),
            Some(_) => Err(Fault::Media("bodies are sent as they are or as gzip".to_owned())),
        }
    }
}

impl Ingest {
    /// Reads a body to its end.
    pub(crate) async fn read(&self, body: Body, limit: usize) -> Result<(Bytes, Room), Fault> {
        let read_max = self.bounds().read_max;
        let too_large = || Fault::TooLarge(format!("a body has at most {limit} bytes here: send less at a time"));
        let hint = hyper::body::Body::size_hint(&body);
        let announced = hint.exact().or(hint.upper()).unwrap_or(limit as u64);
        if hint.lower() > limit as u64 {
            return Err(too_large());
        }
        let wanted = u32::try_from(announced.min(limit as u64).max(1)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(read_max, self.0.bodies.clone().acquire_many_owned(wanted)).await;
        let Ok(Ok(room)) = room else {
            return Err(Fault::Busy("too many bodies are being read: send it again later".to_owned()));
        };
        let reading = async {
            let (mut body, mut whole) = (body, BytesMut::new());
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Fault::Malformed(format!("the body could not be read: {error}")))?;
                let Ok(chunk) = frame.into_data() else { continue };
                if whole.len() + chunk.len() > limit {
                    return Err(too_large());
                }
                whole.extend_from_slice(&chunk);
            }
            Ok(whole.freeze())
        };
        match tokio::time::timeout(read_max, reading).await {
            Ok(read) => Ok((read?, Room(room))),
            Err(_) => Err(Fault::Slow(format!("the body did not come within {} s", read_max.as_secs()))),
        }
    }

    /// Unpacks a body.
    pub(crate) fn unpack(&self, body: Bytes, packing: Packing) -> Result<Bytes, Fault> {
        if packing == Packing::None {
            return Ok(body);
        }
        let limit = self.bounds().unpacked_bytes_max;
        let mut unpacked = Vec::new();
        let mut reader = MultiGzDecoder::new(&body[..]).take(limit as u64 + 1);
        reader
            .read_to_end(&mut unpacked)
            .map_err(|_| Fault::Malformed("the body is called gzip and is none".to_owned()))?;
        if unpacked.len() > limit {
            return Err(Fault::TooLarge(format!(
                "an unpacked body has at most {limit} bytes here: send less at a time"
            )));
        }
        Ok(unpacked.into())
    }
}
