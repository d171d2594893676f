// The package against a server that answers as it is told. `cargo xtask models` runs it against Cairn itself.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Actions, handleOf, NotReported } from "../src/index.ts";

const HANDLE = "cairn-call.abc";
const ACTION = { system: "zendesk", kind: "ticket", id: "T-1", state: "created" };
const TAKEN = [200, { actions: [{ event_id: "e1", call_id: "c1", repeated: false }] }];

async function served(answers, use) {
  const seen = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      seen.push({ path: request.url, key: request.headers.authorization, body: JSON.parse(body) });
      const [status, answer] = answers.length > 1 ? answers.shift() : answers[0];
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(`http://127.0.0.1:${server.address().port}/`, seen);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("an action is sent with its handle and key", () =>
  served([TAKEN], async (url, seen) => {
    assert.equal(await new Actions({ url, key: "k" }).report(HANDLE, { ...ACTION, idempotency_key: "1" }), "e1");
    assert.deepEqual(seen, [
      { path: "/v1/actions", key: "Bearer k", body: { actions: [{ call: HANDLE, ...ACTION, idempotency_key: "1" }] } },
    ]);
  }));

test("what may pass is tried again, and what may not is said", () =>
  served([[503, { error: "later" }], TAKEN, [400, { error: "no handle" }]], async (url, seen) => {
    const actions = new Actions({ url, pauseMs: 1 });
    assert.equal(await actions.report(HANDLE, ACTION), "e1");
    await assert.rejects(actions.report(HANDLE, ACTION), (error) => error instanceof NotReported && error.status === 400);
    assert.equal(seen.length, 3);
    const nowhere = new Actions({ url: "http://127.0.0.1:1", pauseMs: 1 });
    await assert.rejects(nowhere.report(HANDLE, ACTION), NotReported);
  }));

test("without Cairn nothing is sent", () =>
  served([TAKEN], async (url, seen) => {
    assert.equal(await new Actions({ url }).report({}, ACTION), undefined);
    assert.deepEqual(seen, []);
  }));

test("a handle is found wherever the SDK keeps it", () => {
  const meta = { "io.cairn/call": HANDLE };
  for (const source of [HANDLE, meta, { _meta: meta }, { mcpReq: { _meta: meta } }, { params: { _meta: meta } }]) {
    assert.equal(handleOf(source), HANDLE);
  }
  for (const source of [undefined, null, "", 7, {}, { _meta: null }, { "io.cairn/call": 7 }]) {
    assert.equal(handleOf(source), undefined);
  }
});
