//! Other people's Kafka clients against a Cairn that is killed in between.
//!
//! What it is: the driver of `clients/kafka/`. Who calls it: `cargo xtask test` with a slice, `cargo xtask kafka` and
//! `cargo xtask proof` with all records. Each client writes numbered records to 8 partitions, reads them back with
//! members of a group joining and leaving, and compares every byte and offset; where it prints `kill`, Cairn gets
//! kill -9 and is started again on the same address. The programs know nothing of Cairn: `--bootstrap` runs them
//! against any Kafka, which is how they were shown to be right. They reach Cairn through a port mapping, by its advertised
//! address. clients/kafka/README.md says what they must do.

mod document;
mod tap;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::tap::Tap;
use document::{Offered, Row};

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
/// How often a client must ask for a kill: while it writes, and while it reads.
const KILLS: u32 = 2;
/// The number of the Produce request.
const PRODUCE: i16 = 0;
/// How long one client may take, besides its records.
const CLIENT_LIMIT: Duration = Duration::from_secs(600);
/// How many records a second is slow enough to give up.
const RECORDS_A_SECOND_MIN: u64 = 80;
/// The secret of the super user `ops`, for clients that administer; nothing is protected by it.
const OPS_SECRET: &str = "of-clients-that-administer";
/// How long the broker stays away after a kill.
const AWAY: Duration = Duration::from_millis(300);

/// Sets up what a client needs and gives its command.
type Prepare = fn() -> anyhow::Result<Command>;

/// One client.
struct Client {
    /// The name of its library, and what is special about it.
    name: &'static str,
    prepare: Prepare,
    /// What it is told besides.
    told: &'static [&'static str],
    /// Whether CI's slice runs it too.
    in_slice: bool,
}

impl Client {
    const fn classic(name: &'static str, prepare: Prepare) -> Self {
        Self { name, prepare, told: &[], in_slice: true }
    }

    /// With groups of KIP-848. A member whose leaving met a broker that was away is missed for its whole session, so these take a
    /// minute each.
    const fn consumer(name: &'static str, prepare: Prepare) -> Self {
        Self { name, prepare, told: &["--protocol", "consumer"], in_slice: false }
    }
}

