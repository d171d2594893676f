//! The trail played again: what other policies would have decided, what servers answered, and where two runs part.
//!
//! Reads events by the Kafka protocol and payloads from the vault; changes nothing. [`WhatIf`] must never show a payload: what
//! comes out names calls, policies and counts. A [`Recording`] shows them all: whoever fills one has asked for that.

mod compare;
mod difference;
mod gather;
mod judge;
mod play;
mod recording;
mod report;
mod stage;
mod whatif;

pub use compare::{Aspect, Comparison, Pair, Parting, Side, compare};
pub use difference::{Difference, differences};
pub use gather::{GatherError, Gathering, RECORDED_TOPICS};
pub use play::{Asked, Differed, Given, Heard, How, Mode, NotPlayable, Played, Player};
pub use recording::{
    Approved, Decided, Ended, FILE_BYTES_MAX, Gone, Payload, Place, RecordedCall, RecordedItem, RecordedList,
    RecordedServer, Recording, RecordingError,
};
pub use report::{Counts, Flip, FlipKind, Part, Report, Undecidable};
pub use stage::Stage;
pub use whatif::{WhatIf, WhatIfError};
