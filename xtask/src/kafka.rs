//! Other people's Kafka clients against a Cairn that is killed in between.
//!
//! What it is: the driver of `clients/kafka/`. Who calls it: `cargo xtask test` with a slice, `cargo xtask kafka` and
//! `cargo xtask proof` with all records. Each client writes numbered records to 8 partitions, reads them back with
//! members of a group joining and leaving, and compares every byte and offset; where it prints `kill`, Cairn gets
//! kill -9 and is started again on the same address. The programs know nothing of Cairn: `--bootstrap` runs them
//! against any Kafka, which is how they were shown to be right. clients/kafka/README.md says what they must do.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::cairn::{self, Cairn};
use crate::process::Running;
use crate::tally::Tally;
use crate::toolchain;

/// Records each client writes in the long version.
pub(crate) const RECORDS_PROOF: u32 = 100_000;
/// Records each client writes in CI's slice.
const RECORDS_SLICE: u32 = 4_000;
/// Partitions of each client's topic.
const PARTITIONS: &str = "8";
/// How long one client may take, besides its records.
const CLIENT_LIMIT: Duration = Duration::from_secs(180);
/// How many records a second is slow enough to give up.
const RECORDS_A_SECOND_MIN: u64 = 250;
/// How long the broker stays away after a kill.
const AWAY: Duration = Duration::from_millis(300);

/// Sets up what a client needs and gives its command.
type Prepare = fn() -> anyhow::Result<Command>;

/// The clients, by the name of their library.
const CLIENTS: &[(&str, Prepare)] = &[
    ("confluent-kafka", || python("confluent.py")),
    ("kafka-python", || python("kafka_python.py")),
    ("aiokafka", || python("aio.py")),
    ("kafkajs", || Ok(toolchain::node()?.script("kafka/kafkajs.mjs"))),
    ("franz-go", || Ok(Command::new(toolchain::go_client()?))),
    ("java", java),
    ("kcat", || {
        toolchain::kcat()?;
        python("kcat.py")
    }),
];

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How many records each client writes.
    #[arg(long, default_value_t = RECORDS_PROOF)]
    pub(crate) records: u32,
    /// Only these clients.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// The cargo profile that Cairn is built with.
    #[arg(long, default_value = "quick")]
    pub(crate) profile: String,
    /// A Kafka that already runs, instead of a Cairn of our own; nothing is killed then.
    #[arg(long)]
    pub(crate) bootstrap: Option<String>,
}

impl Options {
    /// What CI runs.
    pub(crate) fn slice() -> Self {
        Self { records: RECORDS_SLICE, only: Vec::new(), profile: "dev".to_owned(), bootstrap: None }
    }

    /// The long version.
    pub(crate) fn proof() -> Self {
        Self { records: RECORDS_PROOF, profile: "quick".to_owned(), ..Self::slice() }
    }
}

/// Runs the clients one after the other.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let program = if options.bootstrap.is_none() { Some(cairn::build(&options.profile)?) } else { None };
    for (name, prepare) in CLIENTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let check = format!("kafka client {name}: {} records", options.records);
        match prepare() {
            Ok(mut command) => {
                let started = Instant::now();
                tally.check(&check, drive(name, &mut command, program.as_deref(), options));
                println!("          in {:.1} s", started.elapsed().as_secs_f32());
            }
            Err(error) => tally.skip(&check, &format!("{error:#}").replace('\n', " ")),
        }
    }
    Ok(tally)
}

fn drive(name: &str, command: &mut Command, program: Option<&Path>, options: &Options) -> anyhow::Result<()> {
    let mut cairn = program.map(|program| Cairn::new(program, &format!("kafka-{name}"), None)).transpose()?;
    if let Some(cairn) = &mut cairn {
        cairn.start()?;
    }
    let bootstrap = match (&cairn, &options.bootstrap) {
        (Some(cairn), _) => cairn.kafka.clone(),
        (None, Some(bootstrap)) => bootstrap.clone(),
        (None, None) => bail!("no broker"),
    };
    let topic = format!("clients.{name}.{}", std::process::id());
    command.args(["--bootstrap", &bootstrap, "--topic", &topic, "--partitions", PARTITIONS]);
    command.args(["--records", &options.records.to_string()]);
    let limit = CLIENT_LIMIT + Duration::from_secs(u64::from(options.records) / RECORDS_A_SECOND_MIN);
    let (mut kills, mut restarted) = (0, Ok(()));
    let ended = Running::start(command)?.follow(limit, |line| {
        if let ("kill", Some(cairn), Ok(())) = (line, &mut cairn, &restarted) {
            restarted = restart(cairn);
            kills += 1;
        }
    })?;
    restarted?;
    if program.is_some() && ended.success && kills == 0 {
        bail!("the client asked for no kill");
    }
    let said = ended.ok()?;
    println!("          {} ({kills} kills)", said.lines().rfind(|line| line.starts_with("ok")).unwrap_or("ok"));
    cairn.map_or(Ok(()), Cairn::end)
}

fn restart(cairn: &mut Cairn) -> anyhow::Result<()> {
    cairn.kill();
    std::thread::sleep(AWAY);
    cairn.start()
}

fn python(script: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(toolchain::python()?.join("python"));
    command.arg("-B").arg(crate::places::root().join("clients/kafka").join(script));
    Ok(command)
}

fn java() -> anyhow::Result<Command> {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-cp", &toolchain::java_client()?, "io.cairn.clients.Client"]);
    Ok(command)
}
