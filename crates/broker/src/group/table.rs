//! Which protocol a group speaks, and the way from one to the other. Called by the driver; in front of both cores.
//!
//! It guarantees: a group is in one of the two cores at most; what ends it in one and begins it in the other is one change.

use super::{
    Core, Effect, GroupError, GroupLimits, GroupState, Input, Reply, Ticket,
    consumer::{self, Change, ConsumerState, Topics},
};

/// An input for the core that it belongs to.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Classic(Input),
    Consumer(consumer::Input),
}

impl From<Input> for Ask {
    fn from(input: Input) -> Self {
        Self::Classic(input)
    }
}

impl From<consumer::Input> for Ask {
    fn from(input: consumer::Input) -> Self {
        Self::Consumer(input)
    }
}

impl Ask {
    /// The group that it is about.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Self::Classic(input) => input.group(),
            Self::Consumer(input) => input.group(),
        }
    }
}

/// All groups of this broker.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(super) classic: Core,
    pub(super) consumer: consumer::Core,
}

impl Groups {
    pub(crate) fn new(limits: GroupLimits) -> Self {
        Self { classic: Core::new(limits.clone()), consumer: consumer::Core::new(limits) }
    }

    /// The one door.
    pub(crate) fn handle(&mut self, now_ms: u64, ask: impl Into<Ask>, topics: &dyn Topics) -> Vec<Effect> {
        match ask.into() {
            Ask::Classic(Input::Tick) | Ask::Consumer(consumer::Input::Tick) => {
                let mut out = self.classic.handle(now_ms, Input::Tick);
                out.extend(self.consumer(now_ms, consumer::Input::Tick, topics));
                out
            }
            Ask::Classic(input) => self.ask_classic(now_ms, input, topics),
            Ask::Consumer(consumer::Input::Beat { ticket, group, beat }) => {
                let joins = beat.epoch == 0 && beat.check().is_ok();
                let mut out = Vec::new();
                match self.classic.state(&group) {
                    None => {}
                    Some(_) if !joins => return vec![refuse(ticket, GroupError::GroupNotFound)],
                    Some(GroupState::Empty) => {
                        let generation = self.classic.end(&group);
                        self.consumer.begin(&group, generation);
                        out.push(Effect::Change { group: group.clone(), changes: vec![Change::Classic(None)] });
                    }
                    Some(_) => match self.upgrade(now_ms, &group, topics) {
                        Ok(changes) => out.push(Effect::Change { group: group.clone(), changes }),
                        Err(error) => return vec![refuse(ticket, error)],
                    },
                }
                out.extend(self.consumer(now_ms, consumer::Input::Beat { ticket, group, beat }, topics));
                out
            }
            Ask::Consumer(input) => self.consumer(now_ms, input, topics),
        }
    }

    fn consumer(&mut self, now_ms: u64, input: consumer::Input, topics: &dyn Topics) -> Vec<Effect> {
        let mut out = self.consumer.handle(now_ms, input, topics, self.classic.bytes());
        // When the last member of the new protocol is gone, the others go back to theirs.
        for group in self.consumer.only_classic() {
            let (epoch, members, mut changes) = self.consumer.disband(&group);
            let snapshot = self.classic.adopt(now_ms, &group, epoch, members);
            changes.push(Change::Classic(Some(snapshot)));
            out.push(Effect::Change { group, changes });
        }
        self.classic.share(self.consumer.bytes());
        // A member is answered after everything is durable.
        out.sort_by_key(|effect| matches!(effect, Effect::Reply(..)));
        out
    }

    /// Takes a classic group with members over to the new protocol, so that a member of it can join them.
    fn upgrade(&mut self, now_ms: u64, name: &str, topics: &dyn Topics) -> Result<Vec<Change>, GroupError> {
        let consumers =
            self.classic.describe(name).is_some_and(|(_, group)| group.protocol_type == consumer::PROTOCOL_TYPE);
        if !consumers {
            return Err(GroupError::GroupNotFound);
        }
        // While it rebalances nobody knows who has what: asked again, it is stable.
        let (generation, members) = self.classic.dissolve(name).ok_or(GroupError::Unavailable)?;
        match self.consumer.adopt(now_ms, name, generation, members.clone(), topics) {
            Some(changes) => Ok(changes),
            None => {
                self.classic.adopt(now_ms, name, generation, members);
                Err(GroupError::GroupNotFound)
            }
        }
    }

    /// A request of the classic protocol, for whichever group it names.
    fn ask_classic(&mut self, now_ms: u64, input: Input, topics: &dyn Topics) -> Vec<Effect> {
        let Some(state) = input.group().and_then(|group| self.consumer.state(group)) else {
            return self.classic.handle(now_ms, input);
        };
        match input {
            Input::Join { ticket, group, join } => {
                if state != ConsumerState::Empty {
                    let request = consumer::Request::Join(Box::new(join));
                    return self.consumer(now_ms, consumer::Input::Classic { ticket, group, request }, topics);
                }
                let epoch = self.consumer.describe(&group).map_or(0, |view| view.epoch);
                let changes = self.consumer.end(&group);
                self.classic.begin(&group, epoch);
                let mut out = vec![Effect::Change { group: group.clone(), changes }];
                out.extend(self.classic.handle(now_ms, Input::Join { ticket, group, join }));
                out
            }
            Input::Commit { ticket, group, who, generation, version } => {
                let commit = consumer::Input::Commit { ticket, group, member: who.member, epoch: generation, version };
                self.consumer(now_ms, commit, topics)
            }
            Input::Delete { ticket, group } => self.consumer(now_ms, consumer::Input::Delete { ticket, group }, topics),
            Input::Sync { ticket, group, who, generation, .. } => {
                let request = consumer::Request::Sync(who, generation);
                self.consumer(now_ms, consumer::Input::Classic { ticket, group, request }, topics)
            }
            Input::Heartbeat { ticket, group, who, generation } => {
                let request = consumer::Request::Heartbeat(who, generation);
                self.consumer(now_ms, consumer::Input::Classic { ticket, group, request }, topics)
            }
            Input::Leave { ticket, group, who } => {
                let request = consumer::Request::Leave(who);
                self.consumer(now_ms, consumer::Input::Classic { ticket, group, request }, topics)
            }
            Input::Tick => Vec::new(),
        }
    }

    /// When [`Input::Tick`] is next needed.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        [self.classic.next_deadline_ms(), self.consumer.next_deadline_ms()].into_iter().flatten().min()
    }
}

fn refuse(ticket: Ticket, error: GroupError) -> Effect {
    Effect::Reply(ticket, Reply::Refused(error))
}

#[cfg(test)]
mod tests;
