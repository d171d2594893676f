//! What of a request may be done: asked before anything of it is seen. Called by the request table.
//!
//! A decoded request is [`Undecided`], and nothing but [`Undecided::decide`] makes a request of it that a handler can read: so none
//! is answered that was not judged. Each kind of request has a [`Guarded`] implementation here, which takes out what may not be done
//! and says how the answer tells of it; what an answer names unasked (all topics, all groups) it takes out of the answer. One function
//! decides, [`Rules::may`](crate::access::Rules::may), over rules that do not change while it does.
//!
//! To offer another request: implement [`Guarded`] for it, as those beside it do.

mod cluster;
mod groups;
mod replicas;
mod shares;
mod topics;
mod transactions;

pub(super) use topics::Readable;
pub(super) use transactions::{COMMIT_BY_ID_FIRST, id_in_name};

use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::{
    error::ResponseError,
    protocol::{Decodable, Encodable},
};
use uuid::Uuid;

use super::Session;
use crate::{
    access::{Asker, CLUSTER, Kind, Operation, Rules},
    broker::Broker,
};

const TOPIC_DENIED: i16 = ResponseError::TopicAuthorizationFailed.code();
const GROUP_DENIED: i16 = ResponseError::GroupAuthorizationFailed.code();
const CLUSTER_DENIED: i16 = ResponseError::ClusterAuthorizationFailed.code();
const TRANSACTION_DENIED: i16 = ResponseError::TransactionalIdAuthorizationFailed.code();
/// The longest text whose length is one byte.
const TEXT_BYTES_MAX: usize = 126;
/// What somebody is told who may not.
const WHY: &str = "not authorized";

/// Who asks, and the rules as they were when the request came.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    broker: &'a Broker,
    session: &'a Session,
    /// None where everything is allowed: nobody set rules up, or a super user asks.
    rules: Option<Arc<Rules>>,
    principal: String,
}

impl<'a> Gate<'a> {
    pub(super) fn of(broker: &'a Broker, session: &'a Session) -> Self {
        let rules = broker.inner.access.rules().filter(|_| !session.is_super(broker));
        let principal = rules.as_ref().map_or_else(String::new, |_| format!("User:{}", session.principal.name()));
        Self { broker, session, rules, principal }
    }

    pub(super) const fn session(&self) -> &'a Session {
        self.session
    }

    const fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    fn asker(&self) -> Asker<'_> {
        Asker { principal: &self.principal, host: &self.session.host }
    }

    pub(super) fn may(&self, operation: Operation, kind: Kind, name: &str) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.may(self.asker(), operation, kind, name))
    }

    fn may_any(&self, operation: Operation, kind: Kind) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.may_any(self.asker(), operation, kind))
    }

    pub(super) fn topic(&self, operation: Operation, name: &str) -> bool {
        self.may(operation, Kind::Topic, name)
    }

    /// The same for a topic that is named, or has that id. An id that there is not names nothing that could be done.
    fn named(&self, operation: Operation, name: &str, id: Uuid) -> bool {
        if self.is_open() || !name.is_empty() || id.is_nil() {
            return self.topic(operation, name);
        }
        self.broker.inner.topics.get_by_id(id).is_none_or(|topic| self.topic(operation, &topic.name))
    }

    fn group(&self, operation: Operation, name: &str) -> bool {
        self.may(operation, Kind::Group, name)
    }

    fn transaction(&self, operation: Operation, id: &str) -> bool {
        self.may(operation, Kind::TransactionalId, id)
    }

    fn cluster(&self, operation: Operation) -> bool {
        self.may(operation, Kind::Cluster, CLUSTER)
    }

    /// Whether who comes in may be seen and changed: where nobody set rules up, that is for super users alone.
    fn administers(&self, operation: Operation) -> bool {
        let is_ruled = self.broker.inner.access.rules().is_some();
        if is_ruled { self.cluster(operation) } else { self.session.is_super(self.broker) }
    }

    /// What may be done, as the bits of Kafka's authorized operations.
    fn operations(&self, kind: Kind, name: &str) -> i32 {
        match &self.rules {
            Some(rules) => rules.operations(self.asker(), kind, name),
            None => kind.operations().iter().fold(0, |bits, operation| bits | 1 << operation.code()),
        }
    }

    /// The same for the cluster; none for somebody who may not even see it.
    fn cluster_operations(&self) -> i32 {
        if self.cluster(Operation::Describe) { self.operations(Kind::Cluster, CLUSTER) } else { 0 }
    }
}

