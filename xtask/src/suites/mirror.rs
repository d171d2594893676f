//! MirrorMaker 2 between Cairn and Apache Kafka, in both directions at once.
//!
//! Who calls it: the list of suites. A dedicated MirrorMaker copies one topic each way, with configs, heartbeats and the offsets of
//! a group; it is ended, started again, and goes on. What arrived is read by Apache Kafka's console consumer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::outcome::{Case, waited};
use super::{Run, Setting, Suite, tools};
use crate::process::{Running, quiet};
use crate::{apache, places};

pub(super) const SUITE: Suite = Suite {
    name: "MirrorMaker 2, both directions",
    version: super::KAFKA,
    command: "connect-mirror-maker.sh mm2.properties, between Cairn and Apache Kafka 4.1.0",
    in_slice: false,
    install,
};

const MIRROR: &str = "org.apache.kafka.connect.mirror.MirrorMaker";
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";
const CONSUMER: &str = "org.apache.kafka.tools.VerifiableConsumer";
const READER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
/// Records that are there before it starts, and those that come after its restart.
const FIRST: usize = 2_000;
const SECOND: usize = 500;
/// A setting that must be copied with the topic.
const COPIED_CONFIG: &str = "retention.ms=7200000";
const TOOL_LIMIT: Duration = Duration::from_secs(120);
/// How long what is copied every few seconds may take.
const COPY_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(30);

fn install() -> anyhow::Result<Run> {
    let classes = tools::classes()?;
    Ok(Box::new(move |setting| run(setting, &classes)))
}

fn run(setting: &Setting, classes: &str) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("mirror")?;
    let (_kafka, kafka) = apache::kafka("suites-kafka", "384m")?;
    let folder = places::cache("suites")?.join("mirror");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let stage = Stage {
        classes,
        cairn: Side { name: "cairn", address: &broker.kafka },
        kafka: Side { name: "kafka", address: &kafka },
        folder: &folder,
    };
    let cases = stage.cases();
    super::keep("mirror", &std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
    let cases = cases?;
    broker.end()?;
    Ok(cases)
}

/// One of the two clusters.
#[derive(Clone, Copy)]
struct Side<'a> {
    name: &'static str,
    address: &'a str,
}

impl Side<'_> {
    /// The topic that is filled on this side.
    fn topic(&self) -> String {
        format!("from-{}", self.name)
    }

    /// What a topic of this side is called on the other.
    fn copy(&self, topic: &str) -> String {
        format!("{}.{topic}", self.name)
    }
}

struct Stage<'a> {
    classes: &'a str,
    cairn: Side<'a>,
    kafka: Side<'a>,
    folder: &'a Path,
}

