//! Logins by SCRAM, and who may make them: what a password opens, what a wrong one is told, and what outlives a restart.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_broker::{BrokerOptions, SecretHash, User};
use cairn_clock::{Clock, Timestamp};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, ApiKey, DescribeUserScramCredentialsRequest, MetadataRequest, RequestKind,
    ResponseKind, SaslAuthenticateRequest, SaslHandshakeRequest,
    alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
    describe_user_scram_credentials_request::UserName,
};
use ring::{digest, hmac, pbkdf2};
use uuid::Uuid;

use super::{PATIENCE, batch, produce, produced, text};
use crate::support::{self, Served, Wire, quick};

const FAILED: i16 = 58;
const BAD_STATE: i16 = 34;
const CLUSTER_DENIED: i16 = 31;
const ITERATIONS: i32 = 4_096;

/// A broker with one super user and one writer of Cairn's topics, who log in by PLAIN.
pub(super) fn administered() -> BrokerOptions {
    let mut options = quick();
    let user = |secret: &[u8], writes_protected| User { secret: SecretHash::of([1; 16], secret), writes_protected };
    options.users =
        [("root", user(b"root-secret", false)), ("gateway", user(b"gateway-secret", true))].into_iter().collect();
    options.super_users = ["root".to_owned()].into();
    options
}

/// A connection of the super user.
pub(super) async fn root(served: &Served) -> Wire {
    let mut wire = Wire::connect(served).await;
    assert_eq!(handshake(&mut wire, "PLAIN").await, 0);
    assert_eq!(say(&mut wire, b"\0root\0root-secret").await.0, 0);
    wire
}

pub(super) async fn handshake(wire: &mut Wire, mechanism: &str) -> i16 {
    let request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    let answer = wire.ask(ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(request)).await;
    let ResponseKind::SaslHandshake(answer) = answer else { panic!() };
    answer.error_code
}

/// Code, bytes, and for how long a login counts in ms.
pub(super) async fn say(wire: &mut Wire, message: &[u8]) -> (i16, Bytes, i64) {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(message));
    let answer = wire.ask(ApiKey::SaslAuthenticate, 2, &RequestKind::SaslAuthenticate(request)).await;
    let ResponseKind::SaslAuthenticate(answer) = answer else { panic!() };
    (answer.error_code, answer.auth_bytes, answer.session_lifetime_ms)
}

fn algorithms(mechanism: &str) -> (pbkdf2::Algorithm, hmac::Algorithm, &'static digest::Algorithm, usize) {
    match mechanism {
        "SCRAM-SHA-256" => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512, 64),
    }
}

fn salted(mechanism: &str, password: &str, salt: &[u8], iterations: i32) -> Vec<u8> {
    let (algorithm, .., bytes) = algorithms(mechanism);
    let mut salted = vec![0; bytes];
    let iterations = u32::try_from(iterations).unwrap().try_into().unwrap();
    pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

/// The server's first message, after a handshake.
async fn first(wire: &mut Wire, mechanism: &str, user: &str) -> String {
    assert_eq!(handshake(wire, mechanism).await, 0);
    let (code, bytes, _) = say(wire, format!("n,,n={user},r=abc").as_bytes()).await;
    assert_eq!(code, 0, "who there is not is not told so");
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The client's last message, and what the server must say to it.
fn last(mechanism: &str, user: &str, password: &str, first: &str) -> (String, String) {
    let mut parts = first.split(',').map(|part| part.split_at(2).1.to_owned());
    let (nonce, salt, iterations) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let salted = salted(mechanism, password, &STANDARD.decode(salt).unwrap(), iterations.parse().unwrap());
    let (_, hash, digested, _) = algorithms(mechanism);
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hash, key), text).as_ref().to_vec();
    let without_proof = format!("c=biws,r={nonce}");
    let signed = format!("n={user},r=abc,{first},{without_proof}");
    let client_key = sign(&salted, b"Client Key");
    let signature = sign(digest::digest(digested, &client_key).as_ref(), signed.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    let server = sign(&sign(&salted, b"Server Key"), signed.as_bytes());
    (format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(server)))
}

