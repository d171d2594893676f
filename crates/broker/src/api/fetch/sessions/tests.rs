//! What must hold of fetch sessions, without a broker.

use bytes::Bytes;
use kafka_protocol::messages::{fetch_request::ForgottenTopic, fetch_response::PartitionData};

use super::*;

fn topic(name: &'static str, partitions: std::ops::Range<i32>) -> FetchTopic {
    let partitions = partitions.map(|at| FetchPartition::default().with_partition(at).with_fetch_offset(5)).collect();
    FetchTopic::default().with_topic(TopicName(StrBytes::from_static_str(name))).with_partitions(partitions)
}

fn request(id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(topics)
}

fn data(partition: i32, end: i64, records: &'static [u8]) -> Part {
    let data = PartitionData::default().with_partition_index(partition).with_high_watermark(end);
    Part { topic: 0, data: data.with_log_start_offset(0), batches: vec![Bytes::from_static(records)] }
}

struct Bench {
    sessions: FetchSessions,
    now: Instant,
}

impl Bench {
    fn new(sessions_max: usize, partitions_max: usize) -> Self {
        let sessions = FetchSessions::new(sessions_max, partitions_max, Entropy::seeded(1));
        Self { sessions, now: Instant::now() }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// The session's id, and the partitions that are told.
    fn fetch(
        &self,
        mut request: FetchRequest,
        answer: impl Fn(&Asked) -> Part,
    ) -> Result<(i32, Vec<i32>), ResponseError> {
        let (purpose, asked) = self.sessions.begin(&mut request, false, self.now)?;
        let mut answers = asked.iter().map(answer).collect();
        let id = self.sessions.finish(purpose, false, &asked, &mut answers, self.now);
        Ok((id, answers.iter().map(|part| part.data.partition_index).collect()))
    }
}

fn same(asked: &Asked) -> Part {
    data(asked.partition.partition, 9, b"")
}

#[test]
fn only_what_is_new_is_told_and_who_had_records_waits_behind_the_others() {
    let bench = Bench::new(10, 100);
    let (id, told) = bench.fetch(request(0, 0, vec![topic("t", 0..3)]), same).expect("opens");
    assert!(id > 0 && told == [0, 1, 2]);
    assert_eq!(bench.fetch(request(id, 1, vec![]), same), Ok((id, vec![])), "nothing is new");
    let with_records =
        |asked: &Asked| data(asked.partition.partition, 9, if asked.partition.partition == 0 { b"r" } else { b"" });
    assert_eq!(bench.fetch(request(id, 2, vec![]), with_records), Ok((id, vec![0])));
    let all_have = |asked: &Asked| data(asked.partition.partition, 9, b"r");
    assert_eq!(bench.fetch(request(id, 3, vec![]), all_have), Ok((id, vec![1, 2, 0])));
    let failed = |asked: &Asked| {
        let mut part = same(asked);
        part.data.error_code = i16::from(asked.partition.partition == 1);
        part
    };
    assert_eq!(bench.fetch(request(id, 4, vec![]), failed), Ok((id, vec![1])));
    assert_eq!(
        bench.fetch(request(id, 5, vec![]), same),
        Ok((id, vec![1])),
        "after an error it is told that all is well"
    );
    let trimmed = |asked: &Asked| {
        let mut part = same(asked);
        part.data.log_start_offset = i64::from(asked.partition.partition == 2);
        part
    };
    assert_eq!(bench.fetch(request(id, 6, vec![]), trimmed), Ok((id, vec![2])));
}

#[test]
fn partitions_are_added_changed_and_forgotten_and_an_empty_session_ends() {
    let bench = Bench::new(10, 100);
    let (id, _) = bench.fetch(request(0, 0, vec![topic("t", 0..2)]), same).expect("opens");
    let more = request(id, 1, vec![topic("u", 7..8), topic("t", 1..2)]);
    assert_eq!(bench.fetch(more, same), Ok((id, vec![7])), "what is new; a change of what is asked is not");
    assert_eq!(bench.sessions.stats().partitions, 3);
    let forget = |name, partitions: Vec<i32>| {
        ForgottenTopic::default().with_topic(TopicName(StrBytes::from_static_str(name))).with_partitions(partitions)
    };
    let less = request(id, 2, vec![]).with_forgotten_topics_data(vec![forget("t", vec![0, 5]), forget("no", vec![1])]);
    let (_, told) = bench.fetch(less, |asked| data(asked.partition.partition, 10, b"")).expect("goes on");
    assert_eq!((told, bench.sessions.stats().partitions), (vec![1, 7], 2));
    let none = request(id, 3, vec![]).with_forgotten_topics_data(vec![forget("t", vec![1]), forget("u", vec![7])]);
    assert_eq!(bench.fetch(none, same), Ok((0, vec![])));
    assert_eq!(bench.sessions.stats(), FetchSessionStats::default());
}

#[test]
fn a_wrong_epoch_id_or_kind_of_name_is_refused_and_a_whole_request_begins_anew() {
    let bench = Bench::new(10, 100);
    let (id, _) = bench.fetch(request(0, 0, vec![topic("t", 0..2)]), same).expect("opens");
    for epoch in [2, 7, -2, i32::MAX] {
        assert_eq!(bench.fetch(request(id, epoch, vec![]), same), Err(ResponseError::InvalidFetchSessionEpoch));
    }
    assert_eq!(bench.fetch(request(id ^ 1, 1, vec![]), same), Err(ResponseError::FetchSessionIdNotFound));
    let by_id = bench.sessions.begin(&mut request(id, 1, vec![]), true, bench.now);
    assert_eq!(by_id.map(|_| ()), Err(ResponseError::FetchSessionTopicIdError));
    assert_eq!(bench.fetch(request(id, 1, vec![]), same), Ok((id, vec![])), "what was refused changed nothing");
    assert_eq!(bench.fetch(request(id, 1, vec![]), same), Err(ResponseError::InvalidFetchSessionEpoch), "said twice");
    let (another, told) = bench.fetch(request(id, 0, vec![topic("t", 0..1)]), same).expect("opens");
    assert!(another != id && told == [0]);
    assert_eq!(bench.fetch(request(id, 2, vec![]), same), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(bench.fetch(request(another, -1, vec![topic("t", 0..1)]), same), Ok((0, vec![0])), "the last of it");
    assert_eq!(bench.sessions.stats().sessions, 0);
    assert_eq!((next(i32::MAX), next(0)), (1, 1));
}

#[test]
fn sessions_and_their_partitions_are_bounded_and_what_is_used_is_kept() {
    let mut bench = Bench::new(2, 10);
    let open = |bench: &Bench, partitions| {
        let answer = bench.fetch(request(0, 0, vec![topic("t", 0..partitions)]), same).expect("answered");
        assert_eq!(answer.1.len(), usize::try_from(partitions).expect("few"), "whole, with or without a session");
        answer.0
    };
    let (first, second) = (open(&bench, 2), open(&bench, 4));
    assert!(first > 0 && second > 0);
    assert_eq!(open(&bench, 4), 0, "no room, and nobody has been away for long");
    bench.pass(100);
    assert_eq!(bench.fetch(request(second, 1, vec![]), same), Ok((second, vec![])));
    bench.pass(30);
    let third = open(&bench, 1);
    assert!(third > 0, "the room of who has been away for longest");
    assert_eq!(bench.fetch(request(first, 1, vec![]), same), Err(ResponseError::FetchSessionIdNotFound));
    let fourth = open(&bench, 6);
    assert!(fourth > 0, "the room of one with fewer partitions that has been there for long: the second");
    assert_eq!(bench.fetch(request(second, 2, vec![]), same), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(bench.sessions.stats(), FetchSessionStats { sessions: 2, partitions: 7, evicted: 2 });
    assert_eq!(open(&bench, 11), 0, "more than all may have");
    let too_many = request(third, 1, vec![topic("more", 0..9)]);
    assert_eq!(bench.fetch(too_many, same), Err(ResponseError::FetchSessionIdNotFound), "nor by growing");
    assert_eq!(bench.sessions.stats(), FetchSessionStats { sessions: 1, partitions: 6, evicted: 2 });
    let long = FetchTopic::default().with_topic(TopicName(StrBytes::from_string("n".repeat(250))));
    let long = long.with_partitions(vec![FetchPartition::default()]);
    assert_eq!(bench.fetch(request(0, 0, vec![long]), same), Ok((0, vec![0])), "no such name is kept");
}
