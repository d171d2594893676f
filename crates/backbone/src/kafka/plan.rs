//! What an administrator must create where Cairn may not: topics with their settings, and the access that it needs.
//!
//! `cairn topics plan` prints it, as command lines of Apache Kafka's own tools or as JSON. It holds no secret.

use std::{collections::BTreeMap, fmt};

use cairn_contract::{TopicPrefix, topics};
use serde::Serialize;

use super::{KafkaOptions, cluster::settings};

/// Topics and access.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Where.
    bootstrap: String,
    topics: Vec<PlannedTopic>,
    acls: Vec<PlannedAcl>,
}

#[derive(Clone, Debug, Serialize)]
struct PlannedTopic {
    name: String,
    partitions: u32,
    /// Absent is the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_factor: Option<i32>,
    key: &'static str,
    configs: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, Serialize)]
struct PlannedAcl {
    principal: String,
    resource: &'static str,
    name: String,
    operations: Vec<&'static str>,
}

/// What Cairn needs on that cluster: a gateway as `writer`, and where one is named, people and programs that read as `reader`.
/// Those who may read a tenant's topics only are for the administrator to name.
#[must_use]
pub fn plan(options: &KafkaOptions, tenants: &[TopicPrefix], writer: &str, reader: Option<&str>) -> Plan {
    let mut plan = Plan { bootstrap: options.bootstrap.clone(), topics: Vec::new(), acls: Vec::new() };
    let common = TopicPrefix::default();
    let all = std::iter::once(&common).chain(tenants);
    for (prefix, spec) in all.flat_map(|prefix| topics().map(|spec| (prefix, spec))) {
        let name = prefix.name(spec.topic).into_owned();
        plan.topics.push(PlannedTopic {
            name: name.clone(),
            partitions: spec.partitions,
            replication_factor: (options.replication > 0).then_some(options.replication),
            key: spec.key,
            configs: settings(&spec, options.min_insync_replicas),
        });
        let mut acl = |principal: &str, operations| {
            plan.acls.push(PlannedAcl {
                principal: principal.to_owned(),
                resource: "topic",
                name: name.clone(),
                operations,
            });
        };
        acl(writer, vec!["Write", "Read", "Describe", "DescribeConfigs"]);
        if let Some(reader) = reader {
            acl(reader, vec!["Read", "Describe"]);
        }
    }
    // Brokers before 2.8 ask for it; later ones take Write on the topic for it.
    let operations = vec!["IdempotentWrite"];
    plan.acls.push(PlannedAcl {
        principal: writer.to_owned(),
        resource: "cluster",
        name: "kafka-cluster".to_owned(),
        operations,
    });
    plan
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = format!("--bootstrap-server {}", quoted(&self.bootstrap));
        writeln!(f, "# topics; a cluster that asks who you are wants --command-config FILE too")?;
        for topic in &self.topics {
            write!(
                f,
                "kafka-topics.sh {at} --create --if-not-exists --topic {} --partitions {}",
                topic.name, topic.partitions
            )?;
            if let Some(replicas) = topic.replication_factor {
                write!(f, " --replication-factor {replicas}")?;
            }
            for (name, value) in &topic.configs {
                write!(f, " --config {name}={value}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "# access; nobody else may write, alter or delete these topics")?;
        for acl in &self.acls {
            write!(f, "kafka-acls.sh {at} --add --allow-principal {}", quoted(&acl.principal))?;
            for operation in &acl.operations {
                write!(f, " --operation {operation}")?;
            }
            match acl.resource {
                "topic" => writeln!(f, " --topic {}", acl.name)?,
                _ => writeln!(f, " --cluster")?,
            }
        }
        Ok(())
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:,/@=[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_every_topic_and_prints_no_secret() {
        let mut options = KafkaOptions::new("broker:9092", "spool");
        options.properties.insert("sasl.password".to_owned(), "s3cret".to_owned());
        options.replication = 3;
        options.min_insync_replicas = Some(2);
        let plan =
            plan(&options, &[TopicPrefix::of("acme").expect("a name")], "User:cairn", Some("User:CN=audit team"));
        let (words, json) = (plan.to_string(), serde_json::to_string(&plan).expect("JSON"));
        for spec in topics() {
            let line = format!("--topic {} --partitions {} --replication-factor 3", spec.name, spec.partitions);
            assert!(words.contains(&line) && json.contains(spec.name), "{words}");
            assert!(words.contains(&format!("--topic acme.{}", &line[8..])), "{words}");
        }
        assert!(words.contains("--config min.insync.replicas=2") && words.contains("'User:CN=audit team'"), "{words}");
        assert!(!words.contains("s3cret") && !json.contains("s3cret"));
    }
}