/// Logs in; the code, and whether the server proved that it knows the password too.
pub(super) async fn login(wire: &mut Wire, mechanism: &str, user: &str, password: &str) -> (i16, bool) {
    let first = first(wire, mechanism, user).await;
    let (last, proof) = last(mechanism, user, password, &first);
    let (code, bytes, _) = say(wire, last.as_bytes()).await;
    (code, bytes == proof.as_bytes())
}

fn set(user: &str, mechanism: &str, password: &str, iterations: i32) -> ScramCredentialUpsertion {
    let salt = b"1zp2pj2nnab6ur8w2ko5zq8kw";
    let code = if mechanism == "SCRAM-SHA-256" { 1 } else { 2 };
    ScramCredentialUpsertion::default()
        .with_name(text(user))
        .with_mechanism(code)
        .with_iterations(iterations)
        .with_salt(Bytes::from_static(salt))
        .with_salted_password(salted(mechanism, password, salt, iterations).into())
}

/// Users with their codes.
async fn alter(wire: &mut Wire, set: Vec<ScramCredentialUpsertion>, delete: &[(&str, i8)]) -> Vec<(String, i16)> {
    let delete = delete
        .iter()
        .map(|(user, mechanism)| ScramCredentialDeletion::default().with_name(text(user)).with_mechanism(*mechanism));
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(set).with_deletions(delete.collect());
    let request = RequestKind::AlterUserScramCredentials(request);
    let answer = wire.ask(ApiKey::AlterUserScramCredentials, 0, &request).await;
    let ResponseKind::AlterUserScramCredentials(answer) = answer else { panic!() };
    answer.results.iter().map(|result| (result.user.to_string(), result.error_code)).collect()
}

pub(super) async fn set_password(wire: &mut Wire, user: &str, password: &str) {
    let set = vec![set(user, "SCRAM-SHA-256", password, ITERATIONS)];
    assert_eq!(alter(wire, set, &[]).await, [(user.to_owned(), 0)]);
}

pub(super) fn describe(users: &[&str]) -> RequestKind {
    let users = users.iter().map(|user| UserName::default().with_name(text(user))).collect();
    RequestKind::DescribeUserScramCredentials(DescribeUserScramCredentialsRequest::default().with_users(Some(users)))
}

pub(super) fn change() -> RequestKind {
    let set = vec![set("somebody", "SCRAM-SHA-256", "p", ITERATIONS)];
    RequestKind::AlterUserScramCredentials(AlterUserScramCredentialsRequest::default().with_upsertions(set))
}

/// Users with their codes and mechanisms with iterations.
async fn described(wire: &mut Wire, users: &[&str]) -> (i16, Vec<(String, i16, Vec<(i8, i32)>)>) {
    let answer = wire.ask(ApiKey::DescribeUserScramCredentials, 0, &describe(users)).await;
    let ResponseKind::DescribeUserScramCredentials(answer) = answer else { panic!() };
    let mut results: Vec<_> = answer
        .results
        .iter()
        .map(|one| {
            let infos = one.credential_infos.iter().map(|info| (info.mechanism, info.iterations)).collect();
            (one.user.to_string(), one.error_code, infos)
        })
        .collect();
    results.sort();
    (answer.error_code, results)
}

