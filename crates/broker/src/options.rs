//! What a broker can be told. Made by the wiring; every field has a safe default.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc, time::Duration};

use cairn_tls::Handshakes;

use crate::{
    access::{NameRule, Tokens},
    principal::Users,
};

/// A host name or address and a port, as clients are told to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

/// A broker that may be active, as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node id.
    pub id: i32,
    /// Where it is reached.
    pub address: HostPort,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not ID@HOST:PORT");
        let (id, address) = text.split_once('@').ok_or_else(wrong)?;
        let id =
            id.parse().ok().filter(|id| *id >= 1).ok_or_else(|| format!("{}, with an id of 1 or more", wrong()))?;
        Ok(Self { id, address: address.parse().map_err(|_| wrong())? })
    }
}

/// One of the ports by which a broker is reached.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// Its handshakes where it has TLS; without them it speaks in the clear.
    pub tls: Option<Handshakes>,
    /// Who may come in at all, by SASL PLAIN, with nothing asked before; anybody where absent. They are in the place of the
    /// broker's users.
    pub only: Option<Users>,
    /// Whether clients are told the address that this port is bound to, whatever the broker advertises.
    pub is_inner: bool,
}

/// Who may do what by the Kafka protocol. Protected topics are protected either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody may do everything.
    #[default]
    Open,
    /// As rules say that administrators set (Kafka's ACLs).
    Rules {
        /// Whether everybody may do what no rule is about.
        everyone_if_none: bool,
    },
}

/// Settings of one broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// What Metadata tells clients to connect to; none says the address that the listener is bound to.
    pub advertised: Option<HostPort>,
    /// This broker's node id.
    pub node_id: i32,
    /// Every broker that may be active, this one included; none where it is the only one. Clients that reach this one by what it
    /// advertises are told of all of them, so that they know whom to ask when it is gone.
    pub peers: Vec<Peer>,
    /// Topics with this prefix are written, created and deleted by [`Principal::Internal`](crate::Principal::Internal)
    /// and `users` that are allowed to only; none of these but the first deletes them.
    pub protected_prefix: String,
    /// Whether Metadata may create a topic that a client asks for.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without a number.
    pub default_partitions: u32,
    /// Partitions of `__consumer_offsets`, when it is first created.
    pub offsets_partitions: u32,
    /// Partitions of `__transaction_state`, when it is first created: with the first transactional id.
    pub transactions_partitions: u32,
    /// How long committed offsets are kept that no member of their group uses; for ever where absent.
    pub offsets_retention: Option<Duration>,
    /// How often it is looked whether some are older.
    pub offsets_look_interval: Duration,
    /// Users that may log in by SASL PLAIN, and which of them may write protected topics.
    pub users: Users,
    /// Names of users that may do everything but write protected topics.
    pub super_users: BTreeSet<String>,
    /// Whose tokens let in by OAUTHBEARER; it is not offered where absent.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// What client certificates call their owners: the first rule that fits counts, their subject where there are none.
    pub certificate_names: Vec<NameRule>,
    /// Who may do what.
    pub authorization: Authorization,
    /// How long a login by SASL counts, unless its client proves it again (KIP-368); for ever where absent.
    pub login_age_max: Option<Duration>,
    /// Bounds.
    pub limits: BrokerLimits,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            advertised: None,
            node_id: 1,
            peers: Vec::new(),
            protected_prefix: "mcp.".to_owned(),
            auto_create_topics: true,
            default_partitions: 4,
            offsets_partitions: 8,
            transactions_partitions: 4,
            offsets_retention: Some(Duration::from_secs(7 * 24 * 3_600)),
            offsets_look_interval: Duration::from_secs(600),
            users: Users::default(),
            super_users: BTreeSet::new(),
            tokens: None,
            certificate_names: Vec::new(),
            authorization: Authorization::Open,
            login_age_max: None,
            limits: BrokerLimits::default(),
        }
    }
}

