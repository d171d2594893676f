//! What the scoreboard must have.

use super::{SUITES, board};
use crate::places;

/// The suites that must be there, by what their names contain.
const NAMED: [&str; 9] = [
    "franz-go",
    "kafka-python",
    "Apache Kafka's tools",
    "Kafka Connect",
    "MirrorMaker 2",
    "Kafka Streams",
    "KMinion",
    "Sarama",
    "librdkafka",
];

#[test]
fn the_scoreboard_has_every_suite_with_its_figures() {
    let path = places::root().join("docs/kafka-suites.md");
    let document = std::fs::read_to_string(&path).expect("docs/kafka-suites.md");
    for suite in &SUITES {
        let row = board::row_of(&document, suite.name);
        let row = row.unwrap_or_else(|| panic!("docs/kafka-suites.md lacks {}: run `cargo xtask suites`", suite.name));
        let passed = row.split('|').nth(3).unwrap_or_default().trim();
        assert!(passed.parse::<u32>().is_ok(), "{} has no figures: run `cargo xtask suites`", suite.name);
    }
    for name in NAMED {
        assert!(SUITES.iter().any(|suite| suite.name.contains(name)), "{name} is no suite any more");
    }
}

#[test]
fn every_reason_in_the_scoreboard_is_known() {
    let path = places::root().join("docs/kafka-suites.md");
    let document = std::fs::read_to_string(&path).expect("docs/kafka-suites.md");
    assert!(!document.contains("not known yet"), "docs/kafka-suites.md has a test without a reason");
}
