//! How a group changes: its epoch, its target, who has what. Part of a consumer group; called by nothing else.

use super::{
    Aim, Arc, Assignor, BTreeMap, BTreeSet, Change, Current, Group, GroupError, HashMap, Member, NAME_BYTES, Named,
    Owned, PARTITION_BYTES, Partitions, State, Stored, Subscriber, Subscribers, Surroundings, TopicTable, Uuid, assign,
    forget,
};

/// What a member subscribes to: names, and an expression.
type Wanted<'a> = (&'a BTreeSet<String>, Option<&'a String>);

impl Group {
    /// Takes the next steps of a member towards its target and gives it a new session; whether what it has is other than before.
    pub(super) fn go_on(
        &mut self,
        around: &Surroundings<'_>,
        id: &Arc<str>,
        owned: Owned<'_>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let nothing = Partitions::default();
        let Some(member) = self.members.get(id) else { return false };
        let before = member.current.clone();
        let aim = Aim { epoch: self.target_epoch, partitions: self.target.get(id).unwrap_or(&nothing) };
        let owners = &self.owners;
        let is_free = |topic: Uuid, partition: u32| {
            owners.get(&topic).and_then(|of_topic| of_topic.get(&partition)).is_none_or(|owner| owner == id)
        };
        if let Some(next) = before.next(owned, &aim, is_free) {
            self.settle(id, next, changes);
        }
        let Some(member) = self.members.get_mut(id) else { return false };
        member.session_ends_ms = around.now_ms.saturating_add(member.session_ms(around));
        let after = &member.current;
        if after.state != State::Unrevoked {
            member.revoke_ends_ms = None;
        } else if before.state != State::Unrevoked || after.epoch != before.epoch || member.revoke_ends_ms.is_none() {
            member.revoke_ends_ms = Some(around.now_ms.saturating_add(member.about.rebalance_timeout_ms));
        }
        after.assigned != before.assigned
    }

    /// Gives a member what it has from now on. Partitions that it no longer has are free.
    pub(super) fn settle(&mut self, id: &Arc<str>, next: Current, changes: &mut Vec<Change>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.current == next {
            return;
        }
        let now: Partitions = next.assigned.iter().chain(next.revoking.iter()).collect();
        for (topic, partition) in member.current.assigned.iter().chain(member.current.revoking.iter()) {
            if !now.contains(topic, partition) {
                disown(&mut self.owners, topic, partition, id);
            }
        }
        for (topic, partition) in now.iter() {
            let before = self.owners.entry(topic).or_default().insert(partition, Arc::clone(id));
            debug_assert!(before.is_none_or(|before| before == *id), "a partition has one owner");
        }
        changes.push(Change::Current(id.to_string(), Some(next.clone())));
        member.current = next;
    }

    /// Takes members out; the others share what they had. The group's epoch rises once.
    pub(in super::super) fn remove(&mut self, around: &Surroundings<'_>, ids: &[Arc<str>], changes: &mut Vec<Change>) {
        for id in ids {
            let Some(member) = self.members.remove(id) else { continue };
            self.gone.extend(member.timer_ms.map(|at| (Arc::clone(id), at)));
            for (topic, partition) in member.current.assigned.iter().chain(member.current.revoking.iter()) {
                disown(&mut self.owners, topic, partition, id);
            }
            if let Some(instance) = &member.about.instance
                && self.statics.get(instance) == Some(id)
            {
                self.statics.remove(instance);
            }
            self.target.remove(id);
            forget(id, changes);
        }
        self.drop_unused(changes);
        self.look(around, true, changes);
        self.rise(changes);
    }

    pub(super) fn rise(&mut self, changes: &mut Vec<Change>) {
        self.epoch = self.epoch.saturating_add(1);
        changes.push(Change::Group(Some(self.epoch)));
    }

