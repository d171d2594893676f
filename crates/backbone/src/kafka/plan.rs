//! What an administrator must create where Cairn may not: topics with their settings, and the access that it needs.

use std::fmt::Write;

use cairn_contract::topics;

use super::{KafkaOptions, cluster::settings};

/// The commands for topics and ACLs, for Apache Kafka's own tools. Prints no secret.
#[must_use]
pub fn plan(options: &KafkaOptions, principal: &str) -> String {
    let at = format!("--bootstrap-server {}", options.bootstrap);
    let mut out = String::from("# topics\n");
    for spec in topics() {
        let _ = write!(
            out,
            "kafka-topics.sh {at} --create --if-not-exists --topic {} --partitions {}",
            spec.name, spec.partitions
        );
        if options.replication > 0 {
            let _ = write!(out, " --replication-factor {}", options.replication);
        }
        for (name, value) in settings(&spec, options.min_insync_replicas) {
            let _ = write!(out, " --config {name}={value}");
        }
        out.push('\n');
    }
    out.push_str("# access: nobody else may write, alter or delete these topics\n");
    for spec in topics() {
        for operation in ["Write", "Read", "Describe", "DescribeConfigs"] {
            let _ = writeln!(
                out,
                "kafka-acls.sh {at} --add --allow-principal {principal} --operation {operation} --topic {}",
                spec.name
            );
        }
    }
    let _ =
        writeln!(out, "kafka-acls.sh {at} --add --allow-principal {principal} --operation IdempotentWrite --cluster");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_every_topic_and_prints_no_secret() {
        let mut options = KafkaOptions::new("broker:9092", "spool");
        options.properties.insert("sasl.password".to_owned(), "s3cret".to_owned());
        let plan = plan(&options, "User:cairn");
        for spec in topics() {
            assert!(plan.contains(&format!("--topic {} --partitions {}", spec.name, spec.partitions)), "{plan}");
        }
        assert!(!plan.contains("s3cret"));
    }
}
