//! Cairn and Apache Kafka are asked the same, request by request, and their answers compared. The one suite that is ours.
//!
//! Who calls it: the list of suites. The questions are in `clients/differential/`; they are put together from the definitions in Apache
//! Kafka's own jar, so that no client's habits lie between. Every step at which the answers differ is a test that failed: it
//! is mended, or `known.md` says why it stays.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::outcome::{Case, Outcome};
use super::{Run, Setting, Suite};
use crate::cairn::Cairn;
use crate::process::{Running, version};
use crate::{apache, places};

pub(super) const SUITE: Suite = Suite {
    name: "Apache Kafka, answer by answer",
    version: super::KAFKA,
    command: "clients/differential/compare.py --jar kafka-clients.jar --one BROKER --other KAFKA",
    in_slice: false,
    install,
};

/// Both let everybody do everything, and know rules that say who may.
const RULES: &str = "authorization = \"acl\"\nallow_everyone_if_no_acl = true\nsuper_users = [\"ANONYMOUS\"]\n";
const RULES_OF_KAFKA: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                              allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n";
const HEAP: &str = "512m";
const RUN_LIMIT: Duration = Duration::from_secs(1200);

fn install() -> anyhow::Result<Run> {
    version("python3", "--version").context("python3 is not installed")?;
    let jar = apache::jar("suites-kafka", "kafka-clients-")?;
    Ok(Box::new(move |setting| run(setting, &jar)))
}

fn run(setting: &Setting, jar: &str) -> anyhow::Result<Vec<Case>> {
    let (_kafka, kafka) = apache::kafka_with("suites-kafka", HEAP, RULES_OF_KAFKA)?;
    let mut broker = Cairn::new(&setting.program, "suite-differential", None)?;
    broker.broker_alone();
    broker.configure(&format!("[kafka]\n{RULES}"))?;
    broker.start()?;
    let mut compare = Command::new("python3");
    compare.arg("-B").arg(places::root().join("clients/differential/compare.py"));
    compare.args(["--jar", jar, "--one", &broker.kafka, "--other", &kafka]);
    let ended = Running::start(&mut compare)?.follow(RUN_LIMIT, |_| ())?;
    super::keep("differential", &ended.output)?;
    broker.end()?;
    let cases = cases(&ended.output);
    ended.ok()?;
    Ok(cases)
}

/// Reads what `compare.py` prints: `same STEP`, or `differs STEP | where`.
fn cases(output: &str) -> Vec<Case> {
    let one = |line: &str| {
        if let Some(step) = line.strip_prefix("same ") {
            return Some(Case::new(step.to_owned(), Outcome::Passed));
        }
        let (step, why) = line.strip_prefix("differs ")?.split_once(" | ")?;
        Some(Case::new(step.to_owned(), Outcome::Failed(why.to_owned())))
    };
    output.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::{Outcome, cases};

    #[test]
    fn a_step_at_which_the_answers_differ_has_failed() {
        let cases = cases(
            "same reading.offsets: Fetch offset 0\n\
             differs reading.offsets: Fetch offset -1 | versions 4 to 12 of 9: errorCode: 1, 0\n\
             Traceback (most recent call last):\n",
        );
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["reading.offsets: Fetch offset 0", "reading.offsets: Fetch offset -1"]);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!(cases[1].outcome, Outcome::Failed("versions 4 to 12 of 9: errorCode: 1, 0".to_owned()));
    }
}
