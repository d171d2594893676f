//! Logins by OAUTHBEARER with tokens that a real issuer's key signs, and principals by client certificates.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn_broker::{Broker, BrokerOptions, Port};
use cairn_clock::{Clock, Timestamp};
use cairn_tls::{Handshakes, ServerTls, TlsFiles};
use kafka_protocol::messages::{
    ApiKey, DescribeClusterRequest, MetadataRequest, RequestKind, ResponseKind, create_acls_request::AclCreation,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{
    PATIENCE, TOPIC,
    acls::{self, ALLOW, WRITE},
    batch, logins, produce, produced, start_with,
};
use crate::support::{
    self, Served, Wire,
    tokens::{ISSUER, Signer, issuers},
};

const START: Timestamp = Timestamp::from_micros(1_795_521_600_000_000);
const SECOND: u64 = 1_795_521_600;
const FAILED: i16 = 58;

fn claims(name: &str, seconds: u64) -> Value {
    json!({"iss": ISSUER, "sub": name, "aud": "kafka", "exp": SECOND + seconds, "iat": SECOND})
}

fn options(folder: &std::path::Path, signer: &Signer, clock: &Clock) -> BrokerOptions {
    BrokerOptions { tokens: Some(issuers(folder, signer, clock)), ..acls::ruled() }
}

fn message(token: &str) -> Vec<u8> {
    format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}").into_bytes()
}

async fn open(folder: &std::path::Path, options: BrokerOptions, clock: &Clock) -> Served {
    let broker: Broker = support::open_at(folder, options, clock.clone()).await;
    Served::serve(broker).await
}

#[tokio::test]
async fn a_token_lets_in_until_its_time_is_over_and_a_fresh_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, clock) = (Signer::new(), Clock::manual(START));
    let served = open(folder.path(), options(folder.path(), &signer, &clock), &clock).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(logins::handshake(&mut wire, "OAUTHBEARER").await, 0);
    let (code, bytes, lifetime_ms) = logins::say(&mut wire, &message(&signer.token(&claims("ada", 60)))).await;
    assert_eq!((code, bytes.len(), lifetime_ms), (0, 0, 60_000));
    let metadata = RequestKind::Metadata(MetadataRequest::default().with_topics(Some(vec![])));
    wire.ask(ApiKey::Metadata, 9, &metadata).await;
    clock.advance(Duration::from_secs(59));
    assert_eq!(logins::handshake(&mut wire, "OAUTHBEARER").await, 0);
    assert_eq!(logins::say(&mut wire, &message(&signer.token(&claims("ada", 120)))).await.2, 61_000);
    clock.advance(Duration::from_secs(60));
    wire.ask(ApiKey::Metadata, 9, &metadata).await;
    clock.advance(Duration::from_secs(1));
    wire.send(ApiKey::Metadata, 9, &metadata).await;
    assert!(tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().is_none(), "its time is over");
    served.end().await;
}

#[tokio::test]
async fn what_is_no_good_token_is_refused_as_the_rfc_says() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, clock) = (Signer::new(), Clock::manual(START));
    let served = open(folder.path(), options(folder.path(), &signer, &clock), &clock).await;
    let unsigned = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims("root", 60).to_string())
    );
    for (what, message) in [
        ("nobody signed it", message(&unsigned)),
        ("somebody else did", message(&Signer::new().token(&claims("root", 60)))),
        ("its time is over", message(&signer.token(&claims("root", 0)))),
        (
            "for another's name",
            format!("n,a=root,\u{1}auth=Bearer {}\u{1}\u{1}", signer.token(&claims("ada", 60))).into_bytes(),
        ),
        ("no token", b"n,,\x01\x01".to_vec()),
        ("much too long", vec![b'x'; 1 << 20]),
    ] {
        let mut wire = Wire::connect(&served).await;
        assert_eq!(logins::handshake(&mut wire, "OAUTHBEARER").await, 0);
        let (code, bytes, _) = logins::say(&mut wire, &message).await;
        if code == 0 {
            assert_eq!(&bytes[..], br#"{"status":"invalid_token"}"#, "{what}");
            assert_eq!(logins::say(&mut wire, &[1]).await.0, FAILED, "{what}");
        } else {
            assert_eq!(code, FAILED, "{what}");
        }
    }
    // Without an issuer it is not offered.
    served.end().await;
    let (served, _) = start_with(folder.path(), logins::administered()).await;
    assert_eq!(logins::handshake(&mut Wire::connect(&served).await, "OAUTHBEARER").await, 33);
    served.end().await;
}

