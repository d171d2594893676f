//! Attempts to come in: what is right is let in, and each way to cheat is refused for its own reason.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_clock::{Clock, Timestamp};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    CertificateName, CertificateOptions, Identity, IssuerOptions, Kind, Options, PeerCertificate, Presented, Reason,
    Rejection, Verifier, base64url,
    signing::{Signer, Site},
};

const ISSUER: &str = "https://idp.example/tenant";
const METADATA: &str = "https://idp.example/.well-known/openid-configuration/tenant";
const KEYS: &str = "https://idp.example/keys";
const RESOURCE: &str = "https://cairn.example/mcp/orders";
const START: Timestamp = Timestamp::from_micros(1_795_521_600_000_000);
const SECOND: u64 = 1_795_521_600;

struct World {
    site: Arc<Site>,
    clock: Clock,
    signer: Signer,
    verifier: Verifier,
}

impl World {
    fn new(set: impl FnOnce(&mut Options, &mut IssuerOptions)) -> Self {
        let site = Arc::new(Site::default());
        site.put(METADATA, &json!({"issuer": ISSUER, "jwks_uri": KEYS}));
        let signer = Signer::new("one");
        site.put(KEYS, &json!({"keys": [signer.jwk()]}));
        let clock = Clock::manual(START);
        let mut options = Options { base: "https://cairn.example".to_owned(), local: None, ..Options::local_only("x") };
        let mut issuer = IssuerOptions::new(ISSUER);
        set(&mut options, &mut issuer);
        options.issuers.insert("corp".to_owned(), issuer);
        let fetch = site.clone();
        let verifier = Verifier::with(options, clock.clone(), move |_| Ok(Arc::new(fetch.clone())));
        Self { site, clock, signer, verifier: verifier.expect("options that can be used") }
    }

