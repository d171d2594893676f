//! TLS of the admin address and of the Kafka port, from outside: who comes in, what is refused, and certificates that are
//! replaced while others use them. The Kafka clients are librdkafka's, with OpenSSL.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rdkafka::{
    ClientConfig,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use rustls::{ClientConnection, RootCertStore, StreamOwned, pki_types::pem::PemObject};
use serde_json::{Value, json};

use crate::{
    bounds::configured,
    support::{Agent, LONG, TOKEN, Up, answer, cairn, http, run, text, wait_for},
};

/// Somebody who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `<name>.pem` and `<name>.key`, good for this machine.
    pub(crate) fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        fs::write(folder.join(format!("{name}.pem")), made.pem()).expect("written");
    }

    pub(crate) fn publish(&self, path: PathBuf) -> PathBuf {
        fs::write(&path, &self.pem).expect("written");
        path
    }
}

pub(crate) fn tls_config(believed: &Path, own: Option<(&Path, &Path)>) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_file_iter(believed).expect("a file") {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = rustls::pki_types::CertificateDer::pem_file_iter(certificate).expect("a file");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    })
}

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn secure(address: &str, config: &Arc<rustls::ClientConfig>) -> Secure {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a limit");
    let name = "127.0.0.1".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a session"), stream)
}

/// `GET /healthz` on an open connection: the status line.
fn health(stream: &mut Secure) -> std::io::Result<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")?;
    let (mut read, mut some) = (Vec::new(), [0; 1024]);
    while !text(&read).contains("\r\n\r\n{") || !read.ends_with(b"}") {
        match stream.read(&mut some)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => read.extend_from_slice(&some[..more]),
        }
    }
    Ok(text(&read).lines().next().unwrap_or_default().to_owned())
}

fn kafka<C: FromClientConfig>(address: &str, properties: &[(&str, &str)]) -> C {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("log_level", "0");
    properties.iter().for_each(|(name, value)| {
        config.set(*name, *value);
    });
    config.create().expect("a client")
}

fn topics(address: &str, properties: &[(&str, &str)], within: Duration) -> Option<usize> {
    let consumer: BaseConsumer = kafka(address, properties);
    consumer.fetch_metadata(None, within).ok().map(|found| found.topics().len())
}

fn endpoints(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("endpoints.json")).expect("announced")).expect("JSON")
}

const BOTH: &str = "[admin.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n[kafka.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";

