//! A small MCP server of orders and tickets, for the demonstration and the tests.
