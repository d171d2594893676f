//! librdkafka logs in by SCRAM, with what its own algorithm makes of a password, and by tokens.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::Engine;
use bytes::Bytes;
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, ApiKey, RequestKind, ResponseKind, SaslAuthenticateRequest, SaslHandshakeRequest,
    alter_user_scram_credentials_request::ScramCredentialUpsertion,
};
use rdkafka::{
    ClientConfig, ClientContext,
    client::OAuthToken,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
};

use serde_json::json;

use crate::{
    PATIENCE,
    support::{
        Served, Wire, quick,
        tokens::{ISSUER, Signer, issuers},
    },
};

/// Sets a password, as the super user.
async fn set_password(served: &Served, mechanism: i8, user: &str, password: &str) {
    let mut wire = Wire::connect(served).await;
    let handshake = SaslHandshakeRequest::default().with_mechanism("PLAIN".to_owned().into());
    wire.ask(ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(handshake)).await;
    let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0root\0root-secret"));
    wire.ask(ApiKey::SaslAuthenticate, 2, &RequestKind::SaslAuthenticate(token)).await;
    let (algorithm, bytes) = match mechanism {
        1 => (ring::pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (ring::pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let (mut salted, salt) = (vec![0; bytes], base64::engine::general_purpose::STANDARD.encode(user));
    ring::pbkdf2::derive(algorithm, 4_096.try_into().unwrap(), salt.as_bytes(), password.as_bytes(), &mut salted);
    let set = ScramCredentialUpsertion::default()
        .with_name(user.to_owned().into())
        .with_mechanism(mechanism)
        .with_iterations(4_096)
        .with_salt(salt.into())
        .with_salted_password(salted.into());
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![set]);
    let request = RequestKind::AlterUserScramCredentials(request);
    let ResponseKind::AlterUserScramCredentials(answer) =
        wire.ask(ApiKey::AlterUserScramCredentials, 0, &request).await
    else {
        panic!()
    };
    assert_eq!(answer.results[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_logs_in_by_scram_and_a_wrong_password_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    let root =
        cairn_broker::User { secret: cairn_broker::SecretHash::of([1; 16], b"root-secret"), writes_protected: false };
    options.users = [("root", root)].into_iter().collect();
    options.super_users = ["root".to_owned()].into();
    let served = Served::start(folder.path(), options).await;
    for (code, mechanism) in [(1, "SCRAM-SHA-256"), (2, "SCRAM-SHA-512")] {
        set_password(&served, code, "ada, = and others", "pencil").await;
        let producer = |password: &str| -> FutureProducer {
            ClientConfig::new()
                .set("bootstrap.servers", served.bootstrap())
                .set("security.protocol", "sasl_plaintext")
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", "ada, = and others")
                .set("sasl.password", password)
                .set("message.timeout.ms", "3000")
                .create()
                .unwrap()
        };
        let record = || FutureRecord::<(), _>::to("t").payload("v");
        producer("pencil").send(record(), PATIENCE).await.unwrap();
        let (error, _) = producer("pen").send(record(), PATIENCE).await.unwrap_err();
        let never_sent = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        assert_eq!(error, never_sent, "nothing is sent without a login");
    }
    served.end().await;
}

/// The year 2100.
const LATER: i64 = 4_102_444_800;

/// A client that brings a token whenever it is asked for one.
struct Bringing(String);

impl ClientContext for Bringing {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let (token, principal_name) = (self.0.clone(), "ada".to_owned());
        Ok(OAuthToken { token, principal_name, lifetime_ms: LATER * 1_000 })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_logs_in_by_a_token_and_with_one_of_somebody_else_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let mut options = quick();
    options.tokens = Some(issuers(folder.path(), &signer, &cairn_clock::Clock::system()));
    let served = Served::start(folder.path(), options).await;
    let claims = json!({"iss": ISSUER, "sub": "ada", "aud": "kafka", "exp": LATER});
    for (signer, is_let_in) in [(&signer, true), (&Signer::new(), false)] {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", served.bootstrap())
            .set("security.protocol", "sasl_plaintext")
            .set("sasl.mechanism", "OAUTHBEARER")
            .set("message.timeout.ms", "3000");
        let producer: FutureProducer<Bringing> =
            FutureProducer::from_config_and_context(&config, Bringing(signer.token(&claims))).unwrap();
        let sent = producer.send(FutureRecord::<(), _>::to("t").payload("v"), PATIENCE).await;
        assert_eq!(sent.is_ok(), is_let_in, "{sent:?}");
    }
    served.end().await;
}

/// How long each token is good: a client on a connection brings another before that.
const TOKEN_S: i64 = 2;

/// An issuer whose keys rotate, and a client that asks it for tokens.
#[derive(Clone)]
struct Rotating {
    signer: Arc<Mutex<Signer>>,
    brought: Arc<AtomicUsize>,
}

impl Rotating {
    /// Signs with another key from now on.
    fn go_on_with(&self, signer: Signer) {
        *self.signer.lock().unwrap() = signer;
    }

    /// Waits until the client has brought so many more tokens.
    async fn brings(&self, more: usize) {
        let enough = self.brought.load(Ordering::SeqCst) + more;
        let brought = async {
            while self.brought.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, brought).await.expect("it proves again who it is");
    }
}

impl ClientContext for Rotating {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let ends_at = cairn_clock::Clock::system().now().as_millis() / 1_000 + TOKEN_S;
        let claims = json!({"iss": ISSUER, "sub": "ada", "aud": "kafka", "exp": ends_at});
        let token = self.signer.lock().unwrap().token(&claims);
        self.brought.fetch_add(1, Ordering::SeqCst);
        Ok(OAuthToken { token, principal_name: "ada".to_owned(), lifetime_ms: ends_at * 1_000 })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_and_logins_are_renewed_under_load_and_no_record_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Signer::named("one"), Signer::named("two"));
    let mut options = quick();
    let clock = cairn_clock::Clock::system();
    options.tokens = Some(issuers(folder.path(), &one, &clock));
    let served = Served::start(folder.path(), options).await;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", served.bootstrap())
        .set("security.protocol", "sasl_plaintext")
        .set("sasl.mechanism", "OAUTHBEARER")
        .set("enable.idempotence", "true");
    let both = [one.keys(), two.keys()];
    let client = Rotating { signer: Arc::new(Mutex::new(one)), brought: Arc::default() };
    let producer: FutureProducer<Rotating> = FutureProducer::from_config_and_context(&config, client.clone()).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut offsets = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let sent = producer.send(FutureRecord::<(), _>::to("t").partition(0).payload("v"), PATIENCE).await;
                offsets.push(sent.map_err(|(error, _)| error).expect("no record is refused").offset);
            }
            offsets
        }
    });
    client.brings(1).await;
    let keys = |all: &[serde_json::Value]| {
        let all: Vec<_> = all.iter().map(|keys| keys["keys"][0].clone()).collect();
        std::fs::write(folder.path().join("keys.new"), json!({ "keys": all }).to_string()).unwrap();
        std::fs::rename(folder.path().join("keys.new"), folder.path().join("keys.json")).unwrap();
    };
    keys(&both);
    client.go_on_with(two);
    client.brings(1).await;
    // Nobody has tokens of the first any more.
    keys(&both[1..]);
    client.brings(1).await;
    stop.store(true, Ordering::SeqCst);
    let offsets = load.await.unwrap();
    assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>(), "each once, in its order");
    served.end().await;
}
