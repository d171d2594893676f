//! The revisions of MCP.
