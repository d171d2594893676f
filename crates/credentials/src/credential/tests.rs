//! A credential against an authorization server that misbehaves in every way that it can.

use std::{path::Path, sync::atomic::Ordering};

use cairn_clock::{Clock, Entropy};
use futures::future::join_all;
use http::header::WWW_AUTHENTICATE;

use super::{
    provider::{Asked, Provider},
    *,
};
use crate::{
    Credentials, SealKey, Secret,
    options::{Client, ClientProof, Exchanged, Subject},
};

fn client(secret: Secret) -> Client {
    Client { id: "me".to_owned(), proof: ClientProof::Secret { secret, way: None } }
}

fn options(kind: Kind) -> AuthOptions {
    AuthOptions { kind, scopes: vec![], resource: None, issuer: None, token_endpoint: None, hosts: vec![] }
}

fn machine() -> Kind {
    Kind::ClientCredentials { client: client(Secret::fixed("s3cret")) }
}

fn person() -> Kind {
    Kind::Oauth { client: None, client_metadata_url: None, redirect_uri: None }
}

fn environment(folder: Option<&Path>) -> Environment {
    let key = || SealKey::new(&"k".repeat(32)).expect("a key");
    Environment {
        clock: Clock::system(),
        entropy: Entropy::system(),
        redirect_uri: "http://127.0.0.1:7070/oauth/callback".to_owned(),
        kept: folder.map(|folder| (folder.to_owned(), key())),
    }
}

fn credentials(provider: &Provider, options: AuthOptions, folder: Option<&Path>) -> Credentials {
    let url = provider.url("/mcp");
    Credentials::new([("web", url.as_str(), options)], &environment(folder)).expect("valid")
}

fn credential(provider: &Provider, kind: Kind) -> Credential {
    credentials(provider, options(kind), None).of("web").expect("it is there").clone()
}

/// A server whose token is exchanged for its callers'.
fn exchanging(provider: &Provider) -> Credential {
    let token_type = "urn:ietf:params:oauth:token-type:access_token".to_owned();
    let subject = Exchanged::Callers { token_type };
    let kind = Kind::TokenExchange { client: client(Secret::fixed("s")), audience: Some("web".to_owned()), subject };
    let token_endpoint = Some(Url::parse(&provider.url("/token")).expect("a URL"));
    let all = credentials(provider, AuthOptions { token_endpoint, ..options(kind) }, None);
    all.of("web").expect("it is there").clone()
}

/// Somebody comes in with a token; it is there as long as what is given back is.
fn comes_in(credential: &Credential, name: &str, token: &str, scopes: &[&str]) -> (Asker, Arc<CallerToken>) {
    let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
    let (asker, brought) = (Asker::new(name.to_owned()), Arc::new(CallerToken::new(token, &scopes)));
    credential.bring(&asker, &brought);
    (asker, brought)
}

fn shown(credential: &Credential, asker: &Asker) -> Option<String> {
    credential.header(asker).map(|header| header.to_str().expect("text").to_owned())
}

fn anybody() -> Asker {
    Asker::default()
}

/// The server answers to whatever was sent last.
fn says(credential: &Credential, asker: &Asker, status: u16, challenge: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).expect("a header"));
    let sent = credential.header(asker);
    credential.heard(asker, sent.as_ref(), StatusCode::from_u16(status).expect("a status"), &headers);
}

fn query(url: &str, name: &str) -> String {
    let url = Url::parse(url).expect("a URL");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn callback(login: &Login, issuer: Option<String>) -> Callback {
    Callback { state: query(&login.url, "state"), code: Some("c0de".to_owned()), issuer }
}

/// Scopes have no order.
fn words(scope: &str) -> Vec<&str> {
    let mut words: Vec<_> = scope.split(' ').collect();
    words.sort_unstable();
    words
}

fn grants(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|form| form["grant_type"].as_str()).collect()
}

