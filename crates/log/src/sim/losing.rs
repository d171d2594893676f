//! Losing a machine: what was on it alone is gone, and whoever goes on with the bucket gives no offset that was given. Used by `world`.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::{
    disk::SimDisk,
    uploading::{Next, Uploading, poll_upload},
    world::{Running, World, drive},
};
use crate::{
    OpenError,
    open::{self, Shared},
};

impl World {
    /// What the store had when a folder was lost is there, and no offset that may have been given out is given again.
    pub(super) fn settle_loss(&mut self, shared: &Shared) {
        let Some(had) = self.lost.take() else { return assert!(shared.recovery.is_none(), "nothing was lost") };
        let recovery = shared.recovery.as_ref().expect("its folder was lost");
        let found: BTreeMap<_, _> = recovery.streams.iter().map(|stream| (stream.stream, stream)).collect();
        self.streams.retain(|id, stream| match found.get(id) {
            Some(found) => {
                let had = had.get(id).copied().unwrap_or_default();
                assert!(found.end.get() >= had, "{had} offsets were uploaded, {} are left", found.end);
                stream.lose(found.start.get(), found.end.get(), found.next.get());
                true
            }
            None => {
                assert!(had.get(id).is_none_or(|had| *had == 0) || stream.maybe_deleted, "stream {id} was uploaded");
                false
            }
        });
        if let Some((_, bounds)) = self.zombies.last_mut().filter(|(_, bounds)| bounds.is_empty()) {
            bounds.extend(recovery.streams.iter().map(|stream| (stream.stream, stream.next.get())));
        }
    }

    /// Another opener begins with the bucket alone: after a good end, or after the loss of a folder at any point of an upload.
    /// Sometimes the first does not know that it is over.
    pub(super) fn lose_folder(&mut self) {
        self.settle_puts();
        self.calm();
        self.disk.revive();
        let ends_well = self.roll(2) == 0;
        let polls = if ends_well { usize::MAX } else { self.roll(60) as usize };
        let Some(mut log) = self.log.take() else { return };
        let is_diskless = log.landing.is_some();
        for _ in 0..polls {
            let line = poll_upload(&mut log.uploading, false, Next::Upload, false);
            if self.disk.is_dead() || matches!(log.uploading, Uploading::Ended) {
                self.log = Some(log);
                return;
            }
            if line == "nothing" {
                break;
            }
        }
        if is_diskless && !ends_well {
            return self.lose_machine(log);
        }
        if ends_well {
            return self.end_well(log);
        }
        self.tell("lost-folder".to_owned());
        let state = log.shared.state.read();
        let had: BTreeMap<_, _> = state.streams.iter().map(|(id, stream)| (*id, stream.uploaded.get())).collect();
        drop(state);
        if self.roll(2) == 0 {
            self.zombies.push((log, BTreeMap::new()));
        } else {
            drop(log);
        }
        self.disk = SimDisk::new(self.entropy.next_u64());
        let refused = drive(open::open(self.options(), self.clock.clone(), self.entropy.clone()));
        assert!(matches!(refused, Err(OpenError::NoWriteAheadLog { .. })), "it went on by itself");
        drop(refused);
        self.lost = Some(had);
        self.open();
        self.verify();
    }

    /// The store was the write-ahead log: nothing is lost with the machine.
    fn lose_machine(&mut self, log: Running) {
        self.tell("lost-machine".to_owned());
        if self.roll(2) == 0 {
            self.zombies.push((log, BTreeMap::new()));
        } else {
            drop(log);
        }
        self.disk = SimDisk::new(self.entropy.next_u64());
        self.open();
        self.verify();
    }

    /// All is uploaded, and the head says so: whoever comes goes on with the bucket alone, and no offset is passed over.
    fn end_well(&mut self, mut log: Running) {
        assert_eq!(log.shared.state.read().depth(), 0, "all was uploaded");
        let uploading = std::mem::replace(&mut log.uploading, Uploading::Ended);
        let Uploading::Rests(uploader) = uploading else { panic!("it has nothing to do") };
        log.shared.has_ended.store(true, Ordering::Release);
        drive(uploader.release());
        self.tell("ended-well".to_owned());
        drop(log);
        if self.roll(4) > 0 {
            self.disk = SimDisk::new(self.entropy.next_u64());
        }
        self.open();
        self.verify();
    }
}
