//! MCP on the wire: JSON-RPC envelopes, both eras, transports and bridging.
