//! librdkafka's own tests against a broker, from the sources that the crate `rdkafka-sys` brings.
//!
//! Who calls it: the list of suites. Its tests that need no broker (they bring a mock), and those that it marks as issues of its
//! own, are left out by its runner. Each numbered test is a process of its own, with a limit, because one that hangs would take the rest along. Some start Apache Kafka's scripts, for which
//! small ones with the same names stand in that start the same classes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::outcome::{Case, Outcome, first_line};
use super::{Run, Setting, Suite, tools};
use crate::cairn::Cairn;
use crate::places;
use crate::process::{Running, quiet, version};

pub(super) const SUITE: Suite = Suite {
    name: "librdkafka, tests against a broker",
    version: "2.12.1",
    command: "TESTS=NNNN ./test-runner -p1 -L -Q -s SCENARIO, one after the other, metadata.broker.list=BROKER in test.conf",
    in_slice: false,
    install,
};

const SET_UP_LIMIT: Duration = Duration::from_secs(1800);
/// How long one numbered test may take.
const TEST_LIMIT: Duration = Duration::from_secs(180);
/// How long all of them may take; what is left then has failed.
const RUN_LIMIT: Duration = Duration::from_secs(3000);
/// How its runner tells what it left out.
const LEFT_OUT: &str = "Filtered due to negative test flags";
/// Numbers from here on are for set-ups of their own.
const NUMBER_END: &str = "1000";
/// Those that are for a broker which makes no topic by itself.
const AS_CREATED: [&str; 3] = ["0045", "0107", "0111"];
/// Apache Kafka's scripts that the tests start, and their classes.
const SCRIPTS: [(&str, &str); 3] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
];

fn install() -> anyhow::Result<Run> {
    let folder = build()?;
    let kafka = scripts(&tools::classes()?)?;
    Ok(Box::new(move |setting| run(setting, &folder, &kafka)))
}

/// Builds a copy of the sources; gives the folder of its tests.
fn build() -> anyhow::Result<PathBuf> {
    for program in ["bash", "gcc", "g++", "make"] {
        version(program, "--version").with_context(|| format!("{program} is not installed"))?;
    }
    let folder = places::cache("suites")?.join("librdkafka");
    let tests = folder.join("tests");
    if tests.join("test-runner").is_file() {
        return Ok(tests);
    }
    // Its version is behind a `+` in that of the crate that brings it.
    let sources = package("rdkafka-sys", &format!("+{}", SUITE.version))?.join("librdkafka");
    places::copy_tree(&sources, &folder)?;
    let step = |program: &str, arguments: &[&str]| {
        quiet(Command::new(program).args(arguments).current_dir(&folder), SET_UP_LIMIT).map(drop)
    };
    step("bash", &["./configure", "--disable-gssapi"])?;
    step("make", &["-j2", "libs"])?;
    step("make", &["-j2", "-C", "tests", "test-runner"])?;
    Ok(tests)
}

/// The folder of a crate that this workspace already uses, in that version.
pub(super) fn package(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let mut metadata = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    metadata.args(["metadata", "--format-version", "1", "--locked"]).current_dir(places::root());
    let said = quiet(&mut metadata, SET_UP_LIMIT)?;
    let said: serde_json::Value = serde_json::from_str(&said[said.find('{').context("no metadata")?..])?;
    let packages = said["packages"].as_array().context("cargo metadata names no packages")?;
    let is_meant = |package: &&serde_json::Value| {
        package["name"] == name && package["version"].as_str().is_some_and(|found| found.ends_with(version))
    };
    let package = packages.iter().find(is_meant).with_context(|| format!("no {name} {version} in Cargo.lock"))?;
    let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest")?);
    Ok(manifest.parent().context("a manifest without a folder")?.to_owned())
}

