//! GetTelemetrySubscriptions and PushTelemetry (KIP-714): what a client is asked to tell of itself, and what it tells.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse, PushTelemetryRequest,
        PushTelemetryResponse,
    },
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Session, codes, text};
use crate::{
    broker::Broker,
    telemetry::{PUSH_BYTES_MAX, TelemetryError, Traits},
};

/// How pushes may be packed, the best first: zstd, LZ4, gzip, Snappy, and not at all.
const COMPRESSIONS: [i8; 4] = [4, 3, 1, 2];

pub(super) async fn subscriptions(
    broker: &Broker,
    session: &Session,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let response = GetTelemetrySubscriptionsResponse::default();
    let asked = request.client_instance_id;
    let id = if asked.is_nil() { broker.inner.entropy.uuid_v7(broker.inner.clock.now()) } else { asked };
    match broker.inner.telemetry.ask(&broker.inner.resources, (id, traits(session, id)), Instant::now()) {
        Ok(wanted) => response
            .with_client_instance_id(id)
            .with_subscription_id(wanted.id)
            .with_accepted_compression_types(COMPRESSIONS.to_vec())
            .with_push_interval_ms(ms(wanted.interval))
            .with_telemetry_max_bytes(PUSH_BYTES_MAX as i32)
            // Sums since the beginning, as they are shown here.
            .with_delta_temporality(false)
            .with_requested_metrics(wanted.metrics.into_iter().map(text).collect()),
        Err(error) => response.with_error_code(code(error)),
    }
}

pub(super) async fn push(broker: &Broker, session: &Session, request: PushTelemetryRequest) -> PushTelemetryResponse {
    let id = request.client_instance_id;
    let pushed = if id.is_nil() {
        Err(TelemetryError::Invalid)
    } else {
        let (subscription, ends) = (request.subscription_id, request.terminating);
        let packed = (request.compression_type, &request.metrics[..]);
        let who = (id, traits(session, id));
        broker.inner.telemetry.push(&broker.inner.resources, who, subscription, ends, packed, Instant::now())
    };
    PushTelemetryResponse::default().with_error_code(pushed.map_or_else(code, |()| codes::NONE))
}

fn traits(session: &Session, id: Uuid) -> Traits {
    let (software, port) = (&session.software, session.port.to_string());
    let (client, host) = (session.client_id.clone(), session.host.clone());
    [id.to_string(), client, software.name.clone(), software.version.clone(), host, port]
}

fn ms(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

const fn code(error: TelemetryError) -> i16 {
    match error {
        TelemetryError::Invalid => ResponseError::InvalidRequest.code(),
        TelemetryError::TooEarly => ResponseError::ThrottlingQuotaExceeded.code(),
        TelemetryError::UnknownSubscription => ResponseError::UnknownSubscriptionId.code(),
        TelemetryError::Compression => ResponseError::UnsupportedCompressionType.code(),
        TelemetryError::TooLarge => ResponseError::TelemetryTooLarge.code(),
        TelemetryError::Unreadable => ResponseError::InvalidRecord.code(),
    }
}