#[tokio::test]
async fn many_calls_share_one_request_for_a_token_and_none_is_lost() {
    let provider = Provider::start().await;
    provider.slow.store(true, Ordering::SeqCst);
    let credential = credential(&provider, machine());
    // The first to ask goes away while it waits: what it began goes on for the others.
    let impatient = tokio::spawn({
        let credential = credential.clone();
        async move { credential.ready(&anybody()).await }
    });
    while provider.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    impatient.abort();
    let nobody = anybody();
    let all = join_all((0..64).map(|_| credential.ready(&nobody))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(provider.asked().len(), 1);
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer t0ken-0"));
    let asked = &provider.asked()[0];
    assert_eq!(asked["resource"], provider.url("/mcp"), "the token is for this server alone");
    assert_eq!(provider.basic.lock().len(), 1);
    assert!(!asked.contains_key("client_secret"), "a secret is shown in one way, not in two");
}

#[tokio::test]
async fn a_token_that_the_server_took_once_is_replaced_when_it_takes_it_no_more() {
    let provider = Provider::start().await;
    let (credential, nobody) = (credential(&provider, machine()), anybody());
    credential.ready(&nobody).await.expect("a token");
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer error=\"invalid_token\"");
    assert_eq!(credential.header(&nobody), None, "it is not shown again");
    credential.ready(&nobody).await.expect("another token");
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer t0ken-1"));
    // What is said late of the old one does not touch the new one.
    let old = HeaderValue::from_static("Bearer t0ken-0");
    credential.heard(&nobody, Some(&old), StatusCode::UNAUTHORIZED, &HeaderMap::new());
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer t0ken-1"));
}

