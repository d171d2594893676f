"""An agent with the OpenTelemetry SDK and OpenLLMetry's instrumentation of OpenAI, behind Cairn.

`agent.py --protocol http|grpc --ingest URL --gateway URL --server NAME --cairn PROGRAM --data FOLDER`

A model (a small HTTP server here that speaks the chat completions API) chooses a tool, the agent calls it through Cairn within the same
trace, and the server reports an action for it. Then `cairn trail` must show which model call chose the tool, from which offer, and what came
of it. It prints `ok …`, or says what is not so.
"""

import argparse
import json
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TOOLS = [("get_order", "Shows one order."), ("refund_order", "Refunds an order, and opens a ticket for it.")]
CHOICES = ["get_order", "refund_order"]
SECRET = "a promise that stands in no event"


class Model(BaseHTTPRequestHandler):
    """Chooses one tool after the other."""

    asked = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        name, Model.asked = CHOICES[Model.asked % len(CHOICES)], Model.asked + 1
        call = {"id": f"call_{Model.asked}", "type": "function"}
        call["function"] = {"name": name, "arguments": json.dumps({"order_id": "order-1"})}
        choice = {"index": 0, "finish_reason": "tool_calls"}
        choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini"}
        text = json.dumps({**answer, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Mcp:
    """As much of an MCP client as a call needs."""

    def __init__(self, url):
        self.url, self.session, self.last = url, None, 0
        client = {"name": "agent", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if self.session:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-11-25"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            self.session = response.headers.get("mcp-session-id") or self.session
            return response.read().decode()

    def ask(self, method, params):
        self.last += 1
        text = self.send({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: ", "{"))]
        answers = [json.loads(line) for line in lines]
        answer = next(answer for answer in answers if answer.get("id") == self.last)
        assert "result" in answer, answer
        return answer["result"]

    def call(self, tool, arguments):
        meta = {}
        propagate.inject(meta)
        return self.ask("tools/call", {"name": tool, "arguments": arguments, "_meta": meta})


def exporter(protocol, url):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=url, insecure=True)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{url}/v1/traces", compression=Compression.Gzip)


def work(options):
    """Asks the model twice and calls what it chooses; the trace id."""
    provider = TracerProvider(resource=Resource.create({"service.name": "refund-agent"}))
    provider.add_span_processor(BatchSpanProcessor(exporter(options.protocol, options.ingest)))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()
    model = HTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=model.serve_forever, daemon=True).start()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{model.server_port}/v1", api_key="none")
    mcp = Mcp(f"{options.gateway}/mcp/{options.server}")
    tools = [
        {"type": "function", "function": {"name": name, "description": says, "parameters": {"type": "object"}}}
        for name, says in TOOLS
    ]
    messages = [{"role": "user", "content": f"refund order-1: {SECRET}"}]
    with trace.get_tracer("agent").start_as_current_span("refund") as span:
        for _ in CHOICES:
            answer = client.chat.completions.create(model="gpt-5-mini", messages=messages, tools=tools)
            for chosen in answer.choices[0].message.tool_calls:
                result = mcp.call(chosen.function.name, json.loads(chosen.function.arguments))
                assert not result.get("isError"), result
        trace_id = format(span.get_span_context().trace_id, "032x")
    assert provider.force_flush(), "the exporter could not deliver"
    model.shutdown()
    return trace_id


def trail(options, trace_id):
    command = [options.cairn, "trail", trace_id, "--json", "--data", options.data]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def main():
    parser = argparse.ArgumentParser()
    for name in ("protocol", "ingest", "gateway", "server", "cairn", "data"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    trace_id = work(options)
    deadline = time.monotonic() + 60
    while True:
        text = trail(options, trace_id)
        path = json.loads(text)
        if len(path["models"]) == 2 and len(path["calls"]) == 2 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert len(path["models"]) == 2, path["models"]
    for model, call, name in zip(path["models"], path["calls"], CHOICES):
        assert model["gen_ai_provider_name"] == "openai" and model["gen_ai_usage_input_tokens"] == 12, model
        assert [tool["name"] for tool in model["tools_offered"]] == [name for name, _ in TOOLS], model
        assert all(tool["digest"].startswith("sha256:") for tool in model["tools_offered"]), model
        assert [(tool["name"], tool["call_id"]) for tool in model["tools_chosen"]] == [(name, call["call_id"])], model
        assert model["prompt"]["location"].startswith("vault:") and model["output"]["location"].startswith("vault:"), model
        assert call["chosen_by"]["span_id"] == model["span_id"], call
    assert path["models"][0]["tools_offered"] == path["models"][1]["tools_offered"], "the same offer has the same digests"
    actions = [action for call in path["calls"] for action in call["actions"]]
    assert [(action["system"], action["id"]) for action in actions] == [("zendesk", "T-order-1")], actions
    assert path["calls"][1]["actions"], "it stands under the call that caused it"
    assert SECRET not in text, "messages are in no event"
    print(f"ok two model calls by OTLP over {options.protocol}, each joined to the call that it chose, and one action of the {options.server} server")


if __name__ == "__main__":
    main()
