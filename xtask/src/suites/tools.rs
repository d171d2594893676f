//! Apache Kafka's own tools, from Maven Central, one after the other against one broker.
//!
//! Who calls it: the list of suites. Each step is one start of one tool; it passes when the tool ends well and says what it
//! should. They build on each other: what one creates, the next describes.

mod steps;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::outcome::Case;
use super::{Run, Scale, Setting, Suite};
use crate::process::Running;
use crate::{places, toolchain};
use steps::{STEPS, Step};

pub(super) const SUITE: Suite = Suite {
    name: "Apache Kafka's tools",
    version: super::KAFKA,
    command: "kafka-TOOL.sh --bootstrap-server BROKER …",
    in_slice: true,
    install,
};

/// How long one tool may take.
const TOOL_LIMIT: Duration = Duration::from_secs(90);
/// Quick to start, and small.
const JVM: [&str; 3] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"];

fn install() -> anyhow::Result<Run> {
    let classes = classes()?;
    Ok(Box::new(move |setting| run(setting, &classes)))
}

/// Fetches the tools, Connect, MirrorMaker and Streams; gives their class path.
pub(super) fn classes() -> anyhow::Result<String> {
    toolchain::java_project("suites/java", "suites-java", &["ExactlyOnce.java"])
}

/// One program of theirs, ready to run.
pub(super) fn java(classes: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    // Errors only: what they warn of fills logs.
    command.args(JVM).args(["-Dlog4j2.level=ERROR", "-cp", classes, class]);
    command
}

fn run(setting: &Setting, classes: &str) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("tools")?;
    let folder = places::cache("suites")?.join("tools");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let (mut cases, mut said) = (Vec::new(), String::new());
    for step in STEPS.iter().filter(|step| step.in_slice || setting.scale == Scale::Full) {
        let mut result = Ok(());
        if let Err(error) = take(step, classes, &broker.kafka, &folder, &mut said) {
            result = Err(error);
        }
        cases.push(Case::of(step.name, result));
    }
    super::keep("tools", &said)?;
    broker.end()?;
    Ok(cases)
}

fn take(step: &Step, classes: &str, broker: &str, folder: &Path, log: &mut String) -> anyhow::Result<()> {
    let mut command = java(classes, step.class);
    let mut arguments: Vec<String> = Vec::new();
    if !step.arguments.contains("BROKER") {
        arguments.extend(["--bootstrap-server".to_owned(), broker.to_owned()]);
    }
    let input = folder.join("input");
    std::fs::write(&input, step.input)?;
    let place = |word: &str| word.replace("BROKER", broker).replace("INPUT", &input.to_string_lossy());
    arguments.extend(step.arguments.split_whitespace().map(place));
    command.args(&arguments).current_dir(folder);
    let command = if step.reads_lines { fed(&command, &input) } else { command };
    let mut command = command;
    let ended = Running::start(&mut command)?.follow(TOOL_LIMIT, |_| ())?;
    log.push_str(&format!("== {}\n{}{}\n", step.name, ended.output, ended.how));
    let telling = || {
        let mut lines = ended.output.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("at "));
        lines.next_back().unwrap_or("nothing").to_owned()
    };
    if !ended.success {
        bail!("{}: {}", ended.how, telling());
    }
    for wanted in step.says {
        if !ended.output.contains(wanted) {
            bail!("it did not say `{wanted}` but: {}", telling());
        }
    }
    Ok(())
}

/// The same with lines on its standard input.
fn fed(command: &Command, input: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "input=$1; shift; exec \"$@\" < \"$input\"", "sh"]).arg(input);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}
