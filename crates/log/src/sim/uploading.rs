//! The uploader in the simulation: stepped poll by poll, so that everything else may come between. And what it does to streams that are
//! compacted, which the world says after each opening. Used by `world`.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::world::{POLLS_MAX, World};
use crate::{ErrorKind, StoreError, upload::Uploader};

type Upload = Pin<Box<dyn Future<Output = (Uploader, &'static str, Result<(), StoreError>)>>>;

/// The uploader: at rest, or on its way.
pub(super) enum Uploading {
    Rests(Box<Uploader>),
    Works(Upload),
    Ended,
}

/// What the uploader begins when it rests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// To settle what there is.
    Upload,
    /// To put objects together.
    Merge,
    /// To compact by key.
    Compact,
    /// To remove what nobody needs.
    Collect,
}

/// One poll of a task, or the start of the next.
pub(super) fn poll_upload(uploading: &mut Uploading, lists: bool, next: Next, is_replaced: bool) -> String {
    match std::mem::replace(uploading, Uploading::Ended) {
        Uploading::Ended => "ended".to_owned(),
        Uploading::Rests(mut uploader) => {
            if lists {
                uploader.doubt();
            }
            if next == Next::Merge {
                *uploading = Uploading::Works(Box::pin(async move {
                    // Settled by a later step: others come between.
                    let (what, done) = match uploader.merge().await {
                        Ok(true) => ("merged", Ok(())),
                        Ok(false) => ("not-many", Ok(())),
                        Err(error) => ("merged", Err(error)),
                    };
                    (*uploader, what, done)
                }));
                return "merge".to_owned();
            }
            if next == Next::Compact {
                *uploading = Uploading::Works(Box::pin(async move {
                    let (what, done) = match uploader.compact().await {
                        Ok(true) => ("compacted", Ok(())),
                        Ok(false) => ("not-due", Ok(())),
                        Err(error) => ("compacted", Err(error)),
                    };
                    (*uploader, what, done)
                }));
                return "compact".to_owned();
            }
            if next == Next::Collect {
                *uploading = Uploading::Works(Box::pin(async move {
                    let done = uploader.collect().await;
                    (*uploader, "collected", done)
                }));
                return "collect".to_owned();
            }
            match uploader.gather() {
                Ok(true) => {
                    *uploading = Uploading::Works(Box::pin(async move {
                        let done = uploader.settle().await;
                        (*uploader, "committed", done)
                    }));
                    "gathered".to_owned()
                }
                Ok(false) => {
                    *uploading = Uploading::Rests(uploader);
                    "nothing".to_owned()
                }
                Err(error) => panic!("what was written does not read back: {error}"),
            }
        }
        Uploading::Works(mut task) => match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                *uploading = Uploading::Works(task);
                "waits".to_owned()
            }
            Poll::Ready((uploader, what, Ok(()))) => {
                *uploading = Uploading::Rests(Box::new(uploader));
                what.to_owned()
            }
            Poll::Ready((uploader, what, Err(error))) => {
                if error.kind() == ErrorKind::Fenced {
                    return format!("fenced {error}");
                }
                // Who was replaced may miss what the next one removed.
                let was_replaced = is_replaced && matches!(error, StoreError::Missing { .. });
                assert!(was_replaced || error.kind() == ErrorKind::Retry, "{error}");
                *uploading = Uploading::Rests(Box::new(uploader));
                format!("not-{what}")
            }
        },
    }
}

impl World {
    /// Tells the log which streams are compacted: it does not remember.
    pub(super) fn say_compactions(&self) {
        let Some(log) = &self.log else { return };
        let mut state = log.shared.state.write();
        for (id, stream) in &self.streams {
            if let Some(found) = state.streams.get_mut(id) {
                found.compaction = stream.compaction;
            }
        }
    }

    /// Time passes, and everything is uploaded and compacted that can be.
    pub(super) fn compact_all(&mut self) {
        self.settle_puts();
        self.calm();
        for _ in 0..3 {
            self.clock.advance(Duration::from_secs(130));
            let Some(log) = &mut self.log else { return };
            for next in [Next::Upload, Next::Compact] {
                let mut rests = false;
                for _ in 0..POLLS_MAX {
                    // What compaction prepared is committed by the next step.
                    let next = if rests { next } else { Next::Upload };
                    let line = poll_upload(&mut log.uploading, false, next, false);
                    rests = line == "nothing" || line == "committed";
                    if (next == Next::Upload && line == "nothing") || line == "not-due" {
                        break;
                    }
                }
            }
        }
        self.tell("compacted-all".to_owned());
        self.verify();
    }
}
