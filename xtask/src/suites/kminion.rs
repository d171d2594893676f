//! KMinion's end-to-end mode: it writes, reads and commits all the time, and says what was lost and what it can read of a broker.
//!
//! Who calls it: the list of suites. The program is the one that `KMINION_BIN` names, or `kminion` on the path, or is built
//! from its Go module. Its own integration script looks for the same metrics.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::connect::get;
use super::outcome::{Case, waited};
use super::{Run, Setting, Suite};
use crate::apache::{free_address, listening};
use crate::places;
use crate::process::{Running, quiet, version};

pub(super) const SUITE: Suite = Suite {
    name: "KMinion, end-to-end mode",
    version: "2.3.5",
    command: "KAFKA_BROKERS=BROKER MINION_ENDTOEND_ENABLED=true kminion",
    in_slice: false,
    install,
};

const MODULE: &str = "github.com/cloudhut/kminion/v2@v2.3.5";
const SET_UP_LIMIT: Duration = Duration::from_secs(900);
/// Messages that must have come back before it is looked at.
const MESSAGES: f64 = 300.0;
const MESSAGES_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take until it tells the rest.
const TOLD_LIMIT: Duration = Duration::from_secs(20);
/// What it must be able to tell of a broker, as its makers' own script asks.
const TOLD: [&str; 13] = [
    "kminion_exporter_up",
    "kminion_kafka_cluster_info",
    "kminion_kafka_broker_info",
    "kminion_kafka_topic_info",
    "kminion_kafka_topic_partition_high_water_mark",
    "kminion_kafka_topic_high_water_mark_sum",
    "kminion_kafka_topic_partition_low_water_mark",
    "kminion_kafka_topic_low_water_mark_sum",
    "kminion_kafka_consumer_group_info",
    "kminion_kafka_consumer_group_members",
    "kminion_kafka_consumer_group_topic_lag",
    "kminion_kafka_broker_log_dir_size_total_bytes",
    "kminion_kafka_topic_log_dir_size_total_bytes",
];

fn install() -> anyhow::Result<Run> {
    let program = program()?;
    Ok(Box::new(move |setting| run(setting, &program)))
}

fn program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("KMINION_BIN") {
        return Ok(PathBuf::from(program));
    }
    let folder = places::cache("suites")?.join("bin");
    let program = folder.join("kminion");
    if !program.is_file() {
        version("go", "version").context("go is not installed")?;
        let mut install = Command::new("go");
        quiet(install.args(["install", MODULE]).env("GOBIN", &folder), SET_UP_LIMIT)
            .context("KMINION_BIN names no program, and its Go module cannot be had here")?;
    }
    Ok(program)
}

fn run(setting: &Setting, program: &Path) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for mode in ["adminApi", "offsetsTopic"] {
        let broker = setting.broker("kminion")?;
        let log = places::cache("suites")?.join(format!("kminion-{mode}.log"));
        let _ = std::fs::remove_file(&log);
        let page = watch(program, &broker.kafka, mode, &log);
        let mut add = |what: &str, result| cases.push(Case::of(&format!("{mode}: {what}"), result));
        match page {
            Err(error) => add("messages come back", Err(error)),
            Ok(page) => {
                add("messages come back", Ok(()));
                add("no message is lost, none fails to be written", nothing_lost(&page));
                add("offsets are committed, none fails", committed(&page));
                for name in TOLD {
                    add(name, value(&page, name).map(drop).context("it cannot tell"));
                }
                if mode == "offsetsTopic" {
                    let name = "kminion_exporter_offset_consumer_records_consumed_total";
                    add(name, value(&page, name).map(drop).context("it cannot read __consumer_offsets"));
                }
            }
        }
        broker.end()?;
    }
    Ok(cases)
}

/// Has it run for some hundred messages; gives its page of metrics.
fn watch(program: &Path, broker: &str, mode: &str, log: &Path) -> anyhow::Result<String> {
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address without a port")?;
    let mut command = Command::new(program);
    command.env("KAFKA_BROKERS", broker).env("MINION_ENDTOEND_ENABLED", "true");
    command.env("MINION_ENDTOEND_PROBEINTERVAL", "20ms").env("MINION_CONSUMERGROUPS_SCRAPEMODE", mode);
    command.env("EXPORTER_HOST", host).env("EXPORTER_PORT", port).env_remove("CONFIG_FILEPATH");
    let (_running, address) = listening(Running::start_into(&mut command, log)?, &address, log)?;
    let read = || get(&address, "/metrics").unwrap_or_default();
    let came =
        |page: &str| value(page, "kminion_end_to_end_messages_received_total").is_some_and(|count| count >= MESSAGES);
    let committed =
        |page: &str| value(page, "kminion_end_to_end_offset_commits_total").is_some_and(|count| count > 0.0);
    let whole = || Some(read()).filter(|page| came(page) && committed(page));
    waited("some hundred messages", MESSAGES_LIMIT, whole)?;
    // It learns of what it has just written a little later.
    let all_told = || Some(read()).filter(|page| TOLD.iter().all(|name| value(page, name).is_some()));
    Ok(waited("the rest", TOLD_LIMIT, all_told).unwrap_or_else(|_| read()))
}

/// The sum of a metric's series; nothing where there is none.
fn value(page: &str, name: &str) -> Option<f64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    page.lines()
        .filter(of_name)
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .reduce(|sum, more| sum + more)
}

fn none(page: &str, name: &str) -> anyhow::Result<()> {
    match value(page, name) {
        None | Some(0.0) => Ok(()),
        Some(count) => bail!("{name} is {count}"),
    }
}

fn nothing_lost(page: &str) -> anyhow::Result<()> {
    none(page, "kminion_end_to_end_messages_lost_total")?;
    none(page, "kminion_end_to_end_messages_produced_failed_total")
}

fn committed(page: &str) -> anyhow::Result<()> {
    none(page, "kminion_end_to_end_offset_commits_failed_total")
}

#[cfg(test)]
mod tests {
    use super::{none, value};

    #[test]
    fn a_metric_is_the_sum_of_its_series() {
        let page = "# HELP up x\nup 1\nlost{partition_id=\"0\"} 2\nlost{partition_id=\"1\"} 3\nlost_other 9\n";
        assert_eq!(value(page, "lost"), Some(5.0));
        assert_eq!(value(page, "up"), Some(1.0));
        assert_eq!(value(page, "u"), None);
        assert!(none(page, "lost").is_err() && none(page, "gone").is_ok());
    }
}