#[tokio::test]
async fn a_server_that_takes_no_token_does_not_make_the_token_endpoint_work() {
    let provider = Provider::start().await;
    let (credential, nobody) = (credential(&provider, machine()), anybody());
    credential.ready(&nobody).await.expect("a token");
    says(&credential, &nobody, 401, "Bearer");
    for _ in 0..20 {
        let error = credential.ready(&nobody).await.expect_err("it took not even a new one");
        assert_eq!(error, CredentialError::Refused { by: "the server", code: "HTTP 401".to_owned() });
    }
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn more_scopes_are_asked_for_together_with_those_before() {
    let provider = Provider::start().await;
    let (credential, nobody) = (credential(&provider, machine()), anybody());
    credential.ready(&nobody).await.expect("a token");
    assert_eq!(provider.asked()[0]["scope"], "read", "as the server's challenge names it");
    says(&credential, &nobody, 403, "Bearer error=\"insufficient_scope\", scope=\"write\"");
    assert!(credential.is_refused(&nobody));
    credential.ready(&nobody).await.expect("a token");
    assert_eq!(words(&provider.asked()[1]["scope"]), ["read", "write"]);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_while_the_old_one_is_used() {
    let provider = Provider::start().await;
    let (credential, nobody) = (credential(&provider, machine()), anybody());
    provider.life_seconds.store(30, Ordering::SeqCst);
    credential.ready(&nobody).await.expect("a token");
    {
        let slot = credential.slot(&nobody);
        let mut held = slot.held.lock();
        let short = Token::new("almost-over", Some(Duration::from_secs(3_600)), vec![]).expect("a token");
        held.token = Some(Arc::new(short.ending_in(Duration::from_secs(30))));
    }
    credential.ready(&nobody).await.expect("the old one is good");
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer almost-over"), "nobody waits for the new one");
    while shown(&credential, &nobody).as_deref() != Some("Bearer t0ken-1") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_secret_that_changed_counts_at_the_next_request() {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "one").expect("written");
    let read = path.clone();
    let secret = Secret::new(move || std::fs::read_to_string(&read).map_err(|error| error.to_string()));
    let (credential, nobody) = (credential(&provider, Kind::ClientCredentials { client: client(secret) }), anybody());
    credential.ready(&nobody).await.expect("a token");
    std::fs::write(&path, "two").expect("written");
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer");
    credential.ready(&nobody).await.expect("a token");
    let basic = provider.basic.lock().clone();
    assert_ne!(basic[0], basic[1]);
}

#[tokio::test]
async fn nothing_that_an_authorization_server_says_comes_out() {
    let provider = Provider::start().await;
    provider.echoes.store(true, Ordering::SeqCst);
    let subject = Subject { token: Secret::fixed("subj3ct"), token_type: "urn:t".to_owned() };
    let exchange = Kind::TokenExchange {
        client: client(Secret::fixed("s3cret")),
        audience: None,
        subject: Exchanged::Given(subject),
    };
    for kind in [machine(), exchange] {
        let credential = credential(&provider, kind);
        let error = credential.ready(&anybody()).await.expect_err("it refuses");
        let all = format!("{error} {error:?} {credential:?} {:?}", credential.standing());
        for secret in ["s3cret", "subj3ct", "czNjcmV0", "Basic"] {
            assert!(!all.contains(secret), "{all}");
        }
        assert!(all.contains("HTTP 400"), "{all}");
    }
}

#[tokio::test]
async fn a_token_endpoint_inside_is_not_asked_and_gets_no_secret() {
    let provider = Provider::start().await;
    for inside in ["http://169.254.169.254/token", "http://10.0.0.1/token", "http://[fd00:ec2::254]/token"] {
        *provider.token_endpoint.lock() = Some(inside.to_owned());
        let error = credential(&provider, machine()).ready(&anybody()).await.expect_err("it is inside");
        assert!(matches!(error, CredentialError::Untrusted { .. }) && error.to_string().contains("hosts"), "{error}");
    }
    assert!(provider.asked().is_empty());
}

#[tokio::test]
async fn an_authorization_server_that_names_another_issuer_is_not_used() {
    let provider = Provider::start().await;
    provider.lies.store(true, Ordering::SeqCst);
    let error = credential(&provider, machine()).ready(&anybody()).await.expect_err("it is another one");
    assert!(matches!(error, CredentialError::Untrusted { .. }), "{error}");
    assert!(provider.asked().is_empty());
}

#[tokio::test]
async fn each_principal_has_a_token_of_its_own_and_its_own_token_goes_to_the_token_endpoint_only() {
    let provider = Provider::start().await;
    let credential = exchanging(&provider);
    let (ann, _hers) = comes_in(&credential, "ann", "inbound-of-ann", &[]);
    let (bob, _his) = comes_in(&credential, "bob", "inbound-of-bob", &[]);
    credential.ready(&ann).await.expect("a token");
    credential.ready(&bob).await.expect("a token");
    credential.ready(&ann).await.expect("she has one");
    assert_eq!(shown(&credential, &ann).as_deref(), Some("Bearer t0ken-0"));
    assert_eq!(shown(&credential, &bob).as_deref(), Some("Bearer t0ken-1"));
    let asked = provider.asked();
    assert_eq!(
        asked.iter().map(|form| form["subject_token"].as_str()).collect::<Vec<_>>(),
        ["inbound-of-ann", "inbound-of-bob"]
    );
    assert_eq!(asked[0]["audience"], "web");
    let nobody = Asker::new("eve".to_owned());
    assert_eq!(credential.ready(&nobody).await, Err(CredentialError::NoSubject));
    assert_eq!(credential.header(&nobody), None, "and gets nobody else's");
}

#[tokio::test]
async fn a_callers_token_is_known_as_long_as_its_call_or_session_lives_and_no_longer() {
    let provider = Provider::start().await;
    let credential = exchanging(&provider);
    let (ann, hers) = comes_in(&credential, "ann", "inbound-of-ann", &[]);
    credential.ready(&ann).await.expect("a token");
    drop(hers);
    credential.tend();
    credential.ready(&ann).await.expect("what it was exchanged for is good for its own time");
    says(&credential, &ann, 200, "none");
    says(&credential, &ann, 401, "Bearer");
    assert_eq!(credential.ready(&ann).await, Err(CredentialError::NoSubject), "another needs her to be here");
    assert_eq!(provider.asked().len(), 1);
    credential.tend();
    assert_eq!(credential.0.slots.lock().len(), 0, "nothing of whoever is gone is kept");
    let (ann, hers) = comes_in(&credential, "ann", "inbound-of-ann", &[]);
    credential.ready(&ann).await.expect("she is back");
    assert!(!format!("{credential:?} {hers:?} {ann:?}").contains("inbound-of"));
}

#[tokio::test]
async fn what_an_exchange_gave_ends_even_where_nobody_says_when() {
    let provider = Provider::start().await;
    provider.life_seconds.store(usize::MAX, Ordering::SeqCst);
    let credential = exchanging(&provider);
    let (ann, hers) = comes_in(&credential, "ann", "inbound-of-ann", &[]);
    credential.ready(&ann).await.expect("a token");
    let slot = credential.slot(&ann);
    let token = slot.held.lock().token.take().expect("a token");
    let token = Arc::into_inner(token).expect("nobody else has it");
    assert!(token.lives_at_most(Duration::from_secs(300)), "it looks at the caller again every few minutes");
    slot.held.lock().token = Some(Arc::new(token.ending_in(Duration::ZERO)));
    drop((slot, hers));
    credential.tend();
    assert_eq!(credential.0.slots.lock().len(), 0);
}

#[tokio::test]
async fn a_token_of_another_reach_is_exchanged_anew() {
    let provider = Provider::start().await;
    let credential = exchanging(&provider);
    let (ann, _one) = comes_in(&credential, "ann", "inbound-1", &["read", "write"]);
    credential.ready(&ann).await.expect("a token");
    let (_, _same) = comes_in(&credential, "ann", "inbound-2", &["write", "read"]);
    credential.ready(&ann).await.expect("a token");
    assert_eq!(provider.asked().len(), 1, "a token that was renewed reaches as far as the one before");
    let (_, _less) = comes_in(&credential, "ann", "inbound-3", &["read"]);
    assert_eq!(shown(&credential, &ann), None, "what was exchanged for more is not used for less");
    credential.ready(&ann).await.expect("a token");
    assert_eq!(provider.asked()[1]["subject_token"], "inbound-3");
}

#[tokio::test]
async fn a_refused_exchange_is_not_repeated_with_the_same_token_but_with_another() {
    let provider = Provider::start().await;
    let credential = exchanging(&provider);
    provider.echoes.store(true, Ordering::SeqCst);
    let (ann, _one) = comes_in(&credential, "ann", "inbound-1", &[]);
    for _ in 0..3 {
        let (_, _again) = comes_in(&credential, "ann", "inbound-1", &[]);
        let error = credential.ready(&ann).await.expect_err("it refuses");
        assert!(matches!(error, CredentialError::Refused { .. }) && !error.to_string().contains("inbound"), "{error}");
    }
    assert_eq!(provider.asked().len(), 1);
    provider.echoes.store(false, Ordering::SeqCst);
    let (_, _other) = comes_in(&credential, "ann", "inbound-2", &[]);
    credential.ready(&ann).await.expect("this one is good");
}

#[tokio::test]
async fn no_server_chooses_who_is_shown_a_callers_token() {
    let provider = Provider::start().await;
    let subject = Exchanged::Callers { token_type: "t".to_owned() };
    let kind = Kind::TokenExchange { client: client(Secret::fixed("s")), audience: None, subject };
    let url = provider.url("/mcp");
    let error = Credentials::new([("web", url.as_str(), options(kind))], &environment(None)).expect_err("refused");
    assert!(error.to_string().contains("token_endpoint or issuer"), "{error}");
}

#[tokio::test]
async fn principals_are_bounded_and_those_who_are_here_stay() {
    let provider = Provider::start().await;
    let credential = exchanging(&provider);
    let (ann, _hers) = comes_in(&credential, "ann", "inbound-of-ann", &[]);
    for count in 0..PRINCIPALS_MAX + 50 {
        assert!(credential.ready(&Asker::new(format!("p{count}"))).await.is_err());
    }
    assert_eq!(credential.0.slots.lock().len(), PRINCIPALS_MAX);
    credential.ready(&ann).await.expect("hers is still known");
}

#[tokio::test]
async fn an_identity_provider_says_yes_and_its_word_is_the_grant() {
    let provider = Provider::start().await;
    let subject = Subject {
        token: Secret::fixed("id-token"),
        token_type: "urn:ietf:params:oauth:token-type:id_token".to_owned(),
    };
    let kind = Kind::Enterprise {
        client: client(Secret::fixed("s")),
        provider: Url::parse(&provider.url("/token")).expect("a URL"),
        provider_client: Client { id: "there".to_owned(), proof: ClientProof::None },
        subject: Exchanged::Given(subject),
    };
    let (credential, nobody) = (credential(&provider, kind), anybody());
    credential.ready(&nobody).await.expect("a token");
    let asked = provider.asked();
    assert_eq!((asked[0]["audience"].as_str(), asked[0]["client_id"].as_str()), (provider.url("").as_str(), "there"));
    assert_eq!(asked[1]["assertion"], "t0ken-0");
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer t0ken-1"));
}

#[tokio::test]
async fn a_person_logs_in_once_and_the_login_outlives_a_restart_sealed() {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let all = credentials(&provider, options(person()), Some(folder.path()));
    let (credential, nobody) = (all.of("web").expect("it is there").clone(), anybody());
    let error = credential.ready(&nobody).await.expect_err("nobody has logged in");
    assert!(error.wants_login() && error.to_string().contains("cairn login web"), "{error}");
    let login = credential.begin_login().await.expect("a login");
    assert_eq!(query(&login.url, "code_challenge_method"), "S256");
    assert_eq!(query(&login.url, "resource"), provider.url("/mcp"));
    assert_eq!(query(&login.url, "scope"), "read");
    assert_eq!(credential.login_state(&login.id), LoginState::Open);
    let finished = all.finish(callback(&login, Some(provider.url("")))).await;
    assert_eq!(finished.as_deref(), Ok("web"));
    assert_eq!(credential.login_state(&login.id), LoginState::Done);
    credential.ready(&nobody).await.expect("a token");
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer");
    credential.ready(&nobody).await.expect("renewed");
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer t0ken-1"));
    // Another process takes up the login, and the refresh token that came last.
    let again = credentials(&provider, options(person()), Some(folder.path()));
    let again = again.of("web").expect("it is there");
    again.ready(&nobody).await.expect("the kept token");
    assert_eq!(shown(again, &nobody).as_deref(), Some("Bearer t0ken-1"));
    says(again, &nobody, 200, "none");
    says(again, &nobody, 401, "Bearer");
    again.ready(&nobody).await.expect("renewed");
    assert_eq!(grants(&provider.asked()), ["authorization_code", "refresh_token", "refresh_token"]);
    assert_eq!(provider.registered.load(Ordering::SeqCst), 1);
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("t0ken") && !text.contains("r3fresh") && !text.contains("client-0"));
    }
    // The first process still holds the refresh token that is spent now: its login has ended, and it says so.
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer");
    assert!(credential.ready(&nobody).await.expect_err("it is spent").wants_login());
}

