"""An MCP client over HTTP that calls `get_order` so many times: `calls.py GATEWAY COUNT`."""

import json
import sys
import urllib.request


def post(gateway, message, session=None):
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if session:
        headers |= {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    request = urllib.request.Request(gateway + "/mcp/orders", json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
        return answer.headers.get("mcp-session-id")


def main(gateway, count):
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "lake", "version": "1"}}
    session = post(gateway, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    post(gateway, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    for number in range(int(count)):
        call = {"name": "get_order", "arguments": {"order_id": "order-1"}}
        post(gateway, {"jsonrpc": "2.0", "id": 2 + number, "method": "tools/call", "params": call}, session)


main(*sys.argv[1:])
