//! Changing a topic that there is: more partitions, other configs, fewer records. Called by the request files.
//!
//! Cairn's own topics are changed by Cairn alone. A change is checked against the topic as it is at that moment, and durable before
//! anybody sees it.

use std::{collections::BTreeMap, sync::Arc};

use cairn_log::{AppendError, Offset};

use crate::{
    broker::{Broker, FetchError, TopicError},
    principal::Principal,
    topics::{
        Topic,
        configs::{Configured, TopicConfigs},
    },
};

/// Why records are not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteError {
    /// The topic, or who asks.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The partition or the offset.
    #[error(transparent)]
    Place(#[from] FetchError),
    /// The topic keeps the newest record of each key.
    #[error("the topic's `cleanup.policy` does not let records go by their offset: add `delete` to it")]
    Kept,
    /// The log failed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Broker {
    /// Gives a topic so many partitions, as CreatePartitions does; with `check_only` it says whether that could be.
    pub(crate) async fn add_partitions(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        check_only: bool,
    ) -> Result<(), TopicError> {
        let checked = |topic: &Topic| {
            let limits = &self.inner.options.limits;
            if partitions <= topic.partitions {
                return Err(TopicError::NotMore { partitions: topic.partitions });
            }
            if partitions > limits.partitions_max {
                return Err(TopicError::Partitions { partitions, most: limits.partitions_max });
            }
            let asked = partitions - topic.partitions;
            if self.inner.topics.partitions() + asked as usize > limits.all_partitions_max {
                return Err(TopicError::TooManyPartitions { asked, most: limits.all_partitions_max });
            }
            Ok(Topic { partitions, ..topic.clone() })
        };
        self.change(who, name, check_only, checked).await
    }

    /// Changes a topic's configs, as AlterConfigs and IncrementalAlterConfigs do: `alter` is given what is in force.
    pub(crate) async fn alter_configs(
        &self,
        who: &Principal,
        name: &str,
        check_only: bool,
        alter: impl FnOnce(&dyn Configured) -> Result<BTreeMap<String, String>, String>,
    ) -> Result<(), TopicError> {
        let altered = |topic: &Topic| {
            let configs = alter(&topic.configs).and_then(TopicConfigs::new);
            let configs = configs.map_err(|reason| TopicError::Config { reason })?;
            Ok(Topic { configs, ..topic.clone() })
        };
        self.change(who, name, check_only, altered).await
    }

    async fn change(
        &self,
        who: &Principal,
        name: &str,
        check_only: bool,
        make: impl FnOnce(&Topic) -> Result<Topic, TopicError>,
    ) -> Result<(), TopicError> {
        let topic = self.may_alter(who, name)?;
        if check_only { make(&topic).map(|_| ()) } else { self.inner.topics.change(name, make).await }
    }

    /// Forgets the records of a partition before an offset, or all there are, as DeleteRecords does. Returns the first that is kept.
    pub(crate) async fn delete_records(
        &self,
        who: &Principal,
        name: &str,
        partition: i32,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteError> {
        let unknown = || FetchError::UnknownPartition { topic: name.to_owned(), partition };
        let topic = self.may_alter(who, name)?;
        let stream = topic.stream(partition).ok_or_else(unknown)?;
        if !topic.configs.is_deleted() {
            return Err(DeleteError::Kept);
        }
        let bounds = self.inner.log.bounds(stream).map_err(FetchError::from)?;
        let before = before.unwrap_or(bounds.durable_end);
        if before > bounds.durable_end {
            let (log_start, end) = (bounds.log_start.get(), bounds.durable_end.get());
            return Err(FetchError::OutOfRange { asked: before.get(), log_start, end }.into());
        }
        if before > bounds.log_start {
            self.inner.log.delete_before(stream, before).await?;
        }
        Ok(self.inner.log.bounds(stream).map_err(FetchError::from)?.log_start)
    }

    /// The topic, where the principal may throw away what it holds: Cairn's own topics are changed by Cairn alone, whoever may write
    /// them.
    pub(crate) fn may_alter(&self, who: &Principal, name: &str) -> Result<Arc<Topic>, TopicError> {
        self.may_change(who, name)?;
        if *who != Principal::Internal && self.is_protected(name) {
            return Err(TopicError::Denied { prefix: self.inner.options.protected_prefix.clone() });
        }
        let topic = self.inner.topics.get(name).ok_or_else(|| TopicError::Unknown { name: name.to_owned() })?;
        if topic.is_internal() {
            return Err(TopicError::Denied { prefix: topic.name.clone() });
        }
        Ok(topic)
    }
}
