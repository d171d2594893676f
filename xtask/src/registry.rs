//! Other people's serializers against Cairn's schema registry.
//!
//! What it is: the driver of `clients/registry/`. Who calls it: `cargo xtask test` and `cargo xtask registry`. Each program uses
//! one library as its users do, against a Cairn of its own with a registry, and reads back by Kafka what it wrote. The
//! requests that pass are noted on their way, and make the matrix in docs/registry.md. clients/registry/README.md says what
//! the programs must do.

mod document;
mod tap;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use self::document::Row;
use crate::cairn::{self, Cairn};
use crate::process::Running;
use crate::tally::Tally;
use crate::tap::Tap;
use crate::{places, toolchain};

/// How long one program may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// Sets up what a program needs and gives its command.
type Prepare = fn() -> anyhow::Result<Command>;

/// The programs, by the name of their library.
const CLIENTS: &[(&str, Prepare)] = &[
    ("confluent-kafka (Python)", || {
        let mut command = Command::new(toolchain::python()?.join("python"));
        command.arg("-B").arg(places::root().join("clients/registry/confluent.py"));
        Ok(command)
    }),
    ("@confluentinc/schemaregistry (npm)", || Ok(toolchain::node()?.script("registry/confluent.mjs"))),
    ("confluent-kafka-go", || Ok(Command::new(toolchain::go_program("registry/go", "schemaregistry")?))),
    ("schema-registry-client (Rust)", || rust("schema-registry-client")),
    ("schemreg (Rust)", || rust("schemreg")),
    ("apicurio-registry serdes (Java)", || {
        let classes =
            toolchain::java_project("registry/java", "clients-apicurio", &["Apicurio.java", "Resolver.java"])?;
        let mut command = Command::new("java");
        command.args(["-cp", &classes, "io.cairn.clients.Apicurio"]);
        Ok(command)
    }),
];

/// The program that uses either of two crates.
fn rust(library: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(toolchain::rust_program("registry/rust", "registry-rust")?);
    command.args(["--library", library]);
    Ok(command)
}

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only libraries whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// The cargo profile that Cairn is built with.
    #[arg(long, default_value = "dev")]
    pub(crate) profile: String,
    /// Leave docs/registry.md as it is.
    #[arg(long)]
    pub(crate) keep_document: bool,
}

impl Options {
    /// What `cargo xtask test` runs.
    pub(crate) fn quick() -> Self {
        Self { only: Vec::new(), profile: "dev".to_owned(), keep_document: true }
    }

    /// The long version.
    pub(crate) fn proof() -> Self {
        Self { keep_document: false, ..Self::quick() }
    }
}

/// Runs the programs one after the other, and writes the matrix if all of them passed.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let program = cairn::build(&options.profile)?;
    let mut rows = Vec::new();
    for (name, prepare) in CLIENTS {
        let is_wanted = options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()));
        if !is_wanted {
            continue;
        }
        let check = format!("registry client {name}");
        match prepare() {
            Ok(mut command) => {
                let started = Instant::now();
                tally.check(&check, drive(name, &mut command, &program).map(|row| rows.push(row)));
                say!("          in {:.1} s", started.elapsed().as_secs_f32());
            }
            Err(error) => tally.skip(&check, &format!("{error:#}").replace('\n', " ")),
        }
    }
    if rows.len() == CLIENTS.len() && !options.keep_document {
        document::write(&rows)?;
    }
    Ok(tally)
}

/// Runs one program against a Cairn of its own.
fn drive(name: &'static str, command: &mut Command, program: &Path) -> anyhow::Result<Row> {
    let word: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut cairn = Cairn::new(program, &format!("registry-{word}"), None)?;
    let registry = cairn.with_registry()?;
    cairn.start()?;
    let tap = Tap::start(&registry, tap::looks)?;
    command.args(["--bootstrap", &cairn.kafka, "--registry", &format!("http://{}", tap.address)]);
    let ended = Running::start(command)?.follow(CLIENT_LIMIT, |_| ())?;
    let said = ended.ok()?;
    let said = said.lines().rfind(|line| line.starts_with("ok")).unwrap_or("ok").to_owned();
    say!("          {said}");
    cairn.end()?;
    let said = said.strip_prefix("ok ").unwrap_or(&said).to_owned();
    Ok(Row { client: name, said, seen: tap.seen() })
}
