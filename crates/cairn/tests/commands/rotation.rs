//! A certificate and a password that are replaced while librdkafka writes over TLS with SCRAM: no request is lost, who was let in goes
//! on over the connection that it has, and who comes anew comes by what is new.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AlterUserScramCredentialsRequest, ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
        SaslAuthenticateRequest, SaslHandshakeRequest, alter_user_scram_credentials_request::ScramCredentialUpsertion,
    },
    protocol::{Decodable, Encodable},
};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use crate::{
    store::pause,
    support::{LONG, wait_for},
    tls::{Authority, Secure, secure, tls_config},
};

const ROOT: &[u8] = b"\0ops\0a-secret-of-the-operators";
/// SCRAM-SHA-256.
const MECHANISM: i8 = 1;
const ITERATIONS: u32 = 4_096;

/// What one producer was told.
#[derive(Clone, Default)]
struct Told(Arc<Inner>);

#[derive(Default)]
struct Inner {
    acknowledged: Mutex<BTreeMap<(i32, i64), u64>>,
    refused: Mutex<Vec<KafkaError>>,
    /// What befell its connections.
    errors: Mutex<Vec<KafkaError>>,
}

impl Told {
    fn count(&self) -> usize {
        self.0.acknowledged.lock().expect("whole").len()
    }

    fn is_refused(&self) -> bool {
        let is_it = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
        self.0.errors.lock().expect("whole").iter().any(is_it)
    }
}

impl ClientContext for Told {
    fn error(&self, error: KafkaError, _: &str) {
        self.0.errors.lock().expect("whole").push(error);
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                let before = self.0.acknowledged.lock().expect("whole").insert(place, *number);
                assert!(before.is_none(), "an offset was given twice");
            }
            Err((error, _)) => self.0.refused.lock().expect("whole").push(error.clone()),
        }
    }
}

fn producer(kafka: &str, authorities: &Path, password: &str) -> (ThreadedProducer<Told>, Told) {
    let told = Told::default();
    let producer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("security.protocol", "sasl_ssl")
        .set("ssl.ca.location", authorities.display().to_string())
        .set("sasl.mechanism", "SCRAM-SHA-256")
        .set("sasl.username", "ada")
        .set("sasl.password", password)
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("log_level", "0")
        .create_with_context(told.clone())
        .expect("a producer");
    (producer, told)
}

/// Sends until it is told to stop, then waits for what is under way.
fn load(producer: &ThreadedProducer<Told>, stop: &AtomicBool, numbers: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let value = number.to_string();
        let record = BaseRecord::<(), _, _>::with_opaque_to("rotated", Box::new(number)).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room in its queue");
        pause(2);
    }
    producer.flush(LONG).expect("all of it is answered");
}

/// A request of the super user, over TLS.
fn ask(stream: &mut Secure, key: ApiKey, version: i16, request: &RequestKind) -> ResponseKind {
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    let mut body = BytesMut::new();
    header.encode(&mut body, key.request_header_version(version)).expect("encoded");
    request.encode(&mut body, version).expect("encoded");
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).expect("short"));
    frame.extend_from_slice(&body);
    stream.write_all(&frame).expect("written");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("all of it");
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, key.response_header_version(version)).expect("a header");
    ResponseKind::decode(key, &mut answer, version).expect("what was asked for")
}

fn log_in(stream: &mut Secure) {
    let handshake = SaslHandshakeRequest::default().with_mechanism("PLAIN".to_owned().into());
    ask(stream, ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(handshake));
    let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(ROOT));
    let answer = ask(stream, ApiKey::SaslAuthenticate, 2, &RequestKind::SaslAuthenticate(token));
    assert!(matches!(answer, ResponseKind::SaslAuthenticate(answer) if answer.error_code == 0), "the super user");
}