#[test]
fn listeners_with_tls_serve_whom_they_should_and_nobody_in_the_clear() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, data) = (folder.path(), folder.path().join("data"));
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    authority.issue(here, "server");
    let (ca, other) = (authority.publish(here.join("ca.pem")), stranger.publish(here.join("other.pem")));
    let evidence = "[evidence]\nrecords_max = 1\ninterval_ms = 100\n";
    let config = configured(here, "", &format!("{BOTH}[commands]\nauthorities = \"ca.pem\"\n{evidence}"));
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let announced = endpoints(&data);
    assert_eq!(announced["admin_url"], format!("https://{}", up.admin));
    assert_eq!(announced["gateway_url"], format!("http://{}", up.gateway));
    assert_eq!(announced["kafka_protocol"], "SSL");
    assert!(up.lines.iter().any(|line| line.contains(&format!("admin https://{}", up.admin))), "{:?}", up.lines);

    // The admin address.
    assert_eq!(health(&mut secure(&up.admin, &tls_config(&ca, None))).expect("let in"), "HTTP/1.1 200 OK");
    let error = health(&mut secure(&up.admin, &tls_config(&other, None))).expect_err("whose certificate is that?");
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = http(&up.admin, "GET /healthz", &[], "");
    assert_eq!(plain.status, 400, "{plain:?}");
    assert!(plain.body.contains("https://"), "{plain:?}");

    // Commands.
    let approve = |arguments: &[&str]| {
        let output = run(cairn().arg("approve").args(arguments).env("CAIRN_OPERATOR_TOKEN", TOKEN));
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let (at, url) = (data.display().to_string(), format!("https://{}", up.admin));
    let (ca_file, elsewhere) = (ca.display().to_string(), here.join("elsewhere").display().to_string());
    let other_file = other.display().to_string();
    let nothing = (Some(0), "nothing waits for approval\n".to_owned());
    assert_eq!(approve(&["--data", &at]), nothing, "as it announces itself");
    assert_eq!(approve(&["--data", &at, "--admin", &up.admin]), nothing, "the same address");
    assert_eq!(approve(&["--data", &elsewhere, "--admin", &url, "--ca", &ca_file]), nothing, "from elsewhere");
    for whose in [&["--ca", other_file.as_str()][..], &[]] {
        let (code, said) = approve(&[&["--data", &elsewhere, "--admin", &url][..], whose].concat());
        assert!(code == Some(1) && said.contains("--ca") && said.contains("certificate"), "{code:?} {said}");
    }
    let (code, said) = approve(&["--data", &elsewhere, "--admin", &up.admin]);
    assert!(code == Some(1) && said.contains("https://"), "{code:?} {said}");

    // The Kafka port.
    let ssl = [("security.protocol", "ssl"), ("ssl.ca.location", ca_file.as_str())];
    assert!(topics(&up.kafka, &ssl, LONG).expect("let in") > 5);
    let short = Duration::from_secs(2);
    assert_eq!(topics(&up.kafka, &[], short), None, "in the clear");
    let wrong = [("security.protocol", "ssl"), ("ssl.ca.location", other_file.as_str())];
    assert_eq!(topics(&up.kafka, &wrong, short), None, "whose certificate is that?");
    let producer: BaseProducer = kafka(&up.kafka, &ssl);
    for n in 0..2_000 {
        let value = format!("{n}-{}", "x".repeat(n % 3_000));
        producer.send(BaseRecord::<(), _>::to("plain").payload(&value)).expect("queued");
    }
    producer.flush(LONG).expect("all of it is taken");
    let consumer: BaseConsumer = kafka(&up.kafka, &ssl);
    let metadata = consumer.fetch_metadata(Some("plain"), LONG).expect("it answers");
    let ends = metadata.topics()[0].partitions().iter().map(|partition| {
        let (low, high) = consumer.fetch_watermarks("plain", partition.id(), LONG).expect("it answers");
        high - low
    });
    assert_eq!(ends.sum::<i64>(), 2_000);

    // What happens is recorded, read back, signed and verified, all of it through these listeners.
    let agent = Agent::connect_in("workflow-tls", &up.gateway, "orders");
    assert!(agent.call("get_order", &json!({ "order_id": "order-1" })).get("result").is_some());
    let told = run(cairn().args(["trail", "workflow-tls", "--data", &at]));
    assert!(told.status.success() && text(&told.stdout).contains("get_order"), "{told:?}");
    let told = wait_for("checkpoints", || {
        let told = run(cairn().args(["verify", "--json", "--data", &at]));
        let report: Value = serde_json::from_slice(&told.stdout).ok()?;
        (told.status.success() && report["ok"] == true && text(&told.stdout).contains("\"checkpoint")).then_some(report)
    });
    assert_eq!(told["findings"], json!([]));
    let seen = fs::read_to_string(data.join("evidence/topics.json")).expect("topics are known");
    assert!(!seen.contains("seen-"), "the ids of topics are not made up: {seen}");
    up.end();
}

#[test]
fn certificates_are_replaced_under_load_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, data) = (folder.path(), folder.path().join("data"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    old.issue(here, "server");
    let (old_ca, new_ca) = (old.publish(here.join("old.pem")), new.publish(here.join("new.pem")));
    let both = here.join("both.pem");
    fs::write(&both, [old.pem.as_str(), new.pem.as_str()].concat()).expect("written");
    let config = configured(here, "", BOTH);
    let up = Up::start(&data, &["--config", &config.display().to_string()]);

    let mut kept = secure(&up.admin, &tls_config(&both, None));
    health(&mut kept).expect("let in");
    let both_file = both.display().to_string();
    let ssl = [("security.protocol", "ssl"), ("ssl.ca.location", both_file.as_str())];
    let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (ends, asked, config) = (ends.clone(), asked.clone(), tls_config(&both, None));
            let admin = up.admin.clone();
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    assert_eq!(health(&mut secure(&admin, &config)).expect("let in"), "HTTP/1.1 200 OK");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let lets_in = |ca: &Path| health(&mut secure(&up.admin, &tls_config(ca, None))).is_ok();
    assert!(lets_in(&old_ca) && !lets_in(&new_ca));

    // A bad one first: what was there stays.
    let good = fs::read(here.join("server.pem")).expect("there");
    fs::write(here.join("server.pem"), "no certificate").expect("written");
    wait_for("words about the bad one", || up.errors().contains("the old ones stay").then_some(()));
    assert!(lets_in(&old_ca) && !up.errors().contains("PRIVATE KEY"));
    fs::write(here.join("server.pem"), good).expect("written");

    new.issue(here, "server");
    wait_for("the new ones at the admin address", || (lets_in(&new_ca) && !lets_in(&old_ca)).then_some(()));
    let new_file = new_ca.display().to_string();
    let newer = [("security.protocol", "ssl"), ("ssl.ca.location", new_file.as_str())];
    wait_for("the new ones at the Kafka port", || topics(&up.kafka, &newer, Duration::from_secs(3)));
    let before = asked.load(Ordering::Relaxed);
    wait_for("more requests", || (asked.load(Ordering::Relaxed) > before + 3).then_some(()));
    health(&mut kept).expect("a connection from before lives on");
    assert!(topics(&up.kafka, &ssl, LONG).is_some());
    ends.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().expect("every request was answered"));
    up.end();
}

