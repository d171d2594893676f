//! The side of a recording that runs within `up`: reads the trail, then the payloads, each after its `vault.read`.
//!
//! Called by the admin address for `POST /recording`. One at a time, in portions that fit in memory.

use std::sync::Arc;

use cairn_backbone::reader::{From, Reader, ReaderOptions};
use cairn_contract::TopicPrefix;
use cairn_operators::{Asked, Custody, RecordingAsked, RecordingFault, Recordings, Running};
use cairn_replay::{Gathering, Gone, Place, RECORDED_TOPICS};
use cairn_vault::VaultError;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

/// Payloads that are read at a time.
const PORTION_MAX: usize = 128;
/// Bytes of payloads that are read at a time; one that is longer is read alone.
const PORTION_BYTES_MAX: u64 = 8 << 20;
/// Bytes of payloads in one recording.
const BYTES_MAX: u64 = 256 << 20;

/// The trail and the vault of this process.
pub(crate) struct Opened {
    reading: ReaderOptions,
    custody: Custody,
    place: Arc<Semaphore>,
}

impl Opened {
    /// Over the topics that a recording is made from, those of tenants too.
    pub(crate) fn new(
        reading: ReaderOptions,
        tenants: impl IntoIterator<Item = TopicPrefix>,
        custody: Custody,
    ) -> Self {
        let prefixes = std::iter::once(TopicPrefix::default()).chain(tenants);
        let topics = prefixes.flat_map(|prefix| RECORDED_TOPICS.map(|topic| prefix.name(topic).into_owned())).collect();
        let reading = ReaderOptions { topics, from: From::Earliest, until_end: true, look_every: None, ..reading };
        Self { reading, custody, place: Arc::new(Semaphore::new(1)) }
    }
}

impl Recordings for Opened {
    fn begin(&self, asked: RecordingAsked, who: Asked, lines: mpsc::Sender<Value>) -> Result<Running, RecordingFault> {
        let place = self.place.clone().try_acquire_owned().map_err(|_| RecordingFault::Busy)?;
        let reading = ReaderOptions { workflow: Some(asked.workflow_id.clone()), ..self.reading.clone() };
        let custody = self.custody.clone();
        Ok(Box::pin(async move {
            let _place = place;
            open(reading, &custody, asked, &who, &lines).await.map_err(|error| format!("{error:#}"))
        }))
    }
}

async fn open(
    reading: ReaderOptions,
    custody: &Custody,
    asked: RecordingAsked,
    who: &Asked,
    lines: &mpsc::Sender<Value>,
) -> anyhow::Result<Value> {
    let mut gathering = Gathering::new(asked.workflow_id, asked.tenant);
    let mut reader = Reader::open(reading).await?;
    while let Some(entry) = reader.next().await {
        let entry = entry?;
        let at = Place { topic: entry.topic, partition: entry.partition, offset: entry.offset };
        if let Ok(event) = entry.event {
            gathering.take(at, event);
        }
    }
    reader.close().await;
    let mut recording = gathering.finish()?;
    let unread = recording.unread();
    let bytes: u64 = unread.iter().map(|(_, _, bytes)| bytes).sum();
    if bytes > BYTES_MAX {
        anyhow::bail!("the payloads of this workflow are {bytes} bytes, and {BYTES_MAX} can be recorded");
    }
    if lines.send(json!({ "recording": recording })).await.is_err() {
        anyhow::bail!("nobody waits for it any more");
    }
    let payloads = unread.len();
    for portion in portions(unread) {
        let digests: Vec<String> = portion.iter().map(|(digest, _)| digest.clone()).collect();
        let read = custody.read_many(portion, who).await?;
        for (digest, read) in digests.into_iter().zip(read) {
            let payload = match read.map(String::from_utf8) {
                Ok(Ok(text)) => json!({ "digest": digest, "text": text }),
                Ok(Err(_)) => json!({ "digest": digest, "gone": Gone::Damaged }),
                Err(fault) => json!({ "digest": digest, "gone": gone(&fault) }),
            };
            if lines.send(json!({ "payload": payload })).await.is_err() {
                anyhow::bail!("nobody waits for it any more");
            }
        }
    }
    Ok(json!({ "payloads": payloads }))
}

/// In portions that are read and recorded at once.
fn portions(unread: Vec<(String, String, u64)>) -> Vec<Vec<(String, String)>> {
    let (mut all, mut held) = (vec![Vec::new()], 0);
    for (digest, location, bytes) in unread {
        let portion = all.last_mut().expect("there is always one");
        if !portion.is_empty() && (portion.len() == PORTION_MAX || held + bytes > PORTION_BYTES_MAX) {
            all.push(vec![(digest, location)]);
            held = bytes;
        } else {
            portion.push((digest, location));
            held += bytes;
        }
    }
    all.retain(|portion: &Vec<_>| !portion.is_empty());
    all
}

const fn gone(fault: &VaultError) -> Gone {
    match fault {
        VaultError::ErasedSubject { .. } => Gone::Erased,
        VaultError::Damaged { .. } => Gone::Damaged,
        _ => Gone::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_bounded_and_hold_everything_in_order() {
        let payload = |at: usize, bytes: u64| (format!("d{at}"), "vault:k/1".to_owned(), bytes);
        let small = portions((0..300).map(|at| payload(at, 10)).collect());
        assert_eq!(small.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
        assert_eq!(small.concat()[299].0, "d299");
        let large = portions(vec![payload(0, 9 << 20), payload(1, 5 << 20), payload(2, 5 << 20), payload(3, 1)]);
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(portions(Vec::new()).is_empty());
    }
}
