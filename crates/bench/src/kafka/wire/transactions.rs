//! Transactions as a client sends them that does nothing else: FindCoordinator 1 once, InitProducerId 1, AddPartitionsToTxn 2, Produce 7,
//! EndTxn 2, the last versions before fields got tags.

use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::{Buf, BufMut};

use super::{Marks, Wire, batch_of, count, produce_in, put_count, put_string, refusal, request, string, take};

/// Until the broker ends a transaction by itself, in milliseconds.
const TIMEOUT_MS: i32 = 60_000;
/// The kind of a coordinator, in FindCoordinator.
const TRANSACTION: i8 = 1;
/// What is answered while the transaction before is not quite ended, or its coordinator not there yet.
const LATER: [i16; 4] = [14, 15, 16, 51];
const LATER_PAUSE: Duration = Duration::from_millis(1);
const LATER_MAX: usize = 30_000;

/// A producer with a transactional id, on a connection of its own.
pub(in super::super) struct Transactional {
    wire: Wire,
    id: String,
    topic: String,
    producer: (i64, i16),
    /// The next sequence of each partition.
    sequences: Vec<i32>,
}

impl Transactional {
    pub(in super::super) fn begin(at: &str, id: &str, topic: &str, partitions: usize) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(at)?;
        // Apache Kafka makes the topic that keeps transactions when it is asked for a coordinator, and not before.
        let find = request(10, 1, |body| {
            put_string(body, id);
            body.put_i8(TRANSACTION);
        });
        again("its coordinator", || {
            wire.send(&find)?;
            Ok(({ &take(&mut wire.receive()?.0, 4 + 2)?[4..] }.get_i16(), ()))
        })?;
        let ask = request(22, 1, |body| {
            put_string(body, id);
            body.put_i32(TIMEOUT_MS);
        });
        let producer = again("its producer", || {
            wire.send(&ask)?;
            let mut answer = take(&mut wire.receive()?.0, 4 + 2 + 8 + 2)?;
            let code = { &answer[4..] }.get_i16();
            answer.advance(6);
            Ok((code, (answer.get_i64(), answer.get_i16())))
        })?;
        Ok(Self { wire, id: id.to_owned(), topic: topic.to_owned(), producer, sequences: vec![0; partitions] })
    }

    /// One transaction of so many records, spread over the partitions, until the broker says that it is committed.
    pub(in super::super) fn commit(&mut self, records: usize, value: &[u8]) -> anyhow::Result<()> {
        self.add()?;
        let (producer, epoch) = self.producer;
        let partitions = self.sequences.len();
        let mut made = Vec::new();
        for (partition, sequence) in self.sequences.iter_mut().enumerate() {
            let here = (records + partitions - 1 - partition) / partitions;
            made.push(batch_of(here, value, Marks { producer, epoch, sequence: *sequence, in_transaction: true }).0);
            *sequence += i32::try_from(here)?;
        }
        let batches: Vec<_> = (0..).zip(&made).map(|(partition, batch)| (partition, batch.as_slice())).collect();
        self.wire.send(&produce_in(Some(&self.id), &self.topic, &batches))?;
        let code = refusal(self.wire.receive()?.0)?;
        ensure!(code == 0, "a batch of a transaction was refused with error {code}");
        let end = request(26, 2, |body| {
            put_string(body, &self.id);
            body.put_i64(self.producer.0);
            body.put_i16(self.producer.1);
            body.put_i8(1);
        });
        again("its end", || {
            self.wire.send(&end)?;
            let code = { &take(&mut self.wire.receive()?.0, 4 + 2)?[4..] }.get_i16();
            Ok((code, ()))
        })
    }

    fn add(&mut self) -> anyhow::Result<()> {
        let add = request(24, 2, |body| {
            put_string(body, &self.id);
            body.put_i64(self.producer.0);
            body.put_i16(self.producer.1);
            put_count(body, 1);
            put_string(body, &self.topic);
            put_count(body, self.sequences.len());
            (0..).zip(&self.sequences).for_each(|(partition, _)| body.put_i32(partition));
        });
        again("its partitions", || {
            self.wire.send(&add)?;
            let mut answer = &self.wire.receive()?.0[4..];
            let mut first = 0;
            for _ in 0..count(&mut answer)? {
                string(&mut answer)?;
                for _ in 0..count(&mut answer)? {
                    let code = { &take(&mut answer, 4 + 2)?[4..] }.get_i16();
                    first = if first == 0 { code } else { first };
                }
            }
            Ok((first, ()))
        })
    }
}

/// Asks until the answer is not that it should be asked later.
fn again<T>(what: &str, mut ask: impl FnMut() -> anyhow::Result<(i16, T)>) -> anyhow::Result<T> {
    let mut last = 0;
    for _ in 0..LATER_MAX {
        match ask()? {
            (0, found) => return Ok(found),
            (code, _) if LATER.contains(&code) => {
                last = code;
                std::thread::park_timeout(LATER_PAUSE);
            }
            (code, _) => bail!("a transaction was refused with error {code}, at {what}"),
        }
    }
    bail!("a transaction was put off for too long, with error {last}, at {what}")
}