#[tokio::test]
async fn a_password_opens_until_it_is_changed_and_connections_live_on() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), administered()).await;
    let mut admin = root(&served).await;
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        assert_eq!(alter(&mut admin, vec![set("ada", mechanism, "first", 5_000)], &[]).await, [("ada".to_owned(), 0)]);
        let mut old = Wire::connect(&served).await;
        assert_eq!(login(&mut old, mechanism, "ada", "first").await, (0, true), "{mechanism}");
        let changed = vec![set("ada", mechanism, "second", ITERATIONS)];
        assert_eq!(alter(&mut admin, changed, &[]).await, [("ada".to_owned(), 0)]);
        let mut wire = Wire::connect(&served).await;
        assert_eq!(login(&mut wire, mechanism, "ada", "first").await.0, FAILED, "the old password");
        assert_eq!(login(&mut wire, mechanism, "ada", "second").await, (0, true));
        // Who is in stays in, and proves it anew with the new password.
        let metadata = RequestKind::Metadata(MetadataRequest::default().with_topics(None));
        old.ask(ApiKey::Metadata, 9, &metadata).await;
        assert_eq!(login(&mut old, mechanism, "ada", "second").await, (0, true));
    }
    drop(admin);
    served.end().await;
    let served = Served::start(folder.path(), administered()).await;
    let mut admin = root(&served).await;
    let both = vec![(1, ITERATIONS), (2, ITERATIONS)];
    assert_eq!(described(&mut admin, &[]).await, (0, vec![("ada".to_owned(), 0, both)]));
    let mut wire = Wire::connect(&served).await;
    assert_eq!(login(&mut wire, "SCRAM-SHA-512", "ada", "second").await, (0, true));
    assert_eq!(alter(&mut admin, vec![], &[("ada", 2)]).await, [("ada".to_owned(), 0)]);
    assert_eq!(login(&mut Wire::connect(&served).await, "SCRAM-SHA-512", "ada", "second").await.0, FAILED);
    assert_eq!(login(&mut Wire::connect(&served).await, "SCRAM-SHA-256", "ada", "second").await, (0, true));
    served.end().await;
}

#[tokio::test]
async fn who_there_is_not_is_answered_like_who_there_is_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), administered()).await;
    set_password(&mut root(&served).await, "ada", "secret").await;
    let salt = |first: &str| first.split(',').nth(1).unwrap().to_owned();
    let form = |first: &str| {
        let parts: Vec<_> = first.split(',').map(ToOwned::to_owned).collect();
        (parts.len(), parts[0].len(), parts[1].len(), parts[2].clone())
    };
    let mut wire = Wire::connect(&served).await;
    let known = first(&mut wire, "SCRAM-SHA-256", "ada").await;
    let nobody = first(&mut wire, "SCRAM-SHA-256", "nobody").await;
    assert_eq!(form(&known), form(&nobody));
    assert_eq!(salt(&nobody), salt(&first(&mut wire, "SCRAM-SHA-256", "nobody").await), "the same salt each time");
    assert_ne!(salt(&nobody), salt(&first(&mut wire, "SCRAM-SHA-256", "no one").await));
    assert_eq!(login(&mut wire, "SCRAM-SHA-256", "nobody", "secret").await, (FAILED, false));
    served.end().await;
    let served = Served::start(folder.path(), administered()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(salt(&nobody), salt(&first(&mut wire, "SCRAM-SHA-256", "nobody").await));
    served.end().await;
}

#[tokio::test]
async fn a_login_that_is_not_one_ends_without_harm_and_three_end_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), administered()).await;
    set_password(&mut root(&served).await, "ada", "secret").await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(say(&mut wire, b"n,,n=ada,r=x").await.0, BAD_STATE);
    assert_eq!(handshake(&mut wire, "SCRAM-SHA-1").await, 33);
    assert_eq!(handshake(&mut wire, "SCRAM-SHA-256").await, 0);
    assert_eq!(say(&mut wire, &vec![b'n'; 1 << 20]).await.0, FAILED);
    // Another's answer in this exchange.
    let mut other = Wire::connect(&served).await;
    let theirs = first(&mut other, "SCRAM-SHA-256", "ada").await;
    let stolen = last("SCRAM-SHA-256", "ada", "secret", &theirs).0;
    first(&mut wire, "SCRAM-SHA-256", "ada").await;
    assert_eq!(say(&mut wire, stolen.as_bytes()).await.0, FAILED, "a proof counts for its own nonce");
    assert!(tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().is_none(), "three failures");
    // Once somebody, always the same.
    let mut wire = Wire::connect(&served).await;
    assert_eq!(login(&mut wire, "SCRAM-SHA-256", "ada", "secret").await.0, 0);
    assert_eq!(handshake(&mut wire, "PLAIN").await, 0);
    assert_eq!(say(&mut wire, b"\0root\0root-secret").await.0, FAILED);
    assert_eq!(described(&mut wire, &[]).await.0, CLUSTER_DENIED);
    served.end().await;
}

