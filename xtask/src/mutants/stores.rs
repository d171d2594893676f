//! The mutants of the object stores: conditional writes, refusals settled by reading, what a check finds of the write-ahead log in a store,
//! and going over from files to the store. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a create replaces what is there",
        file: "crates/log/src/bucket.rs",
        before: "        match self.put_if(name, PutMode::Create, bytes).await {\n            Ok(_) => Ok(()),",
        after: "        match self.put_if(name, PutMode::Overwrite, bytes).await {\n            Ok(_) => Ok(()),",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "the head is replaced whosever it is",
        file: "crates/log/src/bucket.rs",
        before: "was.map_or(PutMode::Create, |was| self.service.still(was.as_str()))",
        after: "was.map_or(PutMode::Create, |_| PutMode::Overwrite)",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "a conflict counts as an object that is there",
        file: "crates/log/src/bucket.rs",
        before: "                if self.there(name).await? {",
        after: "                if self.there(name).await? || !name.is_empty() {",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "a head whose answer was lost is not looked at",
        file: "crates/log/src/bucket.rs",
        before: "            Some(head) if head.bytes == bytes => Ok(head.version),\n",
        after: "",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "the head of Google Cloud Storage is named by its ETag",
        file: "crates/log/src/bucket/gcs.rs",
        before: "    versions: Versions::Generation,",
        after: "    versions: Versions::Tag,",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "a bucket whose service heeds no condition is taken",
        file: "crates/log/src/bucket.rs",
        before: "        if heeds {\n            return Ok(());",
        after: "        if heeds || !name.is_empty() {\n            return Ok(());",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "a list ends with its first page",
        file: "crates/log/src/bucket.rs",
        before: "                next => page_token = next,",
        after: "                _ => break,",
        test: "-p cairn-log --lib bucket::",
    },
    Mutant {
        name: "objects stand on files that only one machine has",
        file: "crates/log/src/open.rs",
        before: "    (shared.is_diskless() && holds(false)) ||",
        after: "    (shared.is_diskless() && holds(false) && shared.epoch == 0) ||",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "the store is said to be the write-ahead log before it has what files hold",
        file: "crates/log/src/open.rs",
        before: "    if !uploads_first {\n        changes.append",
        after: "    if !uploads_first || !notes.is_empty() {\n        changes.append",
        test: "-p cairn-log --lib diskless",
    },
    Mutant {
        name: "offsets are passed over before the index has what lies before them",
        file: "crates/log/src/open.rs",
        before: "|| (shared.recovery.is_some() && holds(true))",
        after: "|| (shared.recovery.is_some() && holds(true) && shared.epoch == 0)",
        test: "-p cairn-log --lib acknowledged_records_survive",
    },
    Mutant {
        name: "a check passes over a bad frame in the store",
        file: "crates/log/src/check/write_ahead.rs",
        before: "            Ok(walked) if walked.end == segment.end() => {",
        after: "            Ok(walked) if walked.end <= segment.end() => {",
        test: "-p cairn-log --lib check::",
    },
    Mutant {
        name: "a check does not miss a fence",
        file: "crates/log/src/check/write_ahead.rs",
        before: "        if to.is_some() {\n            looking.fence",
        after: "        if to.is_some_and(|to| to == u64::MAX) {\n            looking.fence",
        test: "-p cairn-log --lib check::",
    },
    Mutant {
        name: "a check does not see where objects begin",
        file: "crates/log/src/check/write_ahead.rs",
        before: "if is_first { position > *end } else { position != *end })",
        after: "is_first && position > *end)",
        test: "-p cairn-log --lib check::",
    },
    Mutant {
        name: "a check passes over frames of another epoch",
        file: "crates/log/src/check/write_ahead.rs",
        before: "            if header.epoch != id.epoch {",
        after: "            if header.epoch > id.epoch {",
        test: "-p cairn-log --lib check::",
    },
    Mutant {
        name: "small objects are put together as soon as there are some",
        file: "crates/log/src/upload/merge.rs",
        before: "    objects.len() >= OBJECTS_MAX || bytes",
        after: "    objects.len() >= 2 || bytes",
        test: "-p cairn-log --lib neighbours_are_put_together",
    },
];