    async fn ask(&self, headers: &[(&'static str, &str)]) -> Result<Identity, Rejection> {
        self.ask_over(headers, None).await
    }

    async fn ask_over(
        &self,
        headers: &[(&'static str, &str)],
        certificate: Option<&PeerCertificate>,
    ) -> Result<Identity, Rejection> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a header"));
        }
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let presented = Presented { method: "POST", headers: &map, certificate, peer, server: "orders" };
        self.verifier.identify(&presented).await
    }

    async fn bearer(&self, token: &str) -> Result<Identity, Reason> {
        self.ask(&[("authorization", &format!("Bearer {token}"))]).await.map_err(|rejection| rejection.reason)
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "ada", "aud": RESOURCE, "exp": SECOND + 300, "iat": SECOND, "client_id": "app", "scope": "a b"})
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

#[tokio::test]
async fn a_token_of_the_issuer_names_its_bearer() {
    let world = World::new(|_, _| {});
    let who = world.bearer(&world.signer.token(&claims())).await.expect("let in");
    assert_eq!((who.principal.as_str(), who.agent.as_deref(), who.kind), ("corp/ada", Some("corp/app"), Kind::User));
    assert_eq!(who.lacks(&["b".to_owned(), "c".to_owned()]), ["c"]);
    let own = world.bearer(&world.signer.token(&with("client_id", json!("ada")))).await.expect("let in");
    assert_eq!(own.kind, Kind::Workload, "a client that is its own subject");
    let many = with("aud", json!(["https://else.example", RESOURCE]));
    assert!(world.bearer(&world.signer.token(&many)).await.is_ok());
    assert_eq!(world.site.asked.load(Ordering::SeqCst), 3, "metadata in two places, keys once");
}

#[tokio::test]
async fn what_is_wrong_with_a_token_refuses_it() {
    let world = World::new(|_, issuer| issuer.tenant_claim = Some("org".to_owned()));
    let good = with("org", json!("acme"));
    let of = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        world.signer.token(&claims)
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").shift_remove(key);
        world.signer.token(&claims)
    };
    let under = |header: Value| world.signer.sign(&header, &good);
    let token = world.signer.token(&good);
    assert_eq!(world.bearer(&token).await.expect("let in").tenant.as_deref(), Some("acme"));
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let stranger = Signer::new("one");
    let twice = good.to_string().replacen('{', "{\"sub\":\"root\",", 1);
    let header = r#"{"alg":"ES256","kid":"one"}"#;
    let part = base64url::encode;
    for (what, token, reason) in [
        ("expired", of("exp", json!(SECOND - 31)), Reason::TokenExpired),
        ("without an end", without("exp"), Reason::ClaimUnusable),
        ("with an end that is a text", of("exp", json!("2030")), Reason::ClaimUnusable),
        ("not valid yet", of("nbf", json!(SECOND + 31)), Reason::TokenNotYetValid),
        ("issued in the future", of("iat", json!(SECOND + 31)), Reason::TokenNotYetValid),
        ("for another server", of("aud", json!("https://cairn.example/mcp/payroll")), Reason::AudienceWrong),
        ("for all servers", of("aud", json!("https://cairn.example")), Reason::AudienceWrong),
        ("for nobody", without("aud"), Reason::AudienceWrong),
        ("of another issuer", of("iss", json!("https://evil.example")), Reason::IssuerUnknown),
        ("of an issuer spelled otherwise", of("iss", json!("https://idp.example/tenant/")), Reason::IssuerUnknown),
        ("of several issuers", of("iss", json!([ISSUER])), Reason::IssuerUnknown),
        ("of no issuer", without("iss"), Reason::IssuerUnknown),
        ("without a subject", without("sub"), Reason::ClaimUnusable),
        ("with a subject that breaks lines", of("sub", json!("a\nb")), Reason::ClaimUnusable),
        ("without a tenant", without("org"), Reason::ClaimUnusable),
        ("bound to what is not known", of("cnf", json!({"x": "y"})), Reason::ClaimUnusable),
        (
            "unsigned",
            format!("{}.{}.", part(br#"{"alg":"none"}"#), part(good.to_string().as_bytes())),
            Reason::AlgorithmRefused,
        ),
        ("with its signature cut off", format!("{signed}."), Reason::SignatureInvalid),
        ("symmetric", under(json!({"alg": "HS256", "kid": "one"})), Reason::AlgorithmRefused),
        (
            "of an algorithm that is not the key's",
            under(json!({"alg": "RS256", "kid": "one"})),
            Reason::AlgorithmRefused,
        ),
        ("of another type", under(json!({"alg": "ES256", "kid": "one", "typ": "dpop+jwt"})), Reason::TypeRefused),
        (
            "an identity token's logout",
            under(json!({"alg": "ES256", "kid": "one", "typ": "logout+jwt"})),
            Reason::TypeRefused,
        ),
        (
            "critical",
            under(json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false})),
            Reason::CriticalHeader,
        ),
        ("of a stranger's key under a known name", stranger.token(&good), Reason::SignatureInvalid),
        (
            "with the key to check it by",
            stranger.sign(&json!({"alg": "ES256", "kid": "one", "jwk": stranger.jwk()}), &good),
            Reason::SignatureInvalid,
        ),
        ("with a claim twice", world.signer.sign_text(header, &twice), Reason::TokenMalformed),
        ("changed", format!("{signed}A.{signature}"), Reason::TokenMalformed),
        ("too long", of("x", json!("y".repeat(20_000))), Reason::TokenTooLong),
        ("no token", "x".to_owned(), Reason::TokenMalformed),
    ] {
        assert_eq!(world.bearer(&token).await.err(), Some(reason), "{what}");
    }
}

#[tokio::test]
async fn a_request_without_exactly_one_credential_is_refused() {
    let world = World::new(|_, _| {});
    let token = world.signer.token(&claims());
    let bearer = format!("Bearer {token}");
    for (headers, reason) in [
        (vec![], Reason::NoCredentials),
        (vec![("authorization", bearer.as_str()), ("authorization", bearer.as_str())], Reason::RequestMalformed),
        (vec![("authorization", "Bearer")], Reason::RequestMalformed),
        (vec![("authorization", "Bearer a, Bearer b")], Reason::RequestMalformed),
        (vec![("authorization", "Basic YTpi")], Reason::SchemeUnknown),
        (vec![("cookie", token.as_str())], Reason::NoCredentials),
    ] {
        assert_eq!(world.ask(&headers).await.expect_err("nobody").reason, reason, "{headers:?}");
    }
}

#[tokio::test]
async fn rotated_keys_lose_no_call_and_are_asked_for_together() {
    let world = Arc::new(World::new(|_, issuer| issuer.refreshes_max = 100));
    assert!(world.bearer(&world.signer.token(&claims())).await.is_ok());
    let before = world.site.asked.load(Ordering::SeqCst);
    for round in 0..4 {
        let next = Signer::new(&format!("next-{round}"));
        world.site.put(KEYS, &json!({"keys": [next.jwk(), world.signer.jwk()]}));
        let token = Arc::new(next.token(&claims()));
        // All of them at once.
        let call = |_| {
            let (world, token) = (world.clone(), token.clone());
            tokio::spawn(async move { world.bearer(&token).await.is_ok() })
        };
        for call in (0..50).map(call).collect::<Vec<_>>() {
            assert!(call.await.expect("it ends"), "a call was lost");
        }
    }
    // Whoever comes while a request runs needs one that begins later: its answer may be from before the rotation.
    let asked = world.site.asked.load(Ordering::SeqCst) - before;
    assert!((4..=8).contains(&asked), "{asked} requests for four rotations");
    let old = Signer::new("old");
    world.site.put(KEYS, &json!({"keys": [old.jwk()]}));
    assert!(world.bearer(&old.token(&claims())).await.is_ok());
    let gone = world.bearer(&world.signer.token(&claims())).await;
    assert_eq!(gone.err(), Some(Reason::KeyUnknown), "a key that the issuer took back is good no longer");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_the_issuer_as_often_as_allowed() {
    const EVERY: Duration = Duration::from_millis(200);
    let mut world = World::new(|_, issuer| {
        issuer.refreshes_max = 3;
        issuer.refresh_every = EVERY;
        issuer.waiting_max = 5;
    });
    // Waiting takes real time here.
    world.clock = Clock::system();
    let second = world.clock.now().as_micros() / 1_000_000;
    let options = Options { leeway: Duration::from_secs(30), ..world.verifier.options().clone() };
    let fetch = world.site.clone();
    let verifier = Verifier::with(options, world.clock.clone(), move |_| Ok(Arc::new(fetch.clone())));
    world.verifier = verifier.expect("options that can be used");
    let current = with("exp", json!(second + 1_000));
    let current = json!({"iss": ISSUER, "sub": "ada", "aud": RESOURCE, "exp": current["exp"]});
    let world = Arc::new(world);
    assert!(world.bearer(&world.signer.token(&current)).await.is_ok());
    let before = world.site.asked.load(Ordering::SeqCst);
    let began = world.clock.now();
    let stranger = Signer::new("stranger");
    let flood: Vec<_> = (0..200)
        .map(|number| {
            let token = stranger.sign(&json!({"alg": "ES256", "kid": format!("made-up-{number}")}), &current);
            let world = world.clone();
            tokio::spawn(async move { world.bearer(&token).await.err() })
        })
        .collect();
    let mut busy = 0;
    for call in flood {
        match call.await.expect("it ends") {
            Some(Reason::KeyUnknown) => {}
            Some(Reason::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(busy > 100, "{busy} did not wait");
    let asked = world.site.asked.load(Ordering::SeqCst) - before;
    let allowed = 3 + world.clock.now().since(began).as_micros() / EVERY.as_micros();
    assert!(u128::from(asked) <= allowed, "{asked} requests for a flood, {allowed} were allowed");
    assert!(world.bearer(&world.signer.token(&current)).await.is_ok(), "known keys are not held up");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_believed_for_a_bounded_time() {
    let world = World::new(|_, issuer| issuer.refreshes_max = 100);
    let token = world.signer.token(&with("exp", json!(SECOND + 100_000)));
    assert!(world.bearer(&token).await.is_ok());
    world.site.away.store(true, Ordering::SeqCst);
    world.clock.advance(Duration::from_secs(3_500));
    assert!(world.bearer(&token).await.is_ok(), "the keys are good for an hour");
    let other = Signer::new("other").token(&claims());
    assert_eq!(world.bearer(&other).await.err(), Some(Reason::IssuerUnavailable));
    world.clock.advance(Duration::from_secs(200));
    assert_eq!(world.bearer(&token).await.err(), Some(Reason::IssuerUnavailable), "and no longer");
    world.site.away.store(false, Ordering::SeqCst);
    assert!(world.bearer(&token).await.is_ok());
}

#[tokio::test]
async fn metadata_of_another_issuer_is_not_used() {
    let world = World::new(|_, _| {});
    world.site.put(METADATA, &json!({"issuer": "https://honest.example", "jwks_uri": KEYS}));
    assert_eq!(world.bearer(&world.signer.token(&claims())).await.err(), Some(Reason::IssuerUnavailable));
    let world = World::new(|_, _| {});
    world.site.put(METADATA, &json!({"issuer": ISSUER, "jwks_uri": "http://169.254.169.254/keys"}));
    assert_eq!(world.bearer(&world.signer.token(&claims())).await.err(), Some(Reason::IssuerUnavailable));
}

#[tokio::test]
async fn a_token_bound_to_a_key_wants_a_fresh_proof_each_time() {
    let world = World::new(|_, issuer| issuer.bound_only = true);
    let holder = Signer::new("holder");
    let token = world.signer.token(&with("cnf", json!({"jkt": holder.thumbprint()})));
    let now = world.clock.now();
    let send = async |scheme: &str, proofs: &[&str]| {
        let authorization = format!("{scheme} {token}");
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(proofs.iter().map(|proof| ("dpop", *proof)));
        world.ask(&headers).await.map_err(|rejection| (rejection.reason, rejection.dpop))
    };
    let proof = holder.proof("j1", RESOURCE, &token, now);
    assert!(send("DPoP", &[&proof]).await.is_ok());
    assert_eq!(send("DPoP", &[&proof]).await.unwrap_err(), (Reason::ProofReplayed, true));
    assert_eq!(send("Bearer", &[]).await.unwrap_err(), (Reason::ProofMissing, true), "stolen");
    assert_eq!(send("DPoP", &[]).await.unwrap_err().0, Reason::ProofMissing);
    let (a, b) = (holder.proof("j2", RESOURCE, &token, now), holder.proof("j3", RESOURCE, &token, now));
    assert_eq!(send("DPoP", &[&a, &b]).await.unwrap_err().0, Reason::ProofMissing, "two are none");
    let iat = SECOND;
    let ath = base64url::sha256(token.as_bytes());
    let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": holder.jwk()});
    let good = json!({"jti": "x", "htm": "POST", "htu": RESOURCE, "ath": ath, "iat": iat});
    let of = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        holder.sign(&header, &claims)
    };
    let thief = Signer::new("thief");
    for (what, proof) in [
        ("for another method", of("htm", json!("GET"))),
        ("for another server", of("htu", json!("https://cairn.example/mcp/payroll"))),
        ("for another token", of("ath", json!(base64url::sha256(b"x")))),
        ("too old", of("iat", json!(iat - 91))),
        ("from the future", of("iat", json!(iat + 31))),
        ("from before this process", of("iat", json!(iat - 1))),
        ("without a name", of("jti", json!(""))),
        ("of another key", thief.proof("j4", RESOURCE, &token, now)),
        ("of a key that is not in it", thief.sign(&header, &good)),
        ("of another type", holder.sign(&json!({"alg": "ES256", "typ": "JWT", "jwk": holder.jwk()}), &good)),
        ("not to be read", "x.y.z".to_owned()),
    ] {
        assert_eq!(send("DPoP", &[&proof]).await.unwrap_err(), (Reason::ProofInvalid, true), "{what}");
    }
    // A proof is forgotten only once it would be too old anyway.
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(send("DPoP", &[&proof]).await.unwrap_err().0, Reason::ProofReplayed);
    let unbound = format!("Bearer {}", world.signer.token(&claims()));
    assert_eq!(world.ask(&[("authorization", &unbound)]).await.unwrap_err().reason, Reason::BindingMissing);
}

#[tokio::test]
async fn proofs_that_cannot_be_remembered_are_refused() {
    let world = World::new(|options, _| options.proofs_max = 3);
    let holder = Signer::new("holder");
    let token = world.signer.token(&with("cnf", json!({"jkt": holder.thumbprint()})));
    let authorization = format!("DPoP {token}");
    for number in 0..5 {
        let proof = holder.proof(&format!("{number}"), RESOURCE, &token, world.clock.now());
        let asked = world.ask(&[("authorization", &authorization), ("dpop", &proof)]).await;
        assert_eq!(asked.err().map(|rejection| rejection.reason), (number >= 3).then_some(Reason::Busy), "{number}");
    }
}

fn certificate(uri: &str) -> PeerCertificate {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().expect("ASCII"))];
    let made = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate");
    PeerCertificate::read(made.der()).expect("it can be read")
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_is_worth_nothing_over_another_connection() {
    let world = World::new(|options, _| {
        let principal = CertificateName::Uri;
        options.certificates = Some(CertificateOptions { principal, tenant: Some("t".into()), scopes: vec![] });
    });
    let (own, other) = (certificate("spiffe://prod/a"), certificate("spiffe://prod/b"));
    let token = world.signer.token(&with("cnf", json!({"x5t#S256": own.thumbprint()})));
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let who = world.ask_over(&headers, Some(&own)).await.expect("let in");
    assert_eq!(who.principal, "corp/ada", "the token says who, the certificate that it is theirs");
    for over in [None, Some(&other)] {
        assert_eq!(world.ask_over(&headers, over).await.unwrap_err().reason, Reason::CertificateOther);
    }
    let by_itself = world.ask_over(&[], Some(&other)).await.expect("let in");
    assert_eq!((by_itself.principal.as_str(), by_itself.tenant.as_deref()), ("cert/spiffe://prod/b", Some("t")));
    let wrong = [("authorization", "Bearer x.y.z")];
    assert_eq!(
        world.ask_over(&wrong, Some(&own)).await.unwrap_err().reason,
        Reason::TokenMalformed,
        "a certificate saves no wrong token"
    );
}

#[test]
fn principals_of_two_issuers_never_coincide() {
    let two = |first: &str, second: &str| {
        let mut options = Options { local: None, ..Options::local_only("x") };
        options.issuers.insert(first.to_owned(), IssuerOptions::new(ISSUER));
        options.issuers.insert(second.to_owned(), IssuerOptions::new("https://other.example"));
        options.check()
    };
    assert!(two("a", "b").is_ok());
    for name in ["key", "cert", "a/b", ""] {
        assert!(two("a", name).is_err(), "{name}");
    }
    let mut options = Options::local_only("x");
    options.issuers.insert("a".to_owned(), IssuerOptions::new(ISSUER));
    options.issuers.insert("b".to_owned(), IssuerOptions::new(ISSUER));
    assert!(options.check().is_err(), "one issuer under two names");
    assert_eq!(Identity::local("corp/ada").principal, "corp_ada", "no user's name looks like an issuer's principal");
}

#[tokio::test]
async fn beside_other_identities_the_local_user_comes_over_loopback() {
    let world = World::new(|options, _| options.local = Some("me".to_owned()));
    assert_eq!(world.ask(&[]).await.unwrap_err().reason, Reason::NoCredentials, "from another machine");
    let headers = HeaderMap::new();
    let peer = "::ffff:127.0.0.1".parse().expect("an address");
    let presented = Presented { method: "POST", headers: &headers, certificate: None, peer, server: "orders" };
    let who = world.verifier.identify(&presented).await.expect("let in");
    assert_eq!((who.principal.as_str(), who.kind, who.lacks(&["a".to_owned()]).len()), ("me", Kind::Local, 0));
}

#[tokio::test]
async fn a_refusal_says_where_to_go_and_what_is_needed() {
    let world = World::new(|_, _| {});
    let scopes = ["orders:read".to_owned()];
    let challenge = |rejection: &Rejection| world.verifier.challenges(rejection, "orders", &scopes);
    let nobody = world.ask(&[]).await.expect_err("nobody");
    assert_eq!(
        challenge(&nobody),
        [
            "Bearer resource_metadata=\"https://cairn.example/.well-known/oauth-protected-resource/mcp/orders\", scope=\"orders:read\""
        ]
    );
    let wrong = world.ask(&[("authorization", "Bearer x")]).await.expect_err("nobody");
    assert!(challenge(&wrong)[0].contains("error=\"invalid_token\""));
    let metadata =
        world.verifier.metadata("/.well-known/oauth-protected-resource/mcp/orders", |_| Some(scopes.to_vec()));
    let metadata = metadata.expect("metadata");
    assert_eq!(metadata["resource"], RESOURCE);
    assert_eq!(metadata["authorization_servers"], json!([ISSUER]));
    assert_eq!(metadata["scopes_supported"], json!(["orders:read"]));
    let root = world.verifier.metadata("/.well-known/oauth-protected-resource", |_| None).expect("metadata");
    assert_eq!(root["resource"], "https://cairn.example");
    assert!(world.verifier.metadata("/.well-known/oauth-protected-resource/mcp/no", |_| None).is_none());
    assert!(world.verifier.metadata("/mcp/orders", |_| Some(Vec::new())).is_none());
    for reason in Reason::ALL {
        let text = format!("{}{}", reason.says(), reason.word());
        assert!(!text.contains(['"', '\\']) && matches!(reason.status(), 200 | 400 | 401 | 403 | 404 | 503), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_that_comes_as_a_token_panics_or_lets_anybody_in(
        token in prop_oneof![
            "\\PC{0,200}",
            "[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}",
            "cairn-key-[0-9a-f-]{0,90}",
        ],
        header in "\\PC{0,60}", payload in "\\PC{0,60}",
        alg in prop_oneof!["ES256", "none", "HS256", "RS256", "\\PC{0,8}"],
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let world = World::new(|_, issuer| { issuer.refreshes_max = 1_000_000; });
        let part = |text: &[u8]| base64url::encode(text);
        let claims = json!({"iss": ISSUER, "sub": payload}).to_string();
        let named = json!({"alg": alg, "kid": header}).to_string();
        for text in [
            token,
            format!("{}.{}.{}", part(header.as_bytes()), part(payload.as_bytes()), part(&bytes)),
            format!("{}.{}.{}", part(named.as_bytes()), part(claims.as_bytes()), part(&bytes)),
            format!("{}.{}.{}", part(&bytes), part(&bytes), part(&bytes)),
        ] {
            for scheme in ["Bearer", "DPoP"] {
                let mut headers = HeaderMap::new();
                let Ok(value) = HeaderValue::from_bytes(format!("{scheme} {text}").as_bytes()) else { continue };
                headers.insert("authorization", value);
                if let Ok(value) = HeaderValue::from_bytes(&bytes) { headers.insert("dpop", value); }
                let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let presented = Presented { method: "POST", headers: &headers, certificate: None, peer, server: "orders" };
                let asked = runtime.block_on(world.verifier.identify(&presented));
                prop_assert!(asked.is_err());
            }
        }
        let _ = PeerCertificate::read(&bytes);
        let _ = crate::jwk::KeySet::read(&bytes);
        let _ = crate::object::object(&bytes);
    }
}
