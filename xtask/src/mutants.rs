//! `cargo xtask mutants`: the code broken on purpose, and which test noticed.
//!
//! What it is: named one-line mutations, applied one at a time to a copy of the tree in the cache folder. Who calls
//! it: people, and `cargo xtask proof`. It guarantees that each test passes unbroken first, that a mutant which does
//! not compile is not counted as caught, and that the checkout is never touched.

mod administering;
mod compaction;
mod consumers;
mod context;
mod contracts;
mod diskless;
mod evidence;
mod governance;
mod groups;
mod isolation;
mod lake;
mod log;
mod observing;
mod operating;
mod postgres;
mod protocol;
mod recovery;
mod registry;
mod replaying;
mod reporting;
mod security;
mod shares;
mod stores;
mod table;
mod torturing;
mod transactions;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use self::table::Mutant;
use crate::places;
use crate::process::{Ended, Running};
use crate::tally::Tally;

/// How long one test may take, compiled; a mutant that hangs past it counts as caught.
const TEST_LIMIT: Duration = Duration::from_secs(900);
/// How long a test may take unbroken, compiled with all that it needs from an empty cache.
const BASELINE_LIMIT: Duration = Duration::from_secs(3600);

/// The tables, each by the name of its file.
const TABLES: &[(&str, &[Mutant])] = &[
    ("table", table::MUTANTS),
    ("governance", governance::MUTANTS),
    ("evidence", evidence::MUTANTS),
    ("operating", operating::MUTANTS),
    ("replaying", replaying::MUTANTS),
    ("contracts", contracts::MUTANTS),
    ("consumers", consumers::MUTANTS),
    ("context", context::MUTANTS),
    ("registry", registry::MUTANTS),
    ("reporting", reporting::MUTANTS),
    ("lake", lake::MUTANTS),
    ("groups", groups::MUTANTS),
    ("log", log::MUTANTS),
    ("diskless", diskless::MUTANTS),
    ("compaction", compaction::MUTANTS),
    ("observing", observing::MUTANTS),
    ("postgres", postgres::MUTANTS),
    ("transactions", transactions::MUTANTS),
    ("recovery", recovery::MUTANTS),
    ("administering", administering::MUTANTS),
    ("protocol", protocol::MUTANTS),
    ("security", security::MUTANTS),
    ("torturing", torturing::MUTANTS),
    ("stores", stores::MUTANTS),
    ("isolation", isolation::MUTANTS),
    ("shares", shares::MUTANTS),
];

/// Crates with so many mutants that each table of theirs is a part of its own.
const LARGE: [&str; 2] = ["log", "broker"];

fn all() -> impl Iterator<Item = (&'static str, &'static Mutant)> {
    TABLES.iter().flat_map(|(table, mutants)| mutants.iter().map(move |mutant| (*table, mutant)))
}

/// Which mutants are run together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of this crate.
    of: Option<&'static str>,
    /// Of this table.
    table: Option<&'static str>,
}

impl Part {
    /// A table by its name.
    pub(crate) fn table(name: &str) -> anyhow::Result<Self> {
        let found = TABLES.iter().find(|(table, _)| *table == name);
        let names = || TABLES.iter().map(|(table, _)| *table).collect::<Vec<_>>().join(", ");
        let (table, _) = found.with_context(|| format!("there is no table {name}; there are {}", names()))?;
        Ok(Self { table: Some(*table), ..Self::default() })
    }

    fn holds(self, table: &str, mutant: &Mutant) -> bool {
        self.of.is_none_or(|of| of == mutant.part()) && self.table.is_none_or(|own| own == table)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.of.unwrap_or("all crates"))?;
        self.table.map_or(Ok(()), |table| write!(f, ": {table}"))
    }
}