#[test]
fn client_certificates_are_required_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (here, data) = (folder.path(), folder.path().join("data"));
    let (ours, clients, stranger) = (Authority::new("ours"), Authority::new("clients"), Authority::new("a stranger's"));
    ours.issue(here, "server");
    clients.issue(here, "client");
    stranger.issue(here, "strange");
    let ca = ours.publish(here.join("ca.pem"));
    clients.publish(here.join("clients.pem"));
    let wanted = "client_authorities = \"clients.pem\"\nclients_required = true\n";
    let own = "[commands]\nauthorities = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n";
    let sections = BOTH.replace("key = \"server.key\"\n", &format!("key = \"server.key\"\n{wanted}"));
    let config = configured(here, "", &format!("{sections}{own}"));
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let file = |name: &str| here.join(name).display().to_string();
    let shows = |name: &str| {
        let (certificate, key) = (here.join(format!("{name}.pem")), here.join(format!("{name}.key")));
        health(&mut secure(&up.admin, &tls_config(&ca, Some((&certificate, &key)))))
    };
    assert!(shows("client").is_ok());
    assert!(shows("strange").is_err() && health(&mut secure(&up.admin, &tls_config(&ca, None))).is_err());
    let ca_file = file("ca.pem");
    let properties = |name: &str| [file(&format!("{name}.pem")), file(&format!("{name}.key"))];
    let asks = |name: Option<&str>, within: Duration| {
        let files = name.map(properties).unwrap_or_default();
        let mut all = vec![("security.protocol", "ssl"), ("ssl.ca.location", ca_file.as_str())];
        if name.is_some() {
            all.extend([("ssl.certificate.location", files[0].as_str()), ("ssl.key.location", files[1].as_str())]);
        }
        topics(&up.kafka, &all, within)
    };
    assert!(asks(Some("client"), LONG).is_some());
    let short = Duration::from_secs(2);
    assert!(asks(Some("strange"), short).is_none() && asks(None, short).is_none());
    let output = run(cairn().args(["approve", "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let agent = Agent::connect_in("workflow-mtls", &up.gateway, "orders");
    assert!(answer(agent.ask("get_order", &json!({ "order_id": "order-1" }))).json().get("result").is_some());
    let told = run(cairn().args(["trail", "workflow-mtls", "--data"]).arg(&data));
    assert!(told.status.success() && text(&told.stdout).contains("get_order"), "{told:?}");
    up.end();
}

#[test]
fn what_other_machines_reach_is_refused_without_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    for section in ["admin", "kafka"] {
        let data = folder.path().join(section);
        let mut words = vec!["up", "--gateway", "127.0.0.1:0"];
        for listener in ["admin", "kafka"] {
            let address = if listener == section { "0.0.0.0:0" } else { "127.0.0.1:0" };
            words.extend([if listener == "admin" { "--admin" } else { "--kafka" }, address]);
        }
        let output = run(cairn().args(&words).arg("--data").arg(&data));
        let says = text(&output.stderr);
        assert!(!output.status.success(), "{section} started");
        assert!(says.contains(&format!("[{section}.tls]")) && says.contains("allow_plaintext = true"), "{says}");
        fs::write(data.join("cairn.toml"), format!("[{section}]\nallow_plaintext = true\n")).expect("written");
        let up = Up::spawn(cairn().args(&words).arg("--data").arg(&data), &data);
        up.end();
    }
}
