//! What the compiler does not check.
//!
//! What it is: a test of the sources as text. Who calls it: `cargo xtask tidy`, and `cargo xtask test` before all.
//! It guarantees that each file opens with its header, that dependencies between crates point one way, and that no
//! crate or module has a name that says nothing. It must never change a file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::places;
use crate::tally::Tally;

/// Which of our crates each of our crates may name in its `[dependencies]`.
/// The gateway does not know the log, the log does not know Kafka, policy knows no transport.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("freshness", &["clock"]),
    ("catalogue", &[]),
    ("contract", &["clock"]),
    ("tls", &[]),
    ("keys", &["clock"]),
    ("identity", &["clock"]),
    ("mcp", &["clock"]),
    ("log", &["clock", "keys"]),
    ("broker", &["clock", "tls", "log"]),
    ("backbone", &["clock", "contract", "tls", "keys", "log", "broker"]),
    ("consumers", &["clock", "contract", "backbone"]),
    ("evaluate", &["clock", "contract", "backbone", "consumers"]),
    ("lake", &["clock", "contract", "keys", "backbone", "consumers", "evaluate", "log"]),
    ("registry", &["clock", "contract", "tls", "backbone"]),
    ("limits", &["clock"]),
    ("policy", &["clock", "contract", "limits"]),
    ("approvals", &["clock", "contract"]),
    ("screen", &[]),
    ("vault", &["clock", "contract", "keys"]),
    ("evidence", &["clock", "contract", "backbone"]),
    // Shares no code with what it checks.
    ("verify", &[]),
    ("credentials", &["clock", "mcp"]),
    (
        "gateway",
        &[
            "clock",
            "contract",
            "tls",
            "identity",
            "mcp",
            "catalogue",
            "freshness",
            "limits",
            "policy",
            "approvals",
            "screen",
            "vault",
            "backbone",
            "credentials",
        ],
    ),
    ("ingest", &["clock", "contract", "keys", "identity", "screen", "vault", "backbone"]),
    ("operators", &["clock", "contract", "limits", "tls", "backbone", "vault", "approvals", "credentials", "gateway"]),
    ("replay", &["contract", "mcp", "policy", "vault", "backbone"]),
    ("sample", &[]),
    // What is measured is reached from outside, as users reach it.
    ("bench", &[]),
];
/// The crate that wires everything.
const WIRING: &str = "cairn";
/// Names under which anything could lie: no crate and no module.
const NAMES_BANNED: &[&str] = &["utils", "util", "helpers", "helper", "misc"];
/// Names that say too little for a crate.
const CRATE_NAMES_BANNED: &[&str] = &["common", "shared", "types", "core"];
/// A file past this has a second idea in it; tests beside it do not count.
const FILE_LINES_MAX: usize = 800;

/// Runs every check.
pub(crate) fn run() -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "clients", "benches", "fuzz", "sim"] {
        collect(&places::root().join(folder), &mut files)?;
    }
    files.sort();
    let sources: Vec<_> = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    tally.check("tidy: every source opens with a header", every(&sources, has_header));
    tally.check("tidy: no source is too long to be one idea", every(&sources, is_short));
    tally.check("tidy: no name says nothing", every(&files.iter().collect::<Vec<_>>(), has_telling_name));
    let manifests: Vec<_> = files.iter().filter(|path| path.ends_with("Cargo.toml")).collect();
    tally.check("tidy: dependencies point one way", every(&manifests, points_one_way));
    Ok(tally)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | "node_modules" | "__pycache__") {
            collect(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Applies a check to each file and gathers what it finds.
fn every(files: &[&PathBuf], check: fn(&Path, &str) -> Result<(), String>) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let shown = path.strip_prefix(places::root()).unwrap_or(path);
        if let Err(finding) = check(shown, &String::from_utf8_lossy(&bytes)) {
            findings.push(format!("{}: {finding}", shown.display()));
        }
    }
    if findings.is_empty() { Ok(()) } else { bail!("{} findings\n{}", findings.len(), findings.join("\n")) }
}

fn has_header(_: &Path, text: &str) -> Result<(), String> {
    if text.starts_with("//! ") { Ok(()) } else { Err("open it with `//!`: what it is, who calls it".to_owned()) }
}

fn is_short(path: &Path, text: &str) -> Result<(), String> {
    let is_test = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
    let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count();
    if is_test || lines <= FILE_LINES_MAX { Ok(()) } else { Err(format!("{lines} lines: look for the second idea")) }
}

fn has_telling_name(path: &Path, _: &str) -> Result<(), String> {
    let stem = |part: &OsStr| Path::new(part).file_stem().and_then(OsStr::to_str).map(str::to_owned);
    let said = |part: &String| NAMES_BANNED.contains(&part.trim_start_matches("cairn-"));
    let krate = path.strip_prefix("crates").ok().and_then(|rest| stem(rest.iter().next()?));
    let krate = krate.filter(|name| CRATE_NAMES_BANNED.contains(&name.trim_start_matches("cairn-")));
    match krate.or_else(|| path.iter().filter_map(stem).find(said)) {
        Some(part) => Err(format!("`{part}` says nothing: name it after what it holds")),
        None => Ok(()),
    }
}

/// Compares the `cairn-*` names in a crate's `[dependencies]` with what it may use.
fn points_one_way(path: &Path, text: &str) -> Result<(), String> {
    let Some(name) = path.strip_prefix("crates").ok().and_then(|rest| rest.iter().next()?.to_str()) else {
        return Ok(());
    };
    if name == WIRING {
        return Ok(());
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        return Err(format!("`{name}` is not in the table of xtask/src/tidy.rs: say there what it may use"));
    };
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
    let used = section.lines().filter_map(|line| line.strip_prefix("cairn-")?.split(['.', ' ', '=']).next());
    match used.into_iter().find(|used| !allowed.contains(used)) {
        Some(used) => Err(format!("`{name}` may not use `{used}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{has_header, has_telling_name, points_one_way};

    #[test]
    fn a_dependency_upwards_is_found() {
        let manifest = Path::new("crates/log/Cargo.toml");
        let with =
            |line: &str| format!("[package]\nname = \"cairn-log\"\n\n[dependencies]\n{line}\n\n[dev-dependencies]\n");
        assert_eq!(points_one_way(manifest, &with("cairn-clock.workspace = true")), Ok(()));
        assert!(points_one_way(manifest, &with("cairn-broker = { path = \"../broker\" }")).is_err());
        assert!(points_one_way(Path::new("crates/unheard-of/Cargo.toml"), &with("")).is_err());
    }

    #[test]
    fn a_file_without_header_or_with_an_empty_name_is_found() {
        assert!(has_header(Path::new("a.rs"), "use std::fs;").is_err());
        assert!(has_telling_name(Path::new("crates/log/src/utils.rs"), "").is_err());
        assert!(has_telling_name(Path::new("crates/cairn-common/src/lib.rs"), "").is_err());
        assert_eq!(has_telling_name(Path::new("crates/log/src/wal.rs"), ""), Ok(()));
    }
}