/// A decoded request of which nobody knows yet what may be done.
#[derive(Debug)]
pub(super) struct Undecided<R>(R);

impl<R> Undecided<R> {
    pub(super) const fn new(request: R) -> Self {
        Self(request)
    }

    /// For a broker that stands by: it has nothing that could be seen or done, and says who is active.
    pub(super) fn of_standby(self) -> R {
        self.0
    }
}

impl<R: Guarded> Undecided<R> {
    pub(super) fn decide(self, gate: &Gate<'_>, version: i16) -> Verdict<R> {
        self.0.guard(gate, version)
    }
}

/// What of a request may be done.
#[derive(Debug)]
pub(super) enum Verdict<R: Guarded> {
    /// What is left of it; and what its answer needs when it is made.
    Some(R, R::Kept),
    /// Nothing; this is its answer.
    None(R::Answer),
}

/// A kind of request that is judged before it is answered.
pub(super) trait Guarded: Decodable {
    /// Its answer.
    type Answer: Encodable;
    /// What its answer needs once it is made.
    type Kept;

    /// Takes in what a version that the codec does not know has more, one after the other as it stood.
    fn add(&mut self, _rest: &mut Bytes) {}

    /// What such a version of the answer has more, in order.
    fn newer(_answer: &Self::Answer) -> Vec<u8> {
        Vec::new()
    }

    /// Takes out what may not be done.
    fn guard(self, gate: &Gate<'_>, version: i16) -> Verdict<Self>;

    /// Puts into the answer what was refused, and takes out of it what may not be seen.
    fn complete(_gate: &Gate<'_>, _kept: Self::Kept, _answer: &mut Self::Answer) {}
}

/// The next topic id of those that stand beside a request; none, where they are used up, which a checked shape does not let happen.
fn next_id(rest: &mut Bytes) -> Uuid {
    if rest.len() < 16 { Uuid::nil() } else { Uuid::from_u128(rest.get_u128()) }
}

/// Writes a short text as flexible versions do, or that there is none.
fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    let text = text.map(|text| &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)]);
    out.push(text.map_or(0, |text| text.len() as u8 + 1));
    out.extend_from_slice(text.unwrap_or_default());
}

/// Those that may be done, and what is told of the others.
fn split<T, U>(all: Vec<T>, may: impl Fn(&T) -> bool, refused: impl Fn(T) -> U) -> (Vec<T>, Vec<U>) {
    let (some, others): (Vec<T>, Vec<T>) = all.into_iter().partition(may);
    (some, others.into_iter().map(refused).collect())
}

/// A request that names things in a list, whose answer has an item for each.
macro_rules! listed {
    ($request:ty => $answer:ty { $things:ident => $items:ident: $item:ty }, $may:expr, $refused:expr) => {
        impl super::Guarded for $request {
            type Answer = $answer;
            type Kept = Vec<$item>;

            fn guard(mut self, gate: &super::Gate<'_>, _version: i16) -> super::Verdict<Self> {
                let (some, refused) = super::split(self.$things, |one| $may(gate, one), $refused);
                self.$things = some;
                super::Verdict::Some(self, refused)
            }

            fn complete(_gate: &super::Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
                answer.$items.extend(refused);
            }
        }
    };
}

/// A request that may be done or not, whole.
macro_rules! whole {
    ($request:ty => $answer:ty, $may:expr, $refused:expr) => {
        impl super::Guarded for $request {
            type Answer = $answer;
            type Kept = ();

            fn guard(self, gate: &super::Gate<'_>, version: i16) -> super::Verdict<Self> {
                if $may(gate, &self) {
                    super::Verdict::Some(self, ())
                } else {
                    super::Verdict::None($refused(self, version))
                }
            }
        }
    };
}

use {listed, whole};