/// Writes the scripts; gives the folder that their `bin` is in.
fn scripts(classes: &str) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let folder = places::cache("suites")?.join("kafka-scripts");
    std::fs::create_dir_all(folder.join("bin"))?;
    for (name, class) in SCRIPTS {
        let path = folder.join("bin").join(name);
        let java = "java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=ERROR";
        std::fs::write(&path, format!("#!/bin/sh\nexec {java} -cp '{classes}' {class} \"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

fn run(setting: &Setting, tests: &Path, kafka: &Path) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("librdkafka")?;
    let configuration = places::cache("suites")?.join("librdkafka.conf");
    let deadline = Instant::now() + RUN_LIMIT;
    let (mut cases, mut log) = (Vec::new(), String::new());
    let mut take = |broker: &Cairn, scenario: &str, number: &str, name: String| -> anyhow::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            cases.push(Case::new(name, Outcome::Failed("all of them took too long, it was not run".to_owned())));
            return Ok(());
        }
        let servers = format!("metadata.broker.list={}\ntest.timeout.multiplier=2\n", broker.kafka);
        std::fs::write(&configuration, servers)?;
        let mut runner = Command::new(tests.join("test-runner"));
        runner.args(["-p1", "-L", "-Q", "-s", scenario]).current_dir(tests).env("TESTS", number);
        runner.env("LD_LIBRARY_PATH", format!("{0}/../src:{0}/../src-cpp", tests.display()));
        runner.env("RDKAFKA_TEST_CONF", &configuration).env("TEST_KAFKA_VERSION", super::KAFKA);
        runner.env("KAFKA_PATH", kafka).env("BROKERS", &broker.kafka).env_remove("CI");
        let ended = Running::start(&mut runner)?.follow(TEST_LIMIT.min(left), |_| ())?;
        log.push_str(&format!("== {number}, {scenario}\n{}\n{}\n", ended.output, ended.how));
        let found = of_summary(&ended.output);
        // It ends itself where a test fails, without its table.
        if found.is_empty() && !ended.success {
            cases.push(Case::new(name, Outcome::Failed(why(&ended.output).unwrap_or(ended.how))));
        }
        cases.extend(found);
        Ok(())
    };
    for (number, name) in numbers(tests)? {
        take(&broker, "default", &number, name)?;
    }
    let other = without_auto_creation(setting)?;
    for number in AS_CREATED {
        take(&other, "noautocreate", number, number.to_owned())?;
    }
    other.end()?;
    super::keep("librdkafka", &log)?;
    broker.end()?;
    Ok(cases)
}

/// A second broker, which makes no topic by itself.
fn without_auto_creation(setting: &Setting) -> anyhow::Result<Cairn> {
    let mut broker = Cairn::new(&setting.program, "suite-librdkafka-created", None)?;
    broker.broker_alone();
    broker.configure("[kafka]\nauto_create_topics = false\n")?;
    broker.start()?;
    Ok(broker)
}

/// The first failure that it told of.
fn why(output: &str) -> Option<String> {
    let lines: Vec<String> = output.lines().map(without_colours).collect();
    let at = lines.iter().position(|line| line.starts_with("### Test ") && line.contains(" failed at "))?;
    lines.get(at + 1).map(|line| first_line(line))
}

/// The numbers of its tests, with a name, from the names of their files.
fn numbers(tests: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut numbers = BTreeMap::new();
    for entry in std::fs::read_dir(tests).with_context(|| format!("list {}", tests.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_source = name.ends_with(".c") || name.ends_with(".cpp");
        let number = name.split('-').next().unwrap_or_default();
        if is_source && number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) && number < NUMBER_END {
            let stem = name.split('.').next().unwrap_or_default();
            numbers.insert(number.to_owned(), stem.replace('-', "_"));
        }
    }
    Ok(numbers)
}

/// Reads the table at its end: `| NAME | STATE | SECONDS | WHY`, in colours.
fn of_summary(output: &str) -> Vec<Case> {
    let case = |line: &str| {
        let plain = without_colours(line);
        let cells: Vec<&str> = plain.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [name, state, _, why, ..] = cells[..] else { return None };
        let outcome = match state {
            "PASSED" => Outcome::Passed,
            "FAILED" | "RUNNING" => Outcome::Failed(first_line(why)),
            // Without a word it is one for another scenario.
            "SKIPPED" if why == LEFT_OUT || why.is_empty() => return None,
            "SKIPPED" => Outcome::Skipped(first_line(why)),
            _ => return None,
        };
        (name != "<MAIN>").then(|| Case::new(name, outcome))
    };
    // The sum at its end is of the same form: a name begins with its number.
    let cases = output.lines().filter_map(case);
    cases.filter(|case| case.name.starts_with(|first: char| first.is_ascii_digit())).collect()
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Outcome, of_summary};

    #[test]
    fn the_table_at_the_end_is_read_without_its_colours() {
        let cases = of_summary(
            "TEST 2026 (bare, scenario default) SUMMARY\n#=====#\n\
             |\u{1b}[32m <MAIN>                                   |     PASSED |   1.000s \u{1b}[0m|\n\
             |\u{1b}[32m 0001_multiobj                            |     PASSED |   1.000s \u{1b}[0m|\n\
             |\u{1b}[31m 0103_transactions                        |     FAILED |   1.000s \u{1b}[0m|\u{1b}[31m no transactions\u{1b}[0m\n\
             |\u{1b}[36m 0115_producer_auth                       |    SKIPPED |   0.000s \u{1b}[0m|\u{1b}[36m no scripts\u{1b}[0m\n\
             |\u{1b}[36m 0107_topic_recreate | SKIPPED | 0.000s \u{1b}[0m|\u{1b}[36m \u{1b}[0m\n\
             |\u{1b}[36m 0004_conf | SKIPPED | 0.000s \u{1b}[0m|\u{1b}[36m Filtered due to negative test flags\u{1b}[0m\n",
        );
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["0001_multiobj", "0103_transactions", "0115_producer_auth"]);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!(cases[1].outcome, Outcome::Failed("no transactions".to_owned()));
        assert_eq!(cases[2].outcome, Outcome::Skipped("no scripts".to_owned()));
    }
}
