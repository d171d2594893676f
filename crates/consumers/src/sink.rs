//! Where a consumer's results lie: the one thing that differs between consumers.

use cairn_backbone::group::Place;
use cairn_clock::Timestamp;

use crate::Batch;

/// Where a sink stands in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The partition.
    pub place: Place,
    /// The id of the topic that it stands in; empty where the cluster had none.
    pub topic_id: String,
    /// What it takes next.
    pub next: u64,
}

/// What an operator wants of a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Control {
    /// Whether it shall rest.
    pub is_paused: bool,
    /// Grows each time that somebody moves it.
    pub moves: u64,
}

/// Why a sink did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkError {
    /// It may work later: the disk is full, somebody else holds it.
    #[error("{reason}")]
    Away {
        /// What it said, and what to do.
        reason: String,
    },
    /// It does not take this event, now or later, for what it holds.
    #[error("the event at {index} of the batch is refused: {reason}")]
    Refused {
        /// Which of the batch's events.
        index: usize,
        /// Why.
        reason: String,
    },
    /// It does not stand where the batch begins: an operator moved it, or another process writes to it.
    #[error("the sink stands elsewhere than the batch begins")]
    Moved,
    /// Another process has its place: this consumer ends.
    #[error("{reason}")]
    Taken {
        /// Who, as far as is known.
        reason: String,
    },
    /// It is broken until somebody acts.
    #[error("{reason}")]
    Broken {
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Results and positions, kept together.
///
/// A sink MUST apply a batch as a whole or not at all, positions with it, and MUST be as after some batch that it said yes
/// to, whenever the process is killed: the rest is read again from its positions. What it holds is what comes of `from..next` of each partition: a batch replaces whatever
/// came of those offsets before, so that going back, or a replay, puts right what was wrong. An event that comes twice, at two
/// offsets, counts once, by its id. It is called by one thread.
pub trait Sink: Send {
    /// Where it stands in each partition of each topic that it ever saw.
    ///
    /// # Errors
    /// It cannot say.
    fn positions(&mut self) -> Result<Vec<Position>, SinkError>;

    /// Applies a batch and moves to its end. MUST refuse with [`SinkError::Moved`] where it does not stand where the batch begins.
    ///
    /// # Errors
    /// As [`SinkError`] says; then nothing of the batch is there.
    fn apply(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// Replaces what came of the batch's offsets before, and stays where it stands; which results were there before, and which
    /// of them are others now.
    ///
    /// # Errors
    /// As [`SinkError`] says; then nothing of the batch is there.
    fn replace(&mut self, batch: &Batch) -> Result<crate::Replayed, SinkError>;

    /// Stands at these positions from here on; results stay until what follows replaces them.
    ///
    /// # Errors
    /// As [`SinkError`] says.
    fn move_to(&mut self, positions: &[Position]) -> Result<(), SinkError>;

    /// What operators want of it.
    ///
    /// # Errors
    /// It cannot say.
    fn control(&mut self) -> Result<Control, SinkError>;

    /// Lets it rest, or go on.
    ///
    /// # Errors
    /// As [`SinkError`] says.
    fn pause(&mut self, is_paused: bool) -> Result<(), SinkError>;

    /// Work that is due from time to time, such as retention: a bounded piece of it, and whether more is left.
    ///
    /// # Errors
    /// As [`SinkError`] says.
    fn tend(&mut self, now: Timestamp) -> Result<bool, SinkError>;

    /// Keeps what waits, where anything does: nothing is applied after it.
    ///
    /// # Errors
    /// As [`SinkError`] says; what is not kept is read again.
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