#[tokio::test]
async fn only_a_super_user_makes_users_and_what_is_unacceptable_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), administered()).await;
    let mut anybody = Wire::connect(&served).await;
    assert_eq!(
        alter(&mut anybody, vec![set("ada", "SCRAM-SHA-256", "x", ITERATIONS)], &[]).await,
        [("ada".to_owned(), CLUSTER_DENIED)]
    );
    assert_eq!(described(&mut anybody, &[]).await, (CLUSTER_DENIED, vec![]));
    let mut admin = root(&served).await;
    let odd = set("odd", "SCRAM-SHA-256", "x", ITERATIONS).with_mechanism(7);
    let asked = vec![
        set("ada", "SCRAM-SHA-256", "x", ITERATIONS),
        set("weak", "SCRAM-SHA-512", "x", ITERATIONS - 1),
        set("slow", "SCRAM-SHA-512", "x", 16_385),
        odd,
        set("twice", "SCRAM-SHA-256", "x", ITERATIONS),
    ];
    let mut told = alter(&mut admin, asked, &[("twice", 1), ("nobody", 1)]).await;
    told.sort();
    let wanted = [("ada", 0), ("nobody", 91), ("odd", 33), ("slow", 93), ("twice", 92), ("weak", 93)];
    assert_eq!(told, wanted.map(|(user, code)| (user.to_owned(), code)));
    let all = described(&mut admin, &["ada", "nobody", "twice", "twice"]).await;
    let ada = ("ada".to_owned(), 0, vec![(1, ITERATIONS)]);
    assert_eq!(all, (0, vec![ada, ("nobody".to_owned(), 91, vec![]), ("twice".to_owned(), 92, vec![])]));
    // librdkafka leaves a byte behind its request, as Kafka's brokers let it.
    let mut written = support::frame(ApiKey::AlterUserScramCredentials, 0, &change()).split_off(4);
    written.extend_from_slice(&[0]);
    admin.send_raw(&written).await;
    let answer = admin.receive_raw().await.unwrap();
    let answer = support::answer(ApiKey::AlterUserScramCredentials, 0, answer);
    let ResponseKind::AlterUserScramCredentials(answer) = answer else { panic!() };
    assert_eq!(answer.results[0].error_code, 0);
    // A user by SCRAM is none of those that may write what is Cairn's, whatever it is called.
    set_password(&mut admin, "gateway", "mine").await;
    let request = || produce("mcp.calls", Uuid::nil(), 9, -1, batch(&["v"]).freeze());
    let mut guest = Wire::connect(&served).await;
    assert_eq!(login(&mut guest, "SCRAM-SHA-256", "gateway", "mine").await.0, 0);
    assert_eq!(produced(guest.ask(ApiKey::Produce, 9, &request()).await).0, 29);
    let mut writer = Wire::connect(&served).await;
    assert_eq!(handshake(&mut writer, "PLAIN").await, 0);
    assert_eq!(say(&mut writer, b"\0gateway\0gateway-secret").await.0, 0);
    assert_ne!(produced(writer.ask(ApiKey::Produce, 9, &request()).await).0, 29);
    served.end().await;
}

#[tokio::test]
async fn a_login_counts_for_its_time_and_is_renewed_on_the_same_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = administered();
    options.login_age_max = Some(Duration::from_secs(60));
    let clock = Clock::manual(Timestamp::from_micros(1_795_521_600_000_000));
    let served = Served::serve(support::open_at(folder.path(), options, clock.clone()).await).await;
    let metadata = RequestKind::Metadata(MetadataRequest::default().with_topics(None));
    let mut wire = Wire::connect(&served).await;
    assert_eq!(handshake(&mut wire, "PLAIN").await, 0);
    let (code, _, lifetime_ms) = say(&mut wire, b"\0root\0root-secret").await;
    assert!(code == 0 && lifetime_ms == 60_000, "{lifetime_ms}");
    wire.ask(ApiKey::Metadata, 9, &metadata).await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(handshake(&mut wire, "PLAIN").await, 0);
    assert_eq!(say(&mut wire, b"\0root\0root-secret").await.0, 0);
    wire.ask(ApiKey::Metadata, 9, &metadata).await;
    clock.advance(Duration::from_secs(60));
    wire.send(ApiKey::Metadata, 9, &metadata).await;
    let ended = tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap();
    assert!(ended.is_none(), "past its time nothing is answered");
    served.end().await;
}
