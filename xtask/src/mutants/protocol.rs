//! The mutants of what Kafka 4 asks of a broker: its newest versions, metrics of clients, quotas of time, hints to who leads. Written
//! like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "what a version has that the codec lacks is lost",
        file: "crates/broker/src/api/frame.rs",
        before: "decoded.add(&mut self.rest.clone());",
        after: "decoded.add(&mut Bytes::new());",
        test: "-p cairn-broker --test protocol versions::offsets_go",
    },
    Mutant {
        name: "what is dropped from a body stays in it",
        file: "crates/broker/src/wire/shape.rs",
        before: "if self.is_dropping { &mut self.dropped } else { &mut self.body }",
        after: "if self.to < 0 { &mut self.dropped } else { &mut self.body }",
        test: "-p cairn-broker --lib wire::tests::a_commit_by_topic_id",
    },
    Mutant {
        name: "who means another cluster is welcomed",
        file: "crates/broker/src/api/clients.rs",
        before: "(is_other_cluster || is_other_node)",
        after: "(is_other_cluster && is_other_node)",
        test: "-p cairn-broker --test protocol versions::who_means",
    },
    Mutant {
        name: "the end of the log is told as the first that is not stored",
        file: "crates/broker/src/api/offset_list.rs",
        before: "Ok(now(tiers()?.stored.max(bounds.log_start)))",
        after: "Ok(now(bounds.durable_end))",
        test: "-p cairn-broker --test protocol times::what_is_not_stored",
    },
    Mutant {
        name: "a push of another subscription is taken",
        file: "crates/broker/src/telemetry.rs",
        before: "if subscription != client.wanted.id {",
        after: "if subscription == 0 && client.is_ending {",
        test: "-p cairn-broker --lib telemetry::tests::a_client_is_asked",
    },
    Mutant {
        name: "a client pushes as often as it likes",
        file: "crates/broker/src/telemetry.rs",
        before: "if !is_due && !ends {",
        after: "if !is_due && client.is_ending {",
        test: "-p cairn-broker --lib telemetry::tests::a_client_is_asked",
    },
    Mutant {
        name: "a push unpacks without end",
        file: "crates/broker/src/telemetry.rs",
        before: "compression.unpack(packed, UNPACKED_BYTES_MAX)",
        after: "compression.unpack(packed, 16 * UNPACKED_BYTES_MAX)",
        test: "-p cairn-broker --lib telemetry::tests::a_client_is_asked",
    },
    Mutant {
        name: "what clients push is kept without bound",
        file: "crates/broker/src/telemetry.rs",
        before: "let room = POINTS_MAX.saturating_sub(others).min(pushed.points.len());",
        after: "let room = pushed.points.len();",
        test: "-p cairn-broker --lib telemetry::tests::clients_and_their",
    },
    Mutant {
        name: "a subscription is for every client",
        file: "crates/broker/src/telemetry.rs",
        before: "subscriptions.iter().filter(|subscription| subscription.fits(traits))",
        after: "subscriptions.iter().filter(|subscription| subscription.fits(traits) || true)",
        test: "-p cairn-broker --lib telemetry::tests::a_client_is_asked",
    },
    Mutant {
        name: "time that a request waited is held against its client",
        file: "crates/broker/src/api/worked.rs",
        before: "        took += began.elapsed();\n        polled\n    })\n    .await;\n    (output, took)",
        after: "        took += began.elapsed();\n        polled\n    })\n    .await;\n    (output, took + Duration::from_millis(70))",
        test: "-p cairn-broker --lib api::worked",
    },
    Mutant {
        name: "time is not counted against a quota",
        file: "crates/broker/src/quotas.rs",
        before: "let (key, rate) = (level.key(REQUESTS, who.name(), client_id), hundredths * HUNDREDTH_NS);",
        after: "let (key, rate) = (level.key(REQUESTS, who.name(), client_id), hundredths * HUNDREDTH_NS * 1e9);",
        test: "-p cairn-broker --lib quotas::tests::time_is_counted",
    },
    Mutant {
        name: "who waits for its time is read all the same",
        file: "crates/broker/src/api/mod.rs",
        before: "    session.throttled = waits;\n",
        after: "    let _ = waits;\n",
        test: "-p cairn-broker --test protocol quotas::whose_requests",
    },
    Mutant {
        name: "a group's own pace counts for nothing",
        file: "crates/broker/src/group/member.rs",
        before: "self.paces.0.read().get(group).copied().unwrap_or_default()",
        after: "self.paces.0.read().get(\"\").copied().unwrap_or_default()",
        test: "-p cairn-broker --lib group::consumer::tests::a_group_with_a_pace",
    },
    Mutant {
        name: "a group's pace is forgotten at a restart",
        file: "crates/broker/src/resources.rs",
        before: "groups.iter().for_each(|(name, given)| paces.set(name, pace(given)));",
        after: "groups.iter().for_each(|(name, _)| paces.set(name, Pace::default()));",
        test: "-p cairn-broker --test protocol telemetry::a_group_may",
    },
    Mutant {
        name: "who was replaced says that it leads",
        file: "crates/broker/src/api/fetch.rs",
        before: "    if broker.inner.log.is_fenced() {\n        return Err(ResponseError::NotLeaderOrFollower.code());\n    }\n",
        after: "",
        test: "-p cairn-broker --test protocol describing::clients_of_a_broker",
    },
    Mutant {
        name: "who was replaced does not say who leads",
        file: "crates/broker/src/api/leaders.rs",
        before: "        partition.current_leader = leader.clone();\n    }\n    let (host, port) = (text(peer.address.host), i32::from(peer.address.port));\n    let endpoint = ProduceEndpoint",
        after: "        partition.current_leader.leader_epoch = 0;\n    }\n    let (host, port) = (text(peer.address.host), i32::from(peer.address.port));\n    let endpoint = ProduceEndpoint",
        test: "-p cairn-broker --test protocol describing::clients_of_a_broker",
    },
];
