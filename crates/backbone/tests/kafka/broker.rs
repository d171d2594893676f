//! A real Apache Kafka broker for the tests of this folder: KRaft, one node, free loopback ports, a folder that goes with it.
//!
//! Its jars come from Maven Central by `clients/kafka-broker/pom.xml`. Without Java or Maven [`Broker::start`] says so and gives
//! `None`; where `CI` is set that is a failure. It must never outlive its test.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::net::TcpStream;

const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// What a secured broker's one user proves.
#[allow(dead_code, reason = "not every test that uses this file starts a secured broker")]
pub(crate) const SECRET: &str = "a secret of the cluster's only user";

pub(crate) struct Broker {
    folder: tempfile::TempDir,
    classpath: String,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Formats a storage folder and starts a broker on it.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_on("PLAINTEXT", |_| String::new()).await
    }

    /// The same, over TLS with a certificate of its own, for the user `cairn` by SASL PLAIN.
    #[allow(dead_code, reason = "not every test that uses this file starts a secured broker")]
    pub(crate) async fn start_secured() -> Option<Self> {
        let settings = |folder: &Path| {
            certificate(folder);
            format!(
                "ssl.keystore.type=PKCS12\nssl.keystore.location={}\nssl.keystore.password=changeit\n\
                 ssl.client.auth=none\nsasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
                 ssl.truststore.type=PEM\nssl.truststore.location={}\n\
                 listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
                 required username=\"cairn\" password=\"{SECRET}\" user_cairn=\"{SECRET}\";\n",
                folder.join("broker.p12").display(),
                folder.join("ca.pem").display(),
            )
        };
        Self::start_on("SASL_SSL", settings).await
    }

    /// The certificate that a secured broker shows.
    #[allow(dead_code, reason = "not every test that uses this file starts a secured broker")]
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    async fn start_on(protocol: &str, settings: impl FnOnce(&Path) -> String) -> Option<Self> {
        static CLASSPATH: OnceLock<Result<String, String>> = OnceLock::new();
        let classpath = match CLASSPATH.get_or_init(classpath) {
            Ok(classpath) => classpath.clone(),
            Err(reason) => {
                assert!(std::env::var_os("CI").is_none(), "no Kafka broker in CI: {reason}");
                eprintln!("SKIPPED: no Kafka broker for this test: {reason}");
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let (port, controller) = free_ports();
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={protocol}://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map={protocol}:{protocol},CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name={protocol}\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\nauto.create.topics.enable=false\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             log.cleaner.dedupe.buffer.size=4194304\nlog.cleaner.backoff.ms=500\nnum.network.threads=2\nnum.io.threads=2\n{}",
            folder.path().join("data").display(),
            settings(folder.path())
        );
        fs::write(folder.path().join("server.properties"), properties).expect("written");
        let mut broker = Self { folder, classpath, port, child: None };
        let formatted = broker
            .java("format.log", "kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", "server.properties"])
            .status()
            .expect("java runs");
        assert!(formatted.success(), "the storage could not be formatted: {}", broker.log("format.log"));
        broker.resume().await;
        Some(broker)
    }

    /// A port for a server of a test that is stopped and started again.
    #[allow(dead_code, reason = "not every test that uses this file starts such a server")]
    pub(crate) fn free_port() -> u16 {
        free_ports().0
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the broker; its folder stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same folder and ports.
    pub(crate) async fn resume(&mut self) {
        let child = self.java("server.log", "kafka.Kafka", &["server.properties"]).spawn().expect("java runs");
        self.child = Some(child);
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let exited = self.child.as_mut().and_then(|child| child.try_wait().expect("a child of ours"));
            assert!(exited.is_none(), "the broker ended: {}", self.log("server.log"));
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
        }
        panic!("the broker did not start: {}", self.log("server.log"));
    }

    fn java(&self, log: &str, class: &str, arguments: &[&str]) -> Command {
        let log = File::create(self.folder.path().join(log)).expect("a log file");
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx384m",
                "-Xms128m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                &self.classpath,
                class,
            ])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        command
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A key for 127.0.0.1 in a keystore, and its certificate beside it.
fn certificate(folder: &Path) {
    let keytool = |arguments: &[&str]| {
        let output =
            Command::new("keytool").args(arguments).current_dir(folder).output().expect("keytool comes with Java");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let store = ["-keystore", "broker.p12", "-storetype", "PKCS12", "-storepass", "changeit", "-alias", "broker"];
    let subject = ["-keyalg", "EC", "-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1", "-validity", "3650"];
    keytool(&[&["-genkeypair"][..], &store, &subject].concat());
    keytool(&[&["-exportcert", "-rfc", "-file", "ca.pem"][..], &store].concat());
}

/// The server's jars, fetched once.
fn classpath() -> Result<String, String> {
    let tool = |name: &str| {
        let found = Command::new(name).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.ok().filter(|status| status.success()).map(|_| ()).ok_or_else(|| format!("{name} is not installed"))
    };
    tool("java")?;
    tool("mvn")?;
    let pom: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/kafka-broker/pom.xml");
    let out = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .arg("dependency:build-classpath")
        .arg(format!("-Dmdep.outputFile={}", out.path().display()))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("mvn could not fetch the jars: {}", String::from_utf8_lossy(&output.stdout)));
    }
    fs::read_to_string(out.path()).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
}

/// Two ports that nobody listens on, below those that the system hands out by itself: a broker that is stopped and started
/// again must find its own still free.
fn free_ports() -> (u16, u16) {
    let entropy = cairn_clock::Entropy::system();
    let mut free = (0..1_000).map(|_| 20_000 + (entropy.next_u64() % 12_000) as u16);
    let mut port = || free.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port");
    (port(), port())
}