fn set_password(stream: &mut Secure, password: &str) {
    let (mut salted, salt) = ([0; 32], STANDARD.encode(password));
    let iterations = ITERATIONS.try_into().expect("not zero");
    let sha_256 = ring::pbkdf2::PBKDF2_HMAC_SHA256;
    ring::pbkdf2::derive(sha_256, iterations, salt.as_bytes(), password.as_bytes(), &mut salted);
    let set = ScramCredentialUpsertion::default()
        .with_name("ada".to_owned().into())
        .with_mechanism(MECHANISM)
        .with_iterations(ITERATIONS.cast_signed())
        .with_salt(salt.into())
        .with_salted_password(salted.to_vec().into());
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![set]);
    let request = RequestKind::AlterUserScramCredentials(request);
    let answer = ask(stream, ApiKey::AlterUserScramCredentials, 0, &request);
    let ResponseKind::AlterUserScramCredentials(answer) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.results[0].error_code, 0);
}

#[test]
fn a_certificate_and_a_password_are_replaced_under_load_and_no_request_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, data) = (folder.path(), folder.path().join("data"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    old.issue(here, "server");
    let (old_ca, new_ca) = (old.publish(here.join("old.pem")), new.publish(here.join("new.pem")));
    let config = here.join("cairn.toml");
    let text = "[kafka]\nusers = { ops = \"a-secret-of-the-operators\" }\nsuper_users = [\"ops\"]\n\
                [kafka.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    fs::write(&config, text).expect("written");
    let up = crate::store::start("broker", &data, &config);
    let mut root = secure(&up.kafka, &tls_config(&old_ca, None));
    log_in(&mut root);
    set_password(&mut root, "first");

    let (stop, numbers) = (AtomicBool::new(false), AtomicU64::new(0));
    let (first, told) = producer(&up.kafka, &old_ca, "first");
    let newer = std::thread::scope(|scope| {
        scope.spawn(|| load(&first, &stop, &numbers));
        let goes_on = |told: &Told| {
            let enough = told.count() + 100;
            wait_for("acknowledgements", || (told.count() >= enough).then_some(()));
        };
        goes_on(&told);
        new.issue(here, "server");
        let shows_new = || {
            let mut stream = secure(&up.kafka, &tls_config(&new_ca, None));
            stream.conn.complete_io(&mut stream.sock).is_ok()
        };
        wait_for("the new certificate", || shows_new().then_some(()));
        goes_on(&told);
        // On a connection from before.
        set_password(&mut root, "second");
        goes_on(&told);

        let (second, newer) = producer(&up.kafka, &new_ca, "second");
        let (stop, numbers) = (&stop, &numbers);
        scope.spawn(move || load(&second, stop, numbers));
        goes_on(&newer);
        goes_on(&told);
        for (authorities, password) in [(&new_ca, "first"), (&old_ca, "second")] {
            let (stranger, refused) = producer(&up.kafka, authorities, password);
            let record = BaseRecord::<(), _, _>::with_opaque_to("rotated", Box::new(0)).payload("never");
            stranger.send(record).map_err(|(error, _)| error).expect("there is room in its queue");
            let by_certificate = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::SSL);
            wait_for("a refusal", || {
                let is_it = refused.0.errors.lock().expect("whole").iter().any(by_certificate);
                (is_it || refused.is_refused()).then_some(())
            });
            assert_eq!(refused.count(), 0, "what was replaced lets nobody in");
            stranger.purge(rdkafka::producer::PurgeConfig::default().queue());
        }
        stop.store(true, Ordering::SeqCst);
        newer
    });
    drop(first);
    for told in [&told, &newer] {
        assert_eq!(*told.0.refused.lock().expect("whole"), [], "every request is answered");
        assert_eq!(*told.0.errors.lock().expect("whole"), [], "over the connection that it has");
    }
    let mut all = told.0.acknowledged.lock().expect("whole").clone();
    all.extend(newer.0.acknowledged.lock().expect("whole").iter());
    assert_eq!(all.len() as u64, numbers.load(Ordering::SeqCst), "everything that was sent was acknowledged");
    let mut next = BTreeMap::new();
    for (partition, offset) in all.keys() {
        let next = next.entry(partition).or_insert(0);
        assert_eq!(offset, next, "nothing is there twice");
        *next += 1;
    }
    up.end();
}
