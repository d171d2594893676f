//! The bounds that everything read from a peer is held to. Made by the gateway from its configuration and handed to
//! the scanner and the links; nothing in this crate reserves memory from a count that a peer sends.

use std::time::Duration;

/// Bounds on what one peer may make this process hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one JSON-RPC message, whatever carries it: an HTTP body, a line of stdio, the data of an SSE event.
    pub message_bytes_max: usize,
    /// How deeply arrays and objects may nest; the message's own object is level one.
    pub depth_max: usize,
    /// Members of one 2025-03-26 batch.
    pub batch_members_max: usize,
    /// Frames that wait for a slow reader of one stream before the stream is ended with an error.
    pub frames_queued_max: usize,
    /// Calls that may wait for an answer of one upstream connection.
    pub calls_pending_max: usize,
    /// Bytes kept of the end of a child's stderr.
    pub stderr_bytes_max: usize,
    /// How long connecting to an HTTP upstream may take, and how long one is waited for that refuses connections.
    pub connect_wait_max: Duration,
    /// How long a call waits for a child that is started again, pauses and handshake included.
    pub start_wait_max: Duration,
    /// How long a child may take to end after its stdin was closed, before it is killed.
    pub exit_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 * 1024 * 1024,
            depth_max: 128,
            batch_members_max: 64,
            frames_queued_max: 256,
            calls_pending_max: 1024,
            stderr_bytes_max: 16 * 1024,
            connect_wait_max: Duration::from_secs(10),
            start_wait_max: Duration::from_secs(30),
            exit_wait_max: Duration::from_secs(2),
        }
    }
}
