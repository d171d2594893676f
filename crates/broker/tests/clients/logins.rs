//! librdkafka logs in by SCRAM, with what its own algorithm makes of a password, and by tokens.

use std::error::Error;

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
