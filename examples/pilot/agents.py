"""Two agents on the same order. Nothing but Python's own library.

    python3 agents.py --desk KEY --warehouse KEY [--gateway http://127.0.0.1:7070]
"""

import argparse
import json
import urllib.error
import urllib.request


class Agent:
    """An MCP client over HTTP (2025-11-25)."""

    def __init__(self, gateway, key, workflow, name):
        self.url, self.name, self.session, self.number = f"{gateway}/mcp/orders", name, None, 0
        self.headers = {
            "Authorization": f"Bearer {key}",
            "Cairn-Workflow-Id": workflow,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        client = {"name": name, "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self.headers["MCP-Protocol-Version"] = "2025-11-25"
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def post(self, message):
        headers = dict(self.headers, **({"Mcp-Session-Id": self.session} if self.session else {}))
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            self.session = response.headers.get("Mcp-Session-Id") or self.session
            text = response.read().decode()
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        return json.loads(lines[-1] if lines else text or "{}")

    def ask(self, method, params):
        self.number += 1
        return self.post({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})

    def call(self, tool, **arguments):
        """What came back: an order, or why there is none."""
        reply = self.ask("tools/call", {"name": tool, "arguments": arguments})
        if "error" in reply:
            return {"refused": reply["error"].get("data", {}).get("cairn", "error"), "says": reply["error"]["message"]}
        return reply["result"]["structuredContent"]


def story(desk, warehouse, order, said=print):
    """The desk reads an order, the warehouse changes it, and the desk's write is stopped until it has looked again."""
    told = []

    def step(agent, tool, **arguments):
        came = agent.call(tool, id=order, **arguments)
        told.append((agent.name, tool, came))
        said(f"{agent.name:>9}  {tool:<12}  {came.get('says') or 'version ' + came['version'] + ', ' + came['state']}")

    step(desk, "get_order")
    step(warehouse, "get_order")
    step(warehouse, "set_order", state="packed")
    step(desk, "set_order", state="cancelled")
    step(desk, "get_order")
    step(desk, "set_order", state="returned")
    step(desk, "delete_order")
    said("           refund_order   waits for a person: `cairn approve` in another shell")
    step(desk, "refund_order", cents=1999)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", default="http://127.0.0.1:7070")
    parser.add_argument("--desk", required=True)
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--order", default="4711")
    given = parser.parse_args()
    pair = [Agent(given.gateway, key, f"order-{given.order}", name) for key, name in ((given.desk, "desk"), (given.warehouse, "warehouse"))]
    try:
        story(*pair, given.order)
    except urllib.error.URLError as error:
        raise SystemExit(f"{given.gateway} does not answer as it should: {error}; is `cairn up` there, with these keys?") from error
