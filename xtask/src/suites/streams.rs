//! Kafka Streams with exactly-once semantics: an application that counts, killed while it does.
//!
//! Who calls it: the list of suites. The application is `clients/suites/java`'s `ExactlyOnce`, on Apache Kafka's library. It
//! guarantees that what it starts ends with it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::outcome::Case;
use super::{Run, Setting, Suite, tools};
use crate::places;
use crate::process::{Running, quiet};

pub(super) const SUITE: Suite = Suite {
    name: "Kafka Streams, exactly once",
    version: super::KAFKA,
    command: "java io.cairn.clients.ExactlyOnce run BROKER STATE, killed twice with kill -9",
    in_slice: false,
    install,
};

const CLASS: &str = "io.cairn.clients.ExactlyOnce";
/// Records of each of three parts.
const RECORDS: u32 = 5_000;
const STEP_LIMIT: Duration = Duration::from_secs(240);
/// How long it may take until it runs.
const RUNNING_LIMIT: Duration = Duration::from_secs(90);
/// How long it works before it is killed.
const WORKS: Duration = Duration::from_millis(700);

fn install() -> anyhow::Result<Run> {
    let classes = tools::classes()?;
    Ok(Box::new(move |setting| run(setting, &classes)))
}

fn run(setting: &Setting, classes: &str) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("streams")?;
    let state = places::cache("suites")?.join("streams");
    let _ = std::fs::remove_dir_all(&state);
    std::fs::create_dir_all(&state)?;
    let stage = Stage { classes, broker: &broker.kafka, state: &state };
    let runs = Case::of("an exactly-once topology reaches RUNNING and counts", stage.counts());
    let survives = Case::of("killed twice while it counts, each record counts once", stage.killed());
    broker.end()?;
    Ok(vec![runs, survives])
}

struct Stage<'a> {
    classes: &'a str,
    broker: &'a str,
    state: &'a Path,
}

impl Stage<'_> {
    fn command(&self, what: &str) -> Command {
        let mut command = tools::java(self.classes, CLASS);
        command.args([what, self.broker]);
        command
    }

    fn fill(&self) -> anyhow::Result<()> {
        quiet(self.command("fill").arg(RECORDS.to_string()), STEP_LIMIT).map(drop)
    }

    /// Whether there are as many counts as records, each once.
    fn check(&self, records: u32) -> anyhow::Result<()> {
        quiet(self.command("check").arg(records.to_string()), STEP_LIMIT).map(drop)
    }

    /// Starts the application and waits until it runs.
    fn start(&self) -> anyhow::Result<Running> {
        let mut application = Running::start(self.command("run").arg(self.state))?;
        let ready = |line: &str| match line {
            "state RUNNING" => Some(Ok(())),
            line if line.starts_with("error ") => Some(Err(anyhow::anyhow!("{line}"))),
            _ => None,
        };
        application.wait_for(RUNNING_LIMIT, ready)??;
        Ok(application)
    }

    fn counts(&self) -> anyhow::Result<()> {
        self.fill()?;
        let application = self.start()?;
        self.check(RECORDS)?;
        drop(application);
        Ok(())
    }

    fn killed(&self) -> anyhow::Result<()> {
        for _ in 0..2 {
            let mut application = self.start()?;
            self.fill()?;
            std::thread::sleep(WORKS);
            application.kill();
        }
        let application = self.start()?;
        self.check(3 * RECORDS)?;
        drop(application);
        Ok(())
    }
}