#[tokio::test]
async fn an_answer_that_belongs_to_no_login_or_comes_from_another_issuer_gives_nothing() {
    let provider = Provider::start().await;
    let all = credentials(&provider, options(person()), None);
    let credential = all.of("web").expect("it is there").clone();
    let login = credential.begin_login().await.expect("a login");
    let forged = Callback { state: "guessed".to_owned(), code: Some("c".to_owned()), issuer: None };
    assert!(all.finish(forged).await.is_err());
    for issuer in [Some("https://attacker.example".to_owned()), None] {
        let login = credential.begin_login().await.expect("a login");
        let error = all.finish(callback(&login, issuer)).await.expect_err("mixed up");
        assert!(matches!(error, CredentialError::Untrusted { .. }), "{error}");
    }
    assert!(provider.asked().is_empty(), "no code went anywhere");
    all.finish(callback(&login, Some(provider.url("")))).await.expect("the real one still counts");
    let twice = all.finish(callback(&login, Some(provider.url("")))).await;
    assert!(twice.is_err(), "a state is good once");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn a_login_that_does_not_reach_far_enough_is_begun_again_with_more_scopes() {
    let provider = Provider::start().await;
    let all = credentials(&provider, options(person()), None);
    let (credential, nobody) = (all.of("web").expect("it is there").clone(), anybody());
    let login = credential.begin_login().await.expect("a login");
    all.finish(callback(&login, Some(provider.url("")))).await.expect("logged in");
    says(&credential, &nobody, 403, "Bearer error=\"insufficient_scope\", scope=\"write\"");
    let error = credential.ready(&nobody).await.expect_err("a person must say yes to more");
    assert_eq!(error, CredentialError::ScopesRequired { server: "web".to_owned() });
    let login = credential.begin_login().await.expect("a login");
    assert_eq!(words(&query(&login.url, "scope")), ["read", "write"]);
    all.finish(callback(&login, Some(provider.url("")))).await.expect("logged in");
    credential.ready(&nobody).await.expect("a token");
    assert_eq!(provider.registered.load(Ordering::SeqCst), 1, "it was registered already");
}

#[tokio::test]
async fn nothing_of_one_authorization_server_goes_to_the_next() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let all = credentials(&first, options(person()), None);
    let (credential, nobody) = (all.of("web").expect("it is there").clone(), anybody());
    let login = credential.begin_login().await.expect("a login");
    all.finish(callback(&login, Some(first.url("")))).await.expect("logged in");
    // The server moves to another authorization server, and refuses what the first one gave.
    *first.moved.lock() = Some(second.url(""));
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer");
    assert!(credential.ready(&nobody).await.expect_err("its login has ended").wants_login());
    assert!(second.asked().is_empty(), "no refresh token went there");
    let login = credential.begin_login().await.expect("a login");
    assert!(login.url.starts_with(&second.url("/authorize")));
    assert_eq!(second.registered.load(Ordering::SeqCst), 1, "a client of the first is none of the second");
}

#[tokio::test]
async fn a_configured_token_that_changed_is_used_at_once_where_the_old_one_is_refused() {
    let provider = Provider::start().await;
    let value = Arc::new(Mutex::new("one".to_owned()));
    let read = value.clone();
    let token = Secret::new(move || Ok(read.lock().clone()));
    let (credential, nobody) = (credential(&provider, Kind::Bearer { token }), anybody());
    credential.ready(&nobody).await.expect("a token");
    says(&credential, &nobody, 200, "none");
    "two".clone_into(&mut value.lock());
    says(&credential, &nobody, 401, "Bearer");
    credential.ready(&nobody).await.expect("the new one");
    assert_eq!(shown(&credential, &nobody).as_deref(), Some("Bearer two"));
    // The same one is not shown again before a pause.
    says(&credential, &nobody, 200, "none");
    says(&credential, &nobody, 401, "Bearer");
    assert!(credential.ready(&nobody).await.is_err());
    assert_eq!(credential.header(&nobody), None);
}