/// The clients.
const CLIENTS: &[Client] = &[
    Client::classic("confluent-kafka", || python("confluent.py")),
    Client::classic("kafka-python", || python("kafka_python.py")),
    Client::classic("aiokafka", || python("aio.py")),
    Client::classic("kafkajs", || Ok(toolchain::node()?.script("kafka/kafkajs.mjs"))),
    Client::classic("franz-go", || Ok(Command::new(toolchain::go_client()?))),
    Client::classic("java", java),
    Client::classic("kcat", || {
        toolchain::kcat()?;
        python("kcat.py")
    }),
    Client::consumer("confluent-kafka-848", || python("confluent.py")),
    Client::consumer("franz-go-848", || Ok(Command::new(toolchain::go_client()?))),
    Client::consumer("java-848", java),
    // It has no other groups.
    Client::consumer("confluent-rust-848", || {
        Ok(Command::new(toolchain::rust_program("kafka/rust", "cairn-kafka-client")?))
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
    /// Leave docs/kafka-compatibility.md as it is.
    #[arg(long)]
    pub(crate) keep_document: bool,
    /// Leave out those that CI leaves out.
    #[arg(long)]
    pub(crate) slice: bool,
}

impl Options {
    /// What CI runs.
    pub(crate) fn slice() -> Self {
        Self {
            records: RECORDS_SLICE,
            only: Vec::new(),
            profile: "dev".to_owned(),
            bootstrap: None,
            keep_document: true,
            slice: true,
        }
    }

    /// The long version.
    pub(crate) fn proof() -> Self {
        Self {
            records: RECORDS_PROOF,
            profile: "quick".to_owned(),
            keep_document: false,
            slice: false,
            ..Self::slice()
        }
    }
}

/// Sets up what CI's slice needs. Whoever runs it says what is wrong with it.
pub(crate) fn set_up() {
    for client in CLIENTS.iter().filter(|client| client.in_slice) {
        let _ = (client.prepare)();
    }
}

/// Runs the clients one after the other, and writes the document if all of them passed.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let program = if options.bootstrap.is_none() { Some(cairn::build(&options.profile)?) } else { None };
    let (mut rows, mut offered) = (Vec::new(), Vec::new());
    for Client { name, prepare, told, in_slice } in CLIENTS {
        if (options.slice && !in_slice) || (!options.only.is_empty() && !options.only.iter().any(|only| only == name)) {
            continue;
        }
        let check = format!("kafka client {name}: {} records", options.records);
        match prepare() {
            Ok(mut command) => {
                command.args(*told);
                let started = Instant::now();
                let driven = match (&program, &options.bootstrap) {
                    (Some(program), _) => drive(name, &mut command, program, options).map(|(row, versions)| {
                        rows.push(row);
                        offered = versions;
                    }),
                    (None, Some(bootstrap)) => follow(name, &mut command, bootstrap, options, |_| Ok(())).map(drop),
                    (None, None) => bail!("no broker"),
                };
                tally.check(&check, driven);
                say!("          in {:.1} s", started.elapsed().as_secs_f32());
            }
            Err(error) => tally.skip(&check, &format!("{error:#}").replace('\n', " ")),
        }
    }
    if rows.len() == CLIENTS.len() && !options.keep_document {
        document::write(&rows, &offered, options.records)?;
    }
    Ok(tally)
}

/// Runs one client against a Cairn of its own, through a port mapping.
fn drive(
    name: &'static str,
    command: &mut Command,
    program: &Path,
    options: &Options,
) -> anyhow::Result<(Row, Offered)> {
    let mut cairn = Cairn::new(program, &format!("kafka-{name}"), None)?;
    // Beside a gateway there are consumers of Cairn's own, which use the advertised address too.
    cairn.broker_alone();
    let tap = Tap::start(&cairn.kafka, tap::looks)?;
    cairn.configure(&format!(
        "[kafka]\nadvertised = \"{}\"\nusers = {{ ops = \"{OPS_SECRET}\" }}\nsuper_users = [\"ops\"]\n\
         authorization = \"acl\"\nallow_everyone_if_no_acl = true\n",
        tap.address
    ))?;
    command.env("KAFKA_OPS_SECRET", OPS_SECRET);
    cairn.start()?;
    let mut kills = 0;
    // Its own address: that the client goes on through the advertised one is part of what is tested.
    let bootstrap = cairn.kafka.clone();
    let said = follow(name, command, &bootstrap, options, |_| {
        kills += 1;
        restart(&mut cairn)
    })?;
    if kills != KILLS || !said.contains("3 members") {
        bail!("the client asked for {kills} kills, not {KILLS}, or had not 3 members: {said}");
    }
    let seen = tap.seen();
    if !seen.keys().any(|(key, _)| *key == PRODUCE) {
        bail!("the client did not go on through the advertised address");
    }
    say!("          {said} ({kills} kills)");
    let offered = document::offered(&cairn.kafka)?;
    cairn.end()?;
    let said = said.strip_prefix("ok ").unwrap_or(&said).to_owned();
    Ok((Row { client: name, said, seen }, offered))
}

/// Runs one client to its end, and gives the line that says what it did.
fn follow(
    name: &str,
    command: &mut Command,
    bootstrap: &str,
    options: &Options,
    mut kill: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let topic = format!("clients.{name}.{}", std::process::id());
    command.args(["--bootstrap", bootstrap, "--topic", &topic, "--partitions", PARTITIONS]);
    command.args(["--records", &options.records.to_string()]);
    let limit = CLIENT_LIMIT + Duration::from_secs(u64::from(options.records) / RECORDS_A_SECOND_MIN);
    let mut killed = Ok(());
    let ended = Running::start(command)?.follow(limit, |line| {
        if line == "kill" && killed.is_ok() {
            killed = kill(line);
        }
    })?;
    killed?;
    let said = ended.ok()?;
    Ok(said.lines().rfind(|line| line.starts_with("ok")).unwrap_or("ok").to_owned())
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