#[tokio::test]
async fn rules_are_for_the_name_in_a_token_which_is_none_of_the_configurations() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, clock) = (Signer::new(), Clock::manual(START));
    let mut options = options(folder.path(), &signer, &clock);
    options.users = logins::administered().users;
    let served = open(folder.path(), options, &clock).await;
    let mut root = logins::root(&served).await;
    let all = |name: &str| acls::rule(acls::TOPICS, 3, "*", 2, ALLOW).with_principal(format!("User:{name}").into());
    root.ask(ApiKey::CreateAcls, 3, &acls::creation(vec![all("ada"), all("gateway")])).await;
    let spec = cairn_broker::TopicSpec { name: TOPIC.into(), ..cairn_broker::TopicSpec::default() };
    served.broker.create_topic(&cairn_broker::Principal::Internal, spec).await.unwrap();
    for (name, code, of_cairns) in [("ada", 0, 29), ("bob", 29, 29), ("gateway", 0, 29)] {
        let mut wire = Wire::connect(&served).await;
        assert_eq!(logins::handshake(&mut wire, "OAUTHBEARER").await, 0);
        assert_eq!(logins::say(&mut wire, &message(&signer.token(&claims(name, 60)))).await.0, 0);
        for (topic, code) in [(TOPIC, code), ("mcp.calls", of_cairns)] {
            let request = produce(topic, Uuid::nil(), 9, -1, batch(&["v"]).freeze());
            assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &request).await).0, code, "{name} {topic}");
        }
    }
    served.end().await;
}

/// A broker's port with certificates of an authority that also gives clients theirs.
fn tls(folder: &std::path::Path, clients_required: bool) -> (Handshakes, CertifiedIssuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let files = TlsFiles {
        certificate: write("server.pem", server.pem()),
        key: write("server.key", key.serialize_pem()),
        client_authorities: Some(write("ca.pem", authority.pem())),
        clients_required,
    };
    (Handshakes::new(ServerTls::open(files, &[]).unwrap(), Duration::from_secs(60), 16), authority)
}

/// Connects with a certificate of that subject; the stream, and the code of a write to the topic.
async fn write_as(
    served: &Served,
    folder: &std::path::Path,
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: Option<&str>,
) -> Option<i16> {
    let (mut certificate, mut key_file) = (None, None);
    if let Some(name) = name {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, authority).unwrap();
        std::fs::write(folder.join("client.pem"), made.pem()).unwrap();
        std::fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
        (certificate, key_file) = (Some(folder.join("client.pem")), Some(folder.join("client.key")));
    }
    let identity = certificate.as_deref().zip(key_file.as_deref());
    let tcp = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let mut stream = support::tls_client(&folder.join("ca.pem"), identity)
        .connect("localhost".try_into().unwrap(), tcp)
        .await
        .ok()?;
    let request = produce(TOPIC, Uuid::nil(), 9, -1, batch(&["v"]).freeze());
    stream.write_all(&support::frame(ApiKey::Produce, 9, &request)).await.ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut frame).await.ok()?;
    Some(produced(support::answer(ApiKey::Produce, 9, frame.into())).0)
}

#[tokio::test]
async fn a_client_certificate_names_its_principal_by_its_subject_or_by_a_rule() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |name: &str| -> AclCreation {
        acls::rule(acls::TOPICS, 3, TOPIC, WRITE, ALLOW).with_principal(format!("User:{name}").into())
    };
    for (rules, allowed) in [(vec![], "O=Example,CN=ada"), (vec!["RULE:.*CN=([^,]+)$/$1/U", "DEFAULT"], "ADA")] {
        let folder_of = folder.path().join(allowed);
        std::fs::create_dir(&folder_of).unwrap();
        let mut options = acls::ruled();
        options.certificate_names = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let broker = support::open(&folder_of, options).await;
        let spec = cairn_broker::TopicSpec { name: TOPIC.into(), ..cairn_broker::TopicSpec::default() };
        broker.create_topic(&cairn_broker::Principal::Internal, spec).await.unwrap();
        let plain = Served::serve(broker.clone()).await;
        let mut root = logins::root(&plain).await;
        root.ask(ApiKey::CreateAcls, 3, &acls::creation(vec![rule(allowed)])).await;
        for required in [false, true] {
            let (handshakes, authority) = tls(&folder_of, required);
            let port = Port { tls: Some(handshakes), ..Port::default() };
            let served = Served::serve_port(broker.clone(), port).await;
            let write = async |name| write_as(&served, &folder_of, &authority, name).await;
            assert_eq!(write(Some("ada")).await, Some(0), "{allowed}");
            assert_eq!(write(Some("eve")).await, Some(29));
            assert_eq!(write(None).await, if required { None } else { Some(29) }, "without one");
            served.stop().await;
        }
        let cluster = RequestKind::DescribeCluster(DescribeClusterRequest::default());
        assert!(matches!(root.ask(ApiKey::DescribeCluster, 1, &cluster).await, ResponseKind::DescribeCluster(_)));
        drop(broker);
        plain.end().await;
    }
}
