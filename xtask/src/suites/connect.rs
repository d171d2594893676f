//! Kafka Connect, standalone: a file's lines to a topic and from there to another file, with Apache Kafka's own connectors.
//!
//! Who calls it: the list of suites. The worker is ended and started again in between. It guarantees that what it starts ends
//! with it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::outcome::{Case, waited};
use super::{Run, Setting, Suite, tools};
use crate::apache::free_address;
use crate::places;
use crate::process::{Running, quiet};

pub(super) const SUITE: Suite = Suite {
    name: "Kafka Connect, standalone",
    version: super::KAFKA,
    command: "connect-standalone.sh worker.properties source.properties sink.properties",
    in_slice: false,
    install,
};

const CLASS: &str = "org.apache.kafka.connect.cli.ConnectStandalone";
const LINES: usize = 3_000;
/// How long the lines may take from file to file.
const THROUGH_LIMIT: Duration = Duration::from_secs(90);
const END_LIMIT: Duration = Duration::from_secs(30);

fn install() -> anyhow::Result<Run> {
    let classes = tools::classes()?;
    Ok(Box::new(move |setting| run(setting, &classes)))
}

fn run(setting: &Setting, classes: &str) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("connect")?;
    let folder = places::cache("suites")?.join("connect");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let stage = Stage { classes, broker: &broker.kafka, folder: &folder };
    let cases = stage.cases()?;
    super::keep("connect", &std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
    broker.end()?;
    Ok(cases)
}

struct Stage<'a> {
    classes: &'a str,
    broker: &'a str,
    folder: &'a Path,
}

impl Stage<'_> {
    fn cases(&self) -> anyhow::Result<Vec<Case>> {
        self.add_lines(0)?;
        let rest = self.configure()?;
        // One partition: the order of the lines is the order of the records.
        let mut create = tools::java(self.classes, "org.apache.kafka.tools.TopicCommand");
        create.args(["--bootstrap-server", self.broker, "--create", "--topic", "lines", "--partitions", "1"]);
        quiet(&mut create, THROUGH_LIMIT)?;
        let worker = self.start()?;
        let mut cases = vec![
            Case::of("FileStreamSource and FileStreamSink: every line, in order", self.all_through(LINES)),
            Case::of("the REST port says that both run", Self::both_run(&rest)),
            Case::of("the worker ends when it is asked to", Self::end(worker)),
        ];
        self.add_lines(LINES)?;
        let worker = self.start()?;
        cases.push(Case::of("after a restart it goes on where it was, nothing twice", self.all_through(2 * LINES)));
        Self::end(worker)?;
        Ok(cases)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn add_lines(&self, from: usize) -> anyhow::Result<()> {
        let mut text = std::fs::read_to_string(self.path("in")).unwrap_or_default();
        for number in from..from + LINES {
            writeln!(text, "line {number}")?;
        }
        Ok(std::fs::write(self.path("in"), text)?)
    }

    /// Writes the three files; gives the address of the REST port.
    fn configure(&self) -> anyhow::Result<String> {
        let rest = free_address()?;
        let text = "org.apache.kafka.connect.storage.StringConverter";
        let worker = format!(
            "bootstrap.servers={}\nkey.converter={text}\nvalue.converter={text}\noffset.flush.interval.ms=500\n\
             offset.storage.file.filename={}\nlisteners=http://{rest}\nplugin.discovery=service_load\n",
            self.broker,
            self.path("offsets").display()
        );
        let connector = |name: &str, class: &str, file: &str, topic: &str| {
            let file = self.path(file);
            format!("name={name}\nconnector.class={class}\ntasks.max=1\nfile={}\n{topic}=lines\n", file.display())
        };
        std::fs::write(self.path("worker"), worker)?;
        std::fs::write(self.path("source"), connector("source", "FileStreamSource", "in", "topic"))?;
        std::fs::write(self.path("sink"), connector("sink", "FileStreamSink", "out", "topics"))?;
        Ok(rest)
    }

    fn start(&self) -> anyhow::Result<Running> {
        let mut worker = tools::java(self.classes, CLASS);
        worker.args(["worker", "source", "sink"]).current_dir(self.folder);
        Running::start_into(&mut worker, &self.path("log"))
    }

    fn end(mut worker: Running) -> anyhow::Result<()> {
        // Java's code after SIGTERM is 143, however well it ended: what counts is that it did.
        worker.end(END_LIMIT);
        if worker.has_ended() { Ok(()) } else { bail!("it does not end") }
    }

    fn all_through(&self, count: usize) -> anyhow::Result<()> {
        let out = || std::fs::read_to_string(self.path("out")).unwrap_or_default();
        waited("the last line", THROUGH_LIMIT, || (out().lines().count() >= count).then_some(()))?;
        let (wanted, got) = (std::fs::read_to_string(self.path("in"))?, out());
        if wanted == got {
            return Ok(());
        }
        let at = wanted.lines().zip(got.lines()).position(|(wanted, got)| wanted != got);
        bail!("the files differ, first in line {at:?}; {} lines of {count} came", got.lines().count())
    }

    fn both_run(rest: &str) -> anyhow::Result<()> {
        for name in ["source", "sink"] {
            let status = get(rest, &format!("/connectors/{name}/status"))?;
            if status.matches("\"RUNNING\"").count() < 2 {
                bail!("{name}: {status}");
            }
        }
        Ok(())
    }
}

/// Reads a page over plain HTTP.
pub(super) fn get(address: &str, path: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    let page = String::from_utf8_lossy(&page).into_owned();
    page.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).context("an answer without a body")
}
