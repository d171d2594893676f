//! `cargo xtask fuzz`: libFuzzer on stable Rust over everything that reads what others wrote.
//!
//! Who calls it: people, and `cargo xtask proof`. The targets lie in `fuzz/targets`, each with seeds in `fuzz/seeds`; what is
//! found to reach new code is kept in the cache and is where the next run begins. It guarantees that each target has a bound in
//! time, memory and length of input, and that a finding is a failure that says how to repeat it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::places;
use crate::process::{Running, quiet, version};
use crate::tally::Tally;

/// How long building everything with counters may take.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 16 << 10;
/// Memory of one target.
const MEMORY_MIB_MAX: usize = 2048;
/// How long one input may take.
const INPUT_SECONDS_MAX: u64 = 20;
/// What a run may take besides its time: reading the inputs kept from before.
const SLACK: Duration = Duration::from_secs(600);
/// What makes libFuzzer see which code an input reaches, and overflows panic; no sanitizer, which stable Rust does not have.
const FLAGS: [&str; 9] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these targets: a file's name in fuzz/targets.
    targets: Vec<String>,
    /// How long each of them runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Runs one target on one file, to repeat what was found.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Options {
    /// As the proof runs it.
    pub(crate) const fn proof() -> Self {
        Self { targets: Vec::new(), seconds: 300, input: None }
    }
}

/// Builds the targets and runs them one after another.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown:?}; there are {}", all.join(", "));
    }
    let wanted: Vec<_> =
        all.iter().filter(|name| options.targets.is_empty() || options.targets.contains(name)).collect();
    let mut tally = Tally::default();
    if ["c++", "g++", "clang++"].iter().all(|compiler| version(compiler, "--version").is_none()) {
        tally.skip("fuzz", "libFuzzer is C++ and there is no compiler for it: install g++");
        return Ok(tally);
    }
    let programs = build(&wanted)?;
    if let Some(input) = &options.input {
        let [name] = wanted.as_slice() else { bail!("name the one target that the file is for") };
        let mut command = Command::new(programs.join(name));
        let ended = Running::start(command.arg(input))?.follow(SLACK, |line| println!("{line}"))?;
        tally.check(&format!("fuzz {name} on {}", input.display()), ended.ok().map(drop));
        return Ok(tally);
    }
    for name in wanted {
        match one(name, &programs.join(name), options.seconds) {
            Ok(count) => {
                println!("  ok      fuzz {count}");
                tally.passed += 1;
                tally.counts.push(count);
            }
            Err(error) => tally.fail(&format!("fuzz {name}"), &format!("{error:#}")),
        }
    }
    Ok(tally)
}

/// The names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = places::root().join("fuzz/targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds with counters; the folder of programs.
fn build(names: &[&String]) -> anyhow::Result<PathBuf> {
    let target = places::cache("fuzz")?.join("target");
    let said = quiet(Command::new("rustc").arg("-vV"), SLACK)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let flags = FLAGS.join("\u{1f}");
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    // With a target named, build scripts and macros are built without counters.
    command.args(["build", "--quiet", "--target", host, "--manifest-path"]).arg(places::root().join("fuzz/Cargo.toml"));
    for name in names {
        command.args(["--features", name, "--bin", name]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags).env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", &target);
    println!("  building {} targets with coverage counters", names.len());
    quiet(&mut command, BUILD_LIMIT)?;
    Ok(target.join(host).join("debug"))
}

/// Runs one target; what it did, in words.
fn one(name: &str, program: &Path, seconds: u64) -> anyhow::Result<String> {
    let folder = |of: &str| places::cache(&format!("fuzz/{of}/{name}"));
    let (kept, found) = (folder("kept")?, folder("found")?);
    let seeds = places::root().join("fuzz/seeds").join(name);
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1");
    let words = places::root().join("fuzz/words").join(name);
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    command.arg(&kept);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    let begin = Instant::now();
    // libFuzzer says much; what matters of it is at its end.
    let ended = Running::start(&mut command)?.follow(Duration::from_secs(seconds) + SLACK, |_| ())?;
    let value = |of: &str| ended.output.lines().rev().find_map(|line| line.split_once(of)).map(|(_, rest)| rest.trim());
    if let Some(input) = value("Test unit written to ") {
        let panic = ended.output.lines().skip_while(|line| !line.contains("panicked at")).take(3);
        let panic = panic.collect::<Vec<_>>().join(" ");
        bail!("{panic}: `cargo xtask fuzz {name} --input {input}` repeats it\n{}", ended.how);
    }
    let runs = value("stat::number_of_executed_units:").unwrap_or("?").to_owned();
    let covered = ended.output.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    let covered = covered.unwrap_or("?").to_owned();
    ended.ok()?;
    Ok(format!("{name}: {runs} inputs in {} s, {covered} edges reached, nothing found", begin.elapsed().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::targets;
    use crate::places;

    #[test]
    fn every_target_has_seeds_and_stands_in_the_manifest() {
        let manifest = std::fs::read_to_string(places::root().join("fuzz/Cargo.toml")).expect("the manifest");
        for name in targets().expect("the targets") {
            let seeds = places::root().join("fuzz/seeds").join(&name);
            assert!(std::fs::read_dir(&seeds).is_ok_and(|mut seeds| seeds.next().is_some()), "seeds for {name}");
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} in the manifest");
        }
    }
}