    /// Looks which topics are subscribed to now, if that may have changed (`other`: because members want something else);
    /// whether it did.
    pub(super) fn look(&mut self, around: &Surroundings<'_>, other: bool, changes: &mut Vec<Change>) -> bool {
        let version = around.topics.version();
        if !other && self.seen == Some(version) {
            return false;
        }
        let mut found = TopicTable::new();
        let mut subscribed: Vec<Wanted<'_>> =
            self.members.values().map(|member| (&member.about.names, member.about.regex.as_ref())).collect();
        subscribed.sort_unstable();
        subscribed.dedup();
        for (names, regex) in subscribed {
            let named = regex.and_then(|regex| self.regexes.get(regex)).map(|(_, named)| named);
            for name in names.iter().chain(named.into_iter().flatten()) {
                if let Some(topic) = around.topics.find(name) {
                    found.entry(name.clone()).or_insert(topic);
                }
            }
        }
        self.seen = Some(version);
        if cost(&found) > cost(&self.topics).saturating_add(around.room) {
            tracing::warn!(
                "a consumer group does not get topics that were added: groups take as much memory as they may"
            );
            return false;
        }
        if found == self.topics {
            return false;
        }
        changes.push(Change::Topics(Some(found.clone())));
        self.topics = found;
        true
    }

    /// Takes in which topics an expression names; whether that is other than before.
    pub(super) fn learn(&mut self, regex: String, version: u64, named: Named, changes: &mut Vec<Change>) -> bool {
        self.asking.remove(&regex);
        let known = self.regexes.get(&regex);
        if known.is_some_and(|(known, _)| *known > version) {
            return false;
        }
        let news = known.is_none_or(|(_, before)| *before != named);
        if news {
            changes.push(Change::Regex(regex.clone(), Some(named.clone())));
        }
        self.regexes.insert(regex, (version, named));
        news
    }

    /// An expression was asked again; the group follows where it now names others.
    pub(in super::super) fn named(
        &mut self,
        around: &Surroundings<'_>,
        regex: &str,
        version: u64,
        named: Option<Named>,
        changes: &mut Vec<Change>,
    ) {
        self.asking.remove(regex);
        let Some(named) = named else { return };
        let wanted = self.members.values().any(|member| member.about.regex.as_deref() == Some(regex));
        if !wanted {
            return;
        }
        let bytes = |named: &Named| named.iter().map(|name| NAME_BYTES + name.len()).sum::<usize>();
        if let Some((asked, before)) = self.regexes.get_mut(regex)
            && bytes(&named) > bytes(before).saturating_add(around.room)
        {
            tracing::warn!(
                regex,
                "an expression names more topics than there is memory for: it keeps those that it named"
            );
            *asked = version;
            return;
        }
        if self.learn(regex.to_owned(), version, named, changes) {
            self.look(around, true, changes);
            self.rise(changes);
        }
    }

    /// Expressions that should be asked again because topics have come or gone; each is told once until it is answered.
    pub(in super::super) fn ask_again(&mut self, version: u64) -> Vec<String> {
        let known = |regex: &String| self.regexes.get(regex).is_some_and(|(asked, _)| *asked >= version);
        let wanted: BTreeSet<&String> =
            self.members.values().filter_map(|member| member.about.regex.as_ref()).collect();
        let old: Vec<String> =
            wanted.into_iter().filter(|regex| !known(regex) && !self.asking.contains(*regex)).cloned().collect();
        self.asking.extend(old.iter().cloned());
        old
    }

    /// Forgets expressions that no member has.
    pub(super) fn drop_unused(&mut self, changes: &mut Vec<Change>) {
        let used: BTreeSet<&String> = self.members.values().filter_map(|member| member.about.regex.as_ref()).collect();
        let unused: Vec<String> = self.regexes.keys().filter(|regex| !used.contains(regex)).cloned().collect();
        for regex in unused {
            self.regexes.remove(&regex);
            self.asking.remove(&regex);
            changes.push(Change::Regex(regex, None));
        }
    }

    /// Decides anew who should have what.
    pub(super) fn retarget(&mut self, changes: &mut Vec<Change>) {
        let mut shared: HashMap<Wanted<'_>, Arc<BTreeSet<Uuid>>> = HashMap::new();
        let nothing = Partitions::default();
        let mut subscribers = Subscribers::new();
        for (id, member) in &self.members {
            let wants = (&member.about.names, member.about.regex.as_ref());
            let topics = shared.entry(wants).or_insert_with(|| {
                let named = wants.1.and_then(|regex| self.regexes.get(regex)).map(|(_, named)| named);
                let names = wants.0.iter().chain(named.into_iter().flatten());
                Arc::new(names.filter_map(|name| self.topics.get(name).map(|(id, _)| *id)).collect())
            });
            let held = self.target.get(id).unwrap_or(&nothing);
            let instance = member.about.instance.as_deref();
            subscribers.insert(Arc::clone(id), Subscriber { instance, topics: Arc::clone(topics), held });
        }
        let topics: BTreeMap<Uuid, u32> = self.topics.values().copied().collect();
        let target = assign::assign(self.assignor(), &subscribers, &topics);
        for (id, partitions) in &target {
            if self.target.get(id) != Some(partitions) {
                changes.push(Change::Target(id.to_string(), Some(partitions.clone())));
            }
        }
        self.target = target;
        self.target_epoch = self.epoch;
        changes.push(Change::TargetEpoch(Some(self.epoch)));
    }

