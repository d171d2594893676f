"""An MCP server on standard streams: orders with versions, in a file, and a journal of everything that it did.

Nothing but Python's own library. The journal is what the trail is compared with: Cairn does not know of it.
"""

import json
import os
import sys

FILE = os.environ.get("ORDERS_FILE", "orders.json")
JOURNAL = os.environ.get("ORDERS_JOURNAL", "journal.txt")
ID = {"id": {"type": "string"}}


def tool(name, does, more=None):
    properties = {**ID, **(more or {})}
    return {"name": name, "description": does, "inputSchema": {"type": "object", "properties": properties, "required": list(properties)}}


TOOLS = [
    tool("get_order", "An order with its version"),
    tool("set_order", "Changes an order's state", {"state": {"type": "string"}}),
    tool("refund_order", "Gives money back", {"cents": {"type": "integer"}}),
    tool("delete_order", "Removes an order for good"),
]


def orders():
    try:
        with open(FILE, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def call(name, arguments):
    number = str(arguments["id"])
    kept = orders()
    order = kept.setdefault(number, {"id": number, "state": "new", "version": "1"})
    if name == "get_order":
        return order
    if name == "set_order":
        order["state"] = arguments["state"]
    elif name == "refund_order":
        order["refunded"] = arguments["cents"]
    elif name == "delete_order":
        kept.pop(number)
    else:
        raise KeyError(name)
    order["version"] = str(int(order["version"]) + 1)
    with open(FILE + ".new", "w", encoding="utf-8") as file:
        json.dump(kept, file)
    os.replace(FILE + ".new", FILE)
    with open(JOURNAL, "a", encoding="utf-8") as journal:
        journal.write(f"{name} {json.dumps(arguments, sort_keys=True)}\n")
    return order


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "orders", "version": "1"}}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        order = call(params["name"], params.get("arguments", {}))
        return {"content": [{"type": "text", "text": json.dumps(order)}], "structuredContent": order}
    return {}


def main():
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        try:
            reply = {"result": answer(message)}
        except (KeyError, ValueError) as error:
            reply = {"error": {"code": -32602, "message": f"no such tool, argument or order: {error}"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
