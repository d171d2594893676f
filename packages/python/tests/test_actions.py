"""The package against a server that answers as it is told. `cargo xtask models` runs it against Cairn itself."""

import asyncio
import json
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import cairn_actions
from cairn_actions import Actions, NotReported, handle_of

HANDLE = "cairn-call.abc"
ACTION = {"system": "zendesk", "kind": "ticket", "id": "T-1", "state": "created"}
TAKEN = (200, {"actions": [{"event_id": "e1", "call_id": "c1", "repeated": False}]})


class Told(unittest.TestCase):
    def setUp(self):
        self.answers, self.seen = [TAKEN], []
        test = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                test.seen.append((self.path, self.headers.get("authorization"), body))
                status, answer = test.answers.pop(0) if len(test.answers) > 1 else test.answers[0]
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        cairn_actions._PAUSE_S = 0.001

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def test_an_action_is_sent_with_its_handle_and_key(self):
        actions = Actions(self.url + "/", key="k")
        self.assertEqual(actions.report(HANDLE, **ACTION, idempotency_key="1"), "e1")
        path, key, body = self.seen[0]
        self.assertEqual((path, key), ("/v1/actions", "Bearer k"))
        self.assertEqual(body, {"actions": [{"call": HANDLE, **ACTION, "idempotency_key": "1"}]})
        self.assertEqual(asyncio.run(actions.report_async({"io.cairn/call": HANDLE}, **ACTION)), "e1")

    def test_what_may_pass_is_tried_again_and_what_may_not_is_said(self):
        self.answers = [(503, {"error": "later"}), TAKEN]
        self.assertEqual(Actions(self.url).report(HANDLE, **ACTION), "e1")
        self.assertEqual(len(self.seen), 2)
        self.answers = [(400, {"error": "actions[0]: no handle"})]
        with self.assertRaises(NotReported) as raised:
            Actions(self.url).report(HANDLE, **ACTION)
        self.assertEqual((raised.exception.status, str(raised.exception)), (400, "actions[0]: no handle"))
        self.assertEqual(len(self.seen), 3)
        with self.assertRaises(NotReported):
            Actions("http://127.0.0.1:1").report(HANDLE, **ACTION)

    def test_without_cairn_nothing_is_sent(self):
        self.assertIsNone(Actions(self.url).report({}, **ACTION))
        self.assertIsNone(Actions("").report(None, **ACTION))
        self.assertEqual(self.seen, [])

    def test_a_handle_is_found_wherever_the_sdk_keeps_it(self):
        first = SimpleNamespace(request_context=SimpleNamespace(meta=SimpleNamespace(model_extra={"io.cairn/call": HANDLE})))
        second = SimpleNamespace(request_context=SimpleNamespace(meta={"io.cairn/call": HANDLE}))
        for source in (HANDLE, {"io.cairn/call": HANDLE}, first, second, SimpleNamespace(meta={"io.cairn/call": HANDLE})):
            self.assertEqual(handle_of(source), HANDLE)
        for source in (None, "", {}, 7, SimpleNamespace(meta=None), {"io.cairn/call": 7}):
            self.assertIsNone(handle_of(source))


if __name__ == "__main__":
    unittest.main()