    /// The assignor that most members ask for; the first of Kafka's where none does.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|member| member.about.assignor.as_deref()) {
            if let Some(assignor) = Assignor::named(name) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(assignor, count)| (*count, std::cmp::Reverse(*assignor)))
            .map_or(Assignor::Uniform, |v| v.0)
    }

    /// What it takes in memory, about.
    pub(in super::super) fn count(&self) -> usize {
        let members = self.members.iter().map(|(id, member)| 3 * id.len() + member.about.bytes());
        let named = self.regexes.iter().map(|(regex, (_, named))| {
            NAME_BYTES + regex.len() + named.iter().map(|name| NAME_BYTES + name.len()).sum::<usize>()
        });
        members.chain(named).sum::<usize>() + cost(&self.topics)
    }

    /// Whether a member may commit, or ask for what is committed, with this epoch.
    pub(in super::super) fn check_member(&self, member: &str, epoch: i32) -> Result<&Member, GroupError> {
        let found = self.members.get(member).ok_or(GroupError::UnknownMember)?;
        let stale = if found.about.classic.is_some() { GroupError::IllegalGeneration } else { GroupError::StaleEpoch };
        if found.current.epoch == epoch { Ok(found) } else { Err(stale) }
    }

    /// The group as its records told it; its members have one session to be heard of.
    pub(in super::super) fn restore(now_ms: u64, session_ms: u64, stored: Stored) -> Self {
        let mut group =
            Self { epoch: stored.epoch, target_epoch: stored.target_epoch, topics: stored.topics, ..Self::default() };
        // What an expression named is asked again: versions of the topics are of one life of the broker.
        group.regexes = stored.regexes.into_iter().map(|(regex, named)| (regex, (0, named))).collect();
        for (id, partitions) in stored.targets {
            group.target.insert(id.as_str().into(), partitions);
        }
        let mut currents = stored.currents;
        for (name, about) in stored.members {
            let id: Arc<str> = name.as_str().into();
            let current = currents.remove(&name).unwrap_or_default();
            for (topic, partition) in current.assigned.iter().chain(current.revoking.iter()) {
                group.owners.entry(topic).or_default().insert(partition, Arc::clone(&id));
            }
            if let Some(instance) = &about.instance {
                group.statics.insert(instance.clone(), Arc::clone(&id));
            }
            let unrevoked = current.state == State::Unrevoked;
            let revoke_ends_ms = unrevoked.then(|| now_ms.saturating_add(about.rebalance_timeout_ms));
            let session_ms = about.classic.as_ref().map_or(session_ms, |classic| classic.session_timeout_ms);
            let session_ends_ms = now_ms.saturating_add(session_ms);
            let member = Member { about, current, session_ends_ms, revoke_ends_ms, join_ends_ms: None, timer_ms: None };
            group.members.insert(id, member);
        }
        group.target.retain(|id, _| group.members.contains_key(id));
        group
    }

    /// What there is to write so that nothing of the group is left.
    pub(in super::super) fn end(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.members.keys().for_each(|id| forget(id, &mut changes));
        changes.extend(self.regexes.keys().map(|regex| Change::Regex(regex.clone(), None)));
        changes.extend([Change::TargetEpoch(None), Change::Topics(None), Change::Group(None)]);
        changes
    }
}

/// What topics and their partitions take, about.
fn cost(topics: &TopicTable) -> usize {
    topics.iter().map(|(name, (_, count))| NAME_BYTES + name.len() + *count as usize * PARTITION_BYTES).sum()
}

fn disown(owners: &mut BTreeMap<Uuid, BTreeMap<u32, Arc<str>>>, topic: Uuid, partition: u32, id: &Arc<str>) {
    let Some(of_topic) = owners.get_mut(&topic) else { return };
    if of_topic.get(&partition) == Some(id) {
        of_topic.remove(&partition);
    }
    if of_topic.is_empty() {
        owners.remove(&topic);
    }
}