/// What a peer can make the broker hold or do.
#[derive(Debug, Clone)]
pub struct BrokerLimits {
    /// Open connections; one more takes the place of that which has been quiet for longest, and is closed where
    /// none is.
    pub connections_max: usize,
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Bytes of all requests that are being read or answered; more wait. Small requests that a connection sends one
    /// after the other do not count.
    pub requests_bytes_max: usize,
    /// Bytes of all answers that are being made or written, where they are large; more wait.
    pub answers_bytes_max: usize,
    /// How long an answer waits for the object store where there is nothing else to tell; its client then asks again.
    pub store_wait_max: Duration,
    /// How long a request or an answer waits for its share of these bytes.
    pub bytes_wait_max: Duration,
    /// Produce requests of one connection that may wait for the disk together.
    pub in_flight_max: usize,
    /// Array elements in one request.
    pub request_elements_max: usize,
    /// How long the rest of a request may take to arrive.
    pub request_read_timeout: Duration,
    /// A peer that reads nothing of its answer for this long is disconnected.
    pub answer_stall_timeout: Duration,
    /// A connection without requests is closed after this.
    pub idle_timeout: Duration,
    /// Bytes of one Fetch answer, whatever is asked for.
    pub fetch_bytes_max: usize,
    /// Longest wait of a Fetch.
    pub fetch_wait_max: Duration,
    /// Fetch sessions that are kept (KIP-227); a client that finds no room names all that it fetches each time.
    pub fetch_sessions_max: usize,
    /// Partitions in all fetch sessions.
    pub fetch_session_partitions_max: usize,
    /// Bytes of one batch unless `max.message.bytes` of its topic says otherwise.
    pub message_bytes_max: usize,
    /// Bytes that one batch may grow to when it is decompressed for checking.
    pub unpacked_bytes_max: usize,
    /// Partitions of one topic.
    pub partitions_max: u32,
    /// Topics.
    pub topics_max: usize,
    /// Partitions of all topics.
    pub all_partitions_max: usize,
    /// Groups with members.
    pub groups_max: usize,
    /// Members of one group.
    pub members_max: usize,
    /// Bytes that one group holds for its members: ids, subscriptions, assignments.
    pub group_bytes_max: usize,
    /// Bytes that all groups hold.
    pub groups_bytes_max: usize,
    /// Shortest session timeout of a group's member.
    pub session_timeout_min: Duration,
    /// Longest session timeout of a group's member.
    pub session_timeout_max: Duration,
    /// How long a group's first member waits for others.
    pub initial_rebalance_delay: Duration,
    /// How long a member of a consumer group (KIP-848) may be silent before its partitions go to others.
    pub consumer_session_timeout: Duration,
    /// The least that a group may be given of that.
    pub consumer_session_timeout_min: Duration,
    /// The most.
    pub consumer_session_timeout_max: Duration,
    /// How often such a member is told to be heard of.
    pub consumer_heartbeat_interval: Duration,
    /// The least that a group may be given of that.
    pub consumer_heartbeat_interval_min: Duration,
    /// The most.
    pub consumer_heartbeat_interval_max: Duration,
    /// How long a member of a share group has a record, if the group says nothing else; at least, and at most.
    pub share_record_lock: Duration,
    /// The least of it.
    pub share_record_lock_min: Duration,
    /// The most of it.
    pub share_record_lock_max: Duration,
    /// How often a share group hands out a record before it gives it up.
    pub share_deliveries_max: u16,
    /// Offsets of a partition that a share group has under way at once.
    pub share_locks_max: u64,
    /// Bytes of the metadata of one committed offset.
    pub offset_metadata_bytes_max: usize,
    /// Bytes that committed offsets may take in memory, those of open transactions included.
    pub offsets_bytes_max: usize,
    /// Transactional ids.
    pub transactional_ids_max: usize,
    /// Partitions of one transaction.
    pub transaction_partitions_max: usize,
    /// Bytes that transactional ids and the partitions of their transactions may take in memory.
    pub transactions_bytes_max: usize,
    /// The longest `transaction.timeout.ms` that a producer may ask for.
    pub transaction_timeout_max: Duration,
    /// A transactional id that nobody uses is forgotten after this.
    pub transactional_id_expiration: Duration,
    /// How often it is looked for transactions whose time is over.
    pub transaction_interval: Duration,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            request_bytes_max: 100 << 20,
            requests_bytes_max: 256 << 20,
            answers_bytes_max: 128 << 20,
            store_wait_max: Duration::from_secs(10),
            bytes_wait_max: Duration::from_secs(10),
            in_flight_max: 16,
            request_elements_max: 200_000,
            request_read_timeout: Duration::from_secs(30),
            answer_stall_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            fetch_bytes_max: 55 << 20,
            fetch_wait_max: Duration::from_secs(60),
            fetch_sessions_max: 1_000,
            fetch_session_partitions_max: 100_000,
            message_bytes_max: 1_048_588,
            unpacked_bytes_max: crate::batch::DECOMPRESSED_BYTES_MAX,
            partitions_max: 1_000,
            topics_max: 10_000,
            all_partitions_max: 20_000,
            groups_max: 10_000,
            members_max: 1_000,
            group_bytes_max: 16 << 20,
            groups_bytes_max: 64 << 20,
            session_timeout_min: Duration::from_secs(1),
            session_timeout_max: Duration::from_secs(1_800),
            initial_rebalance_delay: Duration::from_millis(500),
            consumer_session_timeout: Duration::from_secs(45),
            consumer_session_timeout_min: Duration::from_secs(45),
            consumer_session_timeout_max: Duration::from_secs(60),
            consumer_heartbeat_interval: Duration::from_secs(5),
            consumer_heartbeat_interval_min: Duration::from_secs(5),
            consumer_heartbeat_interval_max: Duration::from_secs(15),
            share_record_lock: Duration::from_secs(30),
            share_record_lock_min: Duration::from_secs(15),
            share_record_lock_max: Duration::from_secs(60),
            share_deliveries_max: 5,
            share_locks_max: 2_000,
            offset_metadata_bytes_max: 4_096,
            offsets_bytes_max: 128 << 20,
            transactional_ids_max: 10_000,
            transaction_partitions_max: 10_000,
            transactions_bytes_max: 64 << 20,
            transaction_timeout_max: Duration::from_secs(900),
            transactional_id_expiration: Duration::from_secs(7 * 86_400),
            transaction_interval: Duration::from_secs(1),
        }
    }
}