impl Stage<'_> {
    fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let ways = [(self.cairn, self.kafka), (self.kafka, self.cairn)];
        for (from, _) in ways {
            let create = format!("--create --topic {} --partitions 3 --config {COPIED_CONFIG}", from.topic());
            self.tool(from, TOPICS, &create)?;
            self.fill(from, FIRST)?;
            let read = format!("--topic {} --group-id mirrored --max-messages {FIRST}", from.topic());
            self.tool(from, CONSUMER, &read)?;
        }
        self.configure()?;
        let mut mirror = self.start()?;
        let mut cases = Vec::new();
        for (from, to) in ways {
            let way = format!("{} to {}", from.name, to.name);
            let mut add = |what: &str, result| cases.push(Case::of(&format!("{way}: {what}"), result));
            add("every record, in order", self.arrived(from, to, FIRST));
            add("the topic's configs", self.configs(from, to));
            add("heartbeats", self.heartbeats(from, to));
            add("a group's offsets", self.offsets(from, to));
        }
        mirror.end(END_LIMIT);
        for (from, _) in ways {
            self.fill(from, SECOND)?;
        }
        let mut mirror = self.start()?;
        for (from, to) in ways {
            let name = format!("{} to {}: after a restart it goes on, nothing twice", from.name, to.name);
            cases.push(Case::of(&name, self.arrived(from, to, FIRST + SECOND)));
        }
        mirror.end(END_LIMIT);
        Ok(cases)
    }

    fn configure(&self) -> anyhow::Result<()> {
        let (cairn, kafka) = (self.cairn, self.kafka);
        let mut text = format!(
            "clusters=cairn,kafka\ncairn.bootstrap.servers={}\nkafka.bootstrap.servers={}\n\
             cairn->kafka.enabled=true\ncairn->kafka.topics={}\nkafka->cairn.enabled=true\nkafka->cairn.topics={}\n",
            cairn.address,
            kafka.address,
            cairn.topic(),
            kafka.topic()
        );
        text.push_str(
            "replication.factor=1\nsync.topic.acls.enabled=false\nsync.group.offsets.enabled=true\ntasks.max=2\n",
        );
        for topic in [
            "checkpoints.topic",
            "heartbeats.topic",
            "offset-syncs.topic",
            "offset.storage",
            "status.storage",
            "config.storage",
        ] {
            text.push_str(&format!("{topic}.replication.factor=1\n"));
        }
        for often in
            ["emit.checkpoints", "sync.group.offsets", "refresh.topics", "refresh.groups", "sync.topic.configs"]
        {
            text.push_str(&format!("{often}.interval.seconds=3\n"));
        }
        Ok(std::fs::write(self.folder.join("mm2.properties"), text)?)
    }

    fn start(&self) -> anyhow::Result<Running> {
        let mut mirror = tools::java(self.classes, MIRROR);
        mirror.arg("mm2.properties").current_dir(self.folder);
        Running::start_into(&mut mirror, &self.folder.join("log"))
    }

    fn tool(&self, side: Side<'_>, class: &str, arguments: &str) -> anyhow::Result<String> {
        let mut tool = tools::java(self.classes, class);
        tool.args(["--bootstrap-server", side.address]).args(arguments.split_whitespace());
        quiet(&mut tool, TOOL_LIMIT)
    }

    fn fill(&self, side: Side<'_>, records: usize) -> anyhow::Result<()> {
        self.tool(side, PRODUCER, &format!("--topic {} --max-messages {records}", side.topic())).map(drop)
    }

    /// What is in a topic, partition by partition, in order.
    fn read(&self, side: Side<'_>, topic: &str, records: usize) -> anyhow::Result<Vec<String>> {
        let arguments = format!(
            "--topic {topic} --from-beginning --timeout-ms 10000 --max-messages {records} --property print.partition=true"
        );
        let said = self.tool(side, READER, &arguments)?;
        let mut lines: Vec<String> =
            said.lines().filter(|line| line.starts_with("Partition:")).map(str::to_owned).collect();
        // Stable: within a partition the order is kept.
        lines.sort_by_key(|line| line.split('\t').next().unwrap_or_default().to_owned());
        Ok(lines)
    }

    /// The sum of a topic's end offsets; 0 where it is not there.
    fn ends(&self, side: Side<'_>, topic: &str) -> usize {
        let said = self.tool(side, OFFSETS, &format!("--topic {topic} --time latest")).unwrap_or_default();
        said.lines().filter_map(|line| line.strip_prefix(topic)?.rsplit(':').next()?.parse::<usize>().ok()).sum()
    }

    fn arrived(&self, from: Side<'_>, to: Side<'_>, records: usize) -> anyhow::Result<()> {
        let copy = from.copy(&from.topic());
        waited("the last record", COPY_LIMIT, || (self.ends(to, &copy) >= records).then_some(()))?;
        let (there, here) = (self.read(from, &from.topic(), records)?, self.read(to, &copy, records + 1)?);
        if there.len() != records || there != here {
            bail!("{} records became {}, or another order", there.len(), here.len());
        }
        Ok(())
    }

    fn configs(&self, from: Side<'_>, to: Side<'_>) -> anyhow::Result<()> {
        let describe = format!("--describe --topic {}", from.copy(&from.topic()));
        waited(COPIED_CONFIG, COPY_LIMIT, || {
            self.tool(to, TOPICS, &describe).is_ok_and(|said| said.contains(COPIED_CONFIG)).then_some(())
        })
    }

    fn heartbeats(&self, from: Side<'_>, to: Side<'_>) -> anyhow::Result<()> {
        let copy = from.copy("heartbeats");
        waited(&copy, COPY_LIMIT, || (self.ends(to, &copy) > 0).then_some(()))
    }

    /// The other side knows how far the group was in the copy, and not past its end.
    fn offsets(&self, from: Side<'_>, to: Side<'_>) -> anyhow::Result<()> {
        let copy = from.copy(&from.topic());
        let lines = || -> Vec<(i64, i64)> {
            let said = self.tool(to, GROUPS, "--describe --group mirrored --offsets").unwrap_or_default();
            let row = |line: &str| {
                let cells: Vec<_> = line.split_whitespace().collect();
                let is_ours = cells.get(1) == Some(&copy.as_str());
                is_ours.then(|| Some((cells.get(3)?.parse().ok()?, cells.get(4)?.parse().ok()?))).flatten()
            };
            said.lines().filter_map(row).collect()
        };
        let offsets = waited("the group", COPY_LIMIT, || Some(lines()).filter(|lines| !lines.is_empty()))?;
        let past = offsets.iter().find(|(offset, end)| offset > end || *offset < 0);
        past.map_or(Ok(()), |past| Err(anyhow::anyhow!("a committed offset past the end: {past:?}"))).context("offsets")
    }
}
