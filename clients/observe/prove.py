"""Spans and metrics of Cairn's, read by other people's code.

`prove.py collect --port-file FILE --out FILE` takes OTLP over HTTP as a collector does, decodes it with `opentelemetry-proto`, and writes one JSON
document a line. `prove.py drive --gateway URL --seconds N` is an agent that calls, is refused, and waits for an approval. `prove.py spans FILE` looks at what was
collected. `prove.py panels FILE --prometheus URL` runs each query of a dashboard. The last two print `ok …`, or say what is not so.
"""

import argparse
import base64
import gzip
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b6"


def collect(arguments):
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    kinds = {
        "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
        "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    }
    out = open(arguments.out, "a", buffering=1, encoding="utf-8")

    class Collector(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request, response = kinds[self.path]
            message = request.FromString(body)
            # Whoever writes more than the protocol has is found out.
            unknown = len(message.SerializeToString()) != len(body)
            document = {"path": self.path, "unknown": unknown, "message": MessageToDict(message)}
            out.write(json.dumps(document) + "\n")
            text = response().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    with open(arguments.port_file + ".new", "w", encoding="utf-8") as file:
        file.write(str(server.server_address[1]))
    os.rename(arguments.port_file + ".new", arguments.port_file)
    server.serve_forever()


class Mcp:
    """As much of an MCP client as a call needs."""

    def __init__(self, url, workflow):
        self.url, self.workflow, self.session, self.last = url, workflow, None, 0
        client = {"name": "prover", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        headers["cairn-workflow-id"] = self.workflow
        if self.session:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-11-25"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                self.session = response.headers.get("mcp-session-id") or self.session
                return response.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def ask(self, method, params):
        self.last += 1
        return self.send({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})

    def call(self, tool, meta=None):
        params = {"name": tool, "arguments": {"order_id": "order-s3cret"}}
        return self.ask("tools/call", params | ({"_meta": meta} if meta else {}))


def model(ingest, number):
    """Reports a model call, as an agent's exporter does."""
    texts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini"}
    said = [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()]
    said.append({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}})
    span = {"traceId": TRACE, "spanId": f"{number + 1:016x}", "name": "chat", "attributes": said}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    headers = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{ingest}/v1/traces", body, headers), timeout=60).read()


def drive(arguments):
    until, rounds = time.monotonic() + arguments.seconds, 0
    traced = Mcp(arguments.gateway, "wf-traced")
    own = Mcp(arguments.gateway, "wf-own")
    while rounds == 0 or time.monotonic() < until:
        # A tool that nobody else calls: of several calls in one bucket, the last is its exemplar.
        traced.call("list_orders", {"traceparent": f"00-{TRACE}-{PARENT}-01"})
        own.call("get_order")
        own.call("refund_order")
        own.call("no_such_tool")
        model(arguments.ingest, rounds)
        rounds += 1
        time.sleep(0.2)
    print(f"ok {rounds} rounds")


def hexed(text):
    return base64.b64decode(text).hex()


def attributes(item):
    return {one["key"]: next(iter(one["value"].values())) for one in item["attributes"]}


def scopes(documents, path, resources, within):
    """What each scope of the requests to a path holds."""
    for document in documents:
        if document["path"] == path:
            for resource in document["message"][resources]:
                assert attributes(resource["resource"])["service.name"] == "cairn", resource["resource"]
                for scope in resource[within]:
                    assert scope["scope"]["name"] == "cairn.observe", scope["scope"]
                    yield scope


def check_calls(found):
    calls = [span for span in found if span["name"].startswith("tools/call")]
    traced = [span for span in calls if hexed(span["traceId"]) == TRACE]
    assert traced and all(hexed(span["parentSpanId"]) == PARENT for span in traced), traced
    own = {hexed(span["traceId"]) for span in calls if attributes(span)["cairn.workflow"] == "wf-own"}
    assert len(own) == 1, f"a workflow is one trace: {own}"
    assert len({span["spanId"] for span in calls}) == len(calls), "each call once"
    refused = [span for span in calls if span["name"] == "tools/call refund_order"]
    for span in refused:
        assert span["status"]["code"] == "STATUS_CODE_ERROR" and attributes(span)["cairn.decision"] == "deny", span
        assert "cairn.refused" in [event["name"] for event in span["events"]], span
    assert refused and all(span["kind"] == "SPAN_KIND_SERVER" for span in calls)
    assert all(int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) for span in found)
    return calls


def check_metrics(metrics):
    names = {metric["name"] for metric in metrics}
    for name in ["mcp.server.operation.duration", "cairn.decisions", "cairn.refusals", "cairn.calls.open", "cairn.model.tokens"]:
        assert name in names, f"{name} did not come: {sorted(names)}"
    points = [point for metric in metrics for point in metric.get("histogram", {}).get("dataPoints", [])]
    for point in points:
        assert sum(map(int, point["bucketCounts"])) == int(point["count"]), point
        assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1, point
    traces = {hexed(one["traceId"]) for point in points for one in point.get("exemplars", [])}
    assert TRACE in traces, traces
    return names


def spans(arguments):
    documents = [json.loads(line) for line in open(arguments.file, encoding="utf-8")]
    assert documents and not any(document["unknown"] for document in documents), "fields that the protocol does not have"
    assert "s3cret" not in json.dumps(documents), "no argument goes out"
    found = [span for scope in scopes(documents, "/v1/traces", "resourceSpans", "scopeSpans") for span in scope["spans"]]
    metrics = [one for scope in scopes(documents, "/v1/metrics", "resourceMetrics", "scopeMetrics") for one in scope["metrics"]]
    calls, names = check_calls(found), check_metrics(metrics)
    print(f"ok {len(calls)} calls in {len(found)} spans, {len(names)} metrics")


def panels(arguments):
    dashboard = json.load(open(arguments.file, encoding="utf-8"))
    queries = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    listed = [one for one in dashboard["templating"]["list"] if one["type"] == "query"]
    variables = [(f"variable {one['name']}", one["query"]["query"]) for one in listed]
    assert len(queries) >= 10, queries


    def ask(path, **query):
        url = f"{arguments.prometheus}{path}?{urllib.parse.urlencode(query)}"
        return json.load(urllib.request.urlopen(url, timeout=30))

    missing, until = queries, time.monotonic() + 90
    while missing and time.monotonic() < until:
        left = []
        for title, expression in missing:
            plain = expression.replace("$__rate_interval", "30s").replace("$server", ".*")
            answer = ask("/api/v1/query", query=plain)
            assert answer["status"] == "success", (title, answer)
            if not answer["data"]["result"]:
                left.append((title, expression))
        missing = left
        time.sleep(1 if missing else 0)
    assert not missing, f"no series came of {missing}"
    for title, query in variables:
        metric = query.removeprefix("label_values(").split(",")[0]
        label = query.removesuffix(")").split(",")[1].strip()
        answer = ask("/api/v1/series", **{"match[]": metric})
        assert any(label in series for series in answer["data"]), (title, answer)
    around = {"start": time.time() - 600, "end": time.time()}
    exemplars = ask("/api/v1/query_exemplars", query="cairn_call_duration_seconds_bucket", **around)
    traces = {one["labels"]["trace_id"] for series in exemplars["data"] for one in series["exemplars"]}
    assert traces, exemplars
    print(f"ok {len(queries)} queries, exemplars of {len(traces)} traces")


def main():
    parser = argparse.ArgumentParser()
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("collect")
    one.add_argument("--port-file", required=True)
    one.add_argument("--out", required=True)
    one = what.add_parser("drive")
    one.add_argument("--gateway", required=True)
    one.add_argument("--ingest", required=True)
    one.add_argument("--seconds", type=float, required=True)
    what.add_parser("spans").add_argument("file")
    one = what.add_parser("panels")
    one.add_argument("file")
    one.add_argument("--prometheus", required=True)
    arguments = parser.parse_args()
    {"collect": collect, "drive": drive, "spans": spans, "panels": panels}[arguments.what](arguments)


main()
