//! Clients are asked for what the subscriptions that fit them want, and taken at their word at their interval.

use std::collections::BTreeMap;

use super::{otlp::tests::push_of, *};
use crate::group::Paces;

fn resources(subscriptions: &[(&str, &[(&str, &str)])]) -> Resources {
    let record = |(name, pairs): &(&str, &[(&str, &str)])| {
        let pairs: BTreeMap<_, _> = pairs.iter().copied().collect();
        (format!("config/client-metrics/{name}"), serde_json::to_vec(&pairs).expect("JSON"))
    };
    Resources::open(subscriptions.iter().map(record).collect(), Paces::default()).expect("as they are kept")
}

fn traits(client_id: &str) -> Traits {
    ["", client_id, "librdkafka", "2.12.1", "127.0.0.1", "5000"].map(str::to_owned)
}

const ONE: Uuid = Uuid::from_u128(1);

#[test]
fn a_client_is_asked_for_what_fits_it_and_pushes_at_its_interval() {
    let resources = resources(&[
        ("all", &[("metrics", "org.apache,extra"), ("interval.ms", "60000")]),
        ("some", &[("metrics", "org.apache"), ("interval.ms", "1000"), ("match", "client_id=app.*")]),
        ("others", &[("metrics", "*"), ("match", "client_software_name=apache-kafka-java")]),
    ]);
    let telemetry = Telemetry::default();
    let clock = std::cell::Cell::new(Instant::now());
    let ask = |id, client_id: &str| telemetry.ask(&resources, (id, traits(client_id)), clock.get());
    let wanted = ask(ONE, "app-1").expect("asked first");
    assert_eq!(wanted.metrics, ["extra", "org.apache"]);
    assert_eq!(wanted.interval, Duration::from_secs(1));
    let other = ask(Uuid::from_u128(2), "else").expect("asked first");
    assert_eq!((other.metrics.len(), other.interval), (2, Duration::from_secs(60)));
    assert_ne!(other.id, wanted.id);
    assert_eq!(ask(ONE, "app-1"), Err(TelemetryError::TooEarly));
    let bytes = push_of("org.apache.kafka.x", 5, 7.0, 1);
    let push = |id: i32, ends, codec, bytes: &[u8]| {
        telemetry.push(&resources, (ONE, traits("app-1")), id, ends, (codec, bytes), clock.get())
    };
    assert_eq!(push(wanted.id, false, 0, &bytes), Ok(()), "the first may come at once");
    assert_eq!(push(wanted.id, false, 0, &bytes), Err(TelemetryError::TooEarly));
    let wait = |seconds| clock.set(clock.get() + Duration::from_secs(seconds));
    wait(1);
    assert_eq!(push(wanted.id + 1, false, 0, &bytes), Err(TelemetryError::UnknownSubscription));
    assert_eq!(ask(ONE, "app-1"), Ok(wanted.clone()), "it may ask at once what is right");
    wait(1);
    assert_eq!(push(wanted.id, false, 9, &bytes), Err(TelemetryError::Compression));
    wait(1);
    assert_eq!(push(wanted.id, false, 0, &vec![0; PUSH_BYTES_MAX + 1]), Err(TelemetryError::TooLarge));
    wait(1);
    assert_eq!(push(wanted.id, false, 0, &[7]), Err(TelemetryError::Unreadable));
    wait(1);
    let bomb = zstd::bulk::compress(&vec![0; UNPACKED_BYTES_MAX + 1], 0).expect("packs");
    assert_eq!(push(wanted.id, false, 4, &bomb), Err(TelemetryError::TooLarge));
    let packed = zstd::bulk::compress(&bytes, 0).expect("packs");
    assert_eq!(push(wanted.id, true, 4, &packed), Ok(()), "its last may come early");
    assert_eq!(push(wanted.id, true, 4, &packed), Err(TelemetryError::Invalid), "it said that it ends");
    let shown = telemetry.metrics(clock.get());
    assert_eq!((shown.clients, shown.pushes, shown.refused), (1, 2, 7));
    let point = &shown.points[0];
    assert_eq!((point.metric.as_str(), point.value, point.client_id.as_str()), ("org.apache.kafka.x", 7.0, "app-1"));
    wait(4);
    assert!(telemetry.metrics(clock.get()).points.is_empty(), "it is gone");
}

#[test]
fn clients_and_their_points_are_bounded() {
    let now = Instant::now();
    let (resources, telemetry) = (resources(&[("all", &[("metrics", "*")])]), Telemetry::default());
    let bytes = push_of("m", 5, 1.0, otlp::POINTS_MAX);
    for n in 0..POINTS_MAX / otlp::POINTS_MAX + 2 {
        let id = Uuid::from_u128(n as u128 + 1);
        let wanted = telemetry.ask(&resources, (id, traits("c")), now).expect("asked first");
        telemetry.push(&resources, (id, traits("c")), wanted.id, false, (0, &bytes), now).expect("taken");
    }
    let shown = telemetry.metrics(now);
    assert_eq!((shown.points.len(), shown.left_out), (POINTS_MAX, 2 * otlp::POINTS_MAX as u64));
    let later = now + Duration::from_secs(1);
    for n in 0..CLIENTS_MAX + 10 {
        drop(telemetry.ask(&resources, (Uuid::from_u128(1_000 + n as u128), traits("c")), later));
    }
    assert_eq!(telemetry.clients.lock().known.len(), CLIENTS_MAX);
    let shown = telemetry.metrics(later);
    assert!(shown.points.len() < POINTS_MAX, "those that were not heard of for longest went");
}
