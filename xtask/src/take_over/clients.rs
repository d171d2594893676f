//! The clients: three libraries of other people, each with the settings of docs/take-over.md and once with its own.
//!
//! Who calls it: `take_over`. A client runs until its file says that it is enough; each line that it says is stamped and put into its
//! ledger as it comes.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::ledger::Ledger;
use crate::process::Running;
use crate::{places, toolchain};

/// Sets up what a client needs and gives its command.
type Prepare = fn() -> anyhow::Result<Command>;

/// The libraries.
pub(crate) const LIBRARIES: &[(&str, Prepare)] = &[
    ("librdkafka", || {
        let mut command = Command::new(toolchain::python()?.join("python"));
        command.arg("-B").arg(places::root().join("clients/kafka/take_over.py"));
        Ok(command)
    }),
    ("java", || {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(["-cp", &toolchain::java_client()?, "io.cairn.clients.TakeOver"]);
        Ok(command)
    }),
    ("franz-go", || Ok(Command::new(toolchain::go_program("kafka/franz/takeover", "franz-takeover")?))),
];

/// What a client is told of time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As docs/take-over.md says.
    Quick,
    /// The library's own.
    Plain,
}

impl Settings {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Plain => "plain",
        }
    }
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) library: &'static str,
    pub(crate) settings: Settings,
    running: Running,
    ledger: Arc<Mutex<Ledger>>,
}

/// What all of them are told.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) bootstrap: String,
    pub(crate) partitions: u32,
    pub(crate) pace_ms: u32,
    pub(crate) stop: &'a Path,
}

impl Client {
    pub(crate) fn start(
        (library, prepare): (&'static str, Prepare),
        settings: Settings,
        task: &Task<'_>,
    ) -> anyhow::Result<Self> {
        let mut command = prepare()?;
        let topic = format!("{library}.{}", settings.name());
        command.args(["--bootstrap", &task.bootstrap, "--topic", &topic, "--settings", settings.name()]);
        command.args(["--partitions", &task.partitions.to_string(), "--pace-ms", &task.pace_ms.to_string()]);
        command.arg("--stop").arg(task.stop);
        let mut running = Running::start(&mut command).with_context(|| format!("the client on {library}"))?;
        let lines = std::mem::replace(&mut running.lines, std::sync::mpsc::sync_channel(0).1);
        let ledger = Arc::<Mutex<Ledger>>::default();
        let into = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for line in lines {
                into.lock().unwrap_or_else(PoisonError::into_inner).take(&line, Instant::now());
            }
        });
        Ok(Self { library, settings, running, ledger })
    }

    pub(crate) fn name(&self) -> String {
        format!("{} ({})", self.library, self.settings.name())
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it has ended by itself. What it came to is in its ledger.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.running.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        // Its last lines may be on their way.
        std::thread::sleep(Duration::from_millis(500));
    }
}
