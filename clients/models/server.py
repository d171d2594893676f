"""An MCP server on the official Python SDK that reports what it did with `packages/python`. Standard input and output."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "packages/python"))

from cairn_actions import Actions
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server, actions = MCPServer("orders"), Actions()


@server.tool()
async def get_order(order_id: str) -> str:
    """Shows one order."""
    return f"{order_id}: 3 cairns"


@server.tool()
async def refund_order(order_id: str, ctx: Context) -> str:
    """Refunds an order, and opens a ticket for it."""
    event = await actions.report_async(ctx, system="zendesk", kind="ticket", id=f"T-{order_id}", state="created")
    return f"refunded, reported as {event}"


if __name__ == "__main__":
    server.run("stdio")