/// All of them: crate by crate, the large ones table by table, each once, in the order of the tables.
pub(crate) fn parts() -> Vec<Part> {
    let mut parts = Vec::new();
    for (table, mutant) in all() {
        let of = mutant.part();
        let part = Part { of: Some(of), table: LARGE.contains(&of).then_some(table) };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// Runs the mutants of a part whose name contains `only`.
pub(crate) fn run(only: &str, part: Part) -> anyhow::Result<Tally> {
    let tree = places::cache("mutants")?.join("tree");
    for part in ["Cargo.toml", "Cargo.lock", "rustfmt.toml", "clippy.toml", "README.md"] {
        std::fs::create_dir_all(&tree)?;
        std::fs::copy(places::root().join(part), tree.join(part)).with_context(|| format!("copy {part}"))?;
    }
    for part in ["crates", "xtask", "contracts", "clients", "packages", "docs", "examples", ".cargo"] {
        let folder = places::root().join(part);
        if folder.is_dir() {
            std::fs::create_dir_all(tree.join(part))?;
            places::remove_gone(&folder, &tree.join(part))?;
            places::copy_tree(&folder, &tree.join(part))?;
        }
    }
    let mut tally = Tally::default();
    let mut baselines = BTreeMap::new();
    for (_, mutant) in all().filter(|(table, mutant)| part.holds(table, mutant) && mutant.name.contains(only)) {
        let baseline = baselines.entry(mutant.test).or_insert_with(|| test(&tree, mutant.test, BASELINE_LIMIT));
        let name = format!("mutant {}", mutant.name);
        match baseline {
            Ok(ended) if ended.success && !runs_something(ended) => tally.fail(&name, "its test runs nothing"),
            Ok(ended) if ended.success => tally.check(&name, is_caught(&tree, mutant)),
            Ok(ended) => tally.fail(&name, &format!("its test fails unbroken: {}", ended.how)),
            Err(error) => tally.fail(&name, &format!("{error:#}")),
        }
    }
    Ok(tally)
}

/// Whether any test ran: arguments that match nothing pass, and prove nothing.
fn runs_something(ended: &Ended) -> bool {
    let mut ran = Tally::default();
    ran.add_cargo_output(&ended.output);
    ran.passed > 0
}

/// Applies the mutation, runs its test, and puts the file back.
fn is_caught(tree: &Path, mutant: &Mutant) -> anyhow::Result<()> {
    let path = tree.join(mutant.file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", mutant.file))?;
    if text.matches(mutant.before).count() != 1 {
        bail!("`{}` is not there exactly once in {}: bring the table up to date", mutant.before, mutant.file);
    }
    std::fs::write(&path, text.replacen(mutant.before, mutant.after, 1))?;
    let ended = test(tree, mutant.test, TEST_LIMIT);
    std::fs::write(&path, &text)?;
    let ended = ended?;
    if ended.success {
        bail!("survived: `cargo test {}` still passes", mutant.test);
    }
    // Cargo says so only of a test that was compiled and ran, also where it died before it could give its result.
    if ended.how.starts_with("took") || ended.output.contains("error: test failed, to rerun pass") {
        return Ok(());
    }
    bail!(
        "did not get as far as the test: {}",
        ended.output.lines().rfind(|line| line.contains("error")).unwrap_or(&ended.how)
    )
}

fn test(tree: &Path, arguments: &str, limit: Duration) -> anyhow::Result<Ended> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.arg("test").args(arguments.split_whitespace()).current_dir(tree);
    command.env("CARGO_TARGET_DIR", places::cache("mutants")?.join("target")).env("CARGO_TERM_COLOR", "never");
    // One line is compiled again and again.
    command.env("CARGO_INCREMENTAL", "1");
    Running::start(&mut command)?.follow(limit, |_| ())
}

#[cfg(test)]
mod tests {
    /// A break that finds no place any more breaks nothing, and nobody notices until it is run.
    #[test]
    fn every_mutant_has_its_place_in_the_code_once() {
        let root = crate::places::root();
        let lost: Vec<_> = super::all()
            .map(|(_, mutant)| mutant)
            .filter(|mutant| {
                let text = std::fs::read_to_string(root.join(mutant.file)).unwrap_or_default();
                text.matches(mutant.before).count() != 1
            })
            .map(|mutant| mutant.name)
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}
