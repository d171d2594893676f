//! One node of Apache Kafka from Maven Central, on free ports.
//!
//! Who calls it: the benchmark, to measure beside it; the suites that join Cairn with it. It guarantees an empty node each
//! time, with Apache Kafka's defaults, and that what it started ends with whoever holds it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::places;
use crate::process::{Running, quiet, version};

/// How long it may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long fetching may take.
const SET_UP_LIMIT: Duration = Duration::from_secs(3600);
/// Any cluster id will do.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// Fetches it, for one that is to start in the folder of that name.
pub(crate) fn fetch(name: &str) -> anyhow::Result<()> {
    classes(&places::cache(name)?).map(drop)
}

/// Fetches it; gives its class path.
fn classes(folder: &Path) -> anyhow::Result<String> {
    version("java", "-version").context("java is not installed")?;
    version("mvn", "-v").context("maven is not installed")?;
    let classpath = folder.join("classpath");
    let mut fetch = Command::new("mvn");
    fetch.args(["-q", "-B", "-f"]).arg(places::root().join("clients/kafka-broker/pom.xml"));
    fetch.arg("dependency:build-classpath").arg(format!("-Dmdep.outputFile={}", classpath.display()));
    quiet(&mut fetch, SET_UP_LIMIT)?;
    Ok(std::fs::read_to_string(classpath)?.trim().to_owned())
}

/// One of its jars, by how its name begins.
pub(crate) fn jar(name: &str, begins: &str) -> anyhow::Result<String> {
    let classpath = classes(&places::cache(name)?)?;
    let is_it = |jar: &&str| Path::new(jar).file_name().is_some_and(|file| file.to_string_lossy().starts_with(begins));
    let found = classpath.split(':').find(is_it).map(str::to_owned);
    found.with_context(|| format!("Apache Kafka has no jar `{begins}*`"))
}

/// Starts one over an empty folder of that name in the cache; it acknowledges what the page cache holds. Gives its address.
pub(crate) fn kafka(name: &str, heap: &str) -> anyhow::Result<(Running, String)> {
    kafka_with(name, heap, "")
}

/// Where one of that name keeps its data.
pub(crate) fn data(name: &str) -> anyhow::Result<PathBuf> {
    Ok(places::cache(name)?.join("data"))
}

/// The same with more lines of `server.properties`.
pub(crate) fn kafka_with(name: &str, heap: &str, more: &str) -> anyhow::Result<(Running, String)> {
    let folder: PathBuf = places::cache(name)?;
    let _ = std::fs::remove_dir_all(folder.join("data"));
    let classpath = classes(&folder)?;
    let (address, controller) = (free_address()?, free_address()?);
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\nadvertised.listeners=PLAINTEXT://{address}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n{more}",
        folder.join("data").display()
    );
    std::fs::write(folder.join("server.properties"), properties)?;
    let java = |class: &str, arguments: &[&str]| {
        let mut command = Command::new("java");
        command.arg(format!("-Xms{heap}")).arg(format!("-Xmx{heap}"));
        command.args(["-cp", &classpath, class]).args(arguments).current_dir(&folder);
        command
    };
    quiet(
        &mut java("kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", "server.properties"]),
        SET_UP_LIMIT,
    )?;
    let log = folder.join("server.log");
    let broker = Running::start_into(&mut java("kafka.Kafka", &["server.properties"]), &log)?;
    listening(broker, &address, &log)
}

/// Waits until a program listens.
pub(crate) fn listening(mut peer: Running, address: &str, log: &Path) -> anyhow::Result<(Running, String)> {
    let deadline = Instant::now() + READY_LIMIT;
    while TcpStream::connect(address).is_err() {
        if peer.has_ended() || Instant::now() > deadline {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("it does not listen on {address}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok((peer, address.to_owned()))
}

/// An address that is free now.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
