// An MCP server for the conformance suite, on the official TypeScript SDK.
//
// It interprets ../fixture.json. `node server.mjs --port N` serves both eras by Streamable HTTP at /mcp (port 0
// takes a free one) and prints `listening http://127.0.0.1:N/mcp`; `node server.mjs --stdio` speaks on stdio.
// With --journal FILE each tool call that reaches it is appended there as one line, so that a driver can compare
// what Cairn recorded with what arrived.

import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomBytes, randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import {
  createMcpHandler, createRequestStateCodec, inputRequired, isLegacyRequest, ProtocolError, ProtocolErrorCode, Server,
} from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

const { values: options } = parseArgs({
  options: { port: { type: 'string', default: '0' }, stdio: { type: 'boolean', default: false }, journal: { type: 'string' } },
});
const fixture = JSON.parse(readFileSync(new URL('../fixture.json', import.meta.url), 'utf8'));
const sealed = createRequestStateCodec({ key: randomBytes(32) });
const sessions = new Map();
const events = new Map();
let modern;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const without = (object, ...keys) => Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
const find = (list, key, value) => list.find((entry) => entry[key] === value);

/** Replaces each $word in the strings of `value` by the word's entry, JSON where that is not a string. */
function fill(value, words) {
  return JSON.parse(JSON.stringify(value), (_, part) => typeof part !== 'string' ? part
    : part.replace(/\$([a-zA-Z0-9]+)/g, (all, word) => !(word in words) ? all
      : typeof words[word] === 'string' ? words[word] : JSON.stringify(words[word])));
}

/** The words that the client's answers bring: form fields, the completion's text, the action. */
function wordsOf(answers) {
  const words = {};
  for (const answer of answers) {
    if (answer?.content?.text) words.text = answer.content.text;
    if (answer?.action) Object.assign(words, { action: answer.action, content: answer.content ?? {} }, answer.content ?? {});
  }
  return words;
}

const capability = { 'elicitation/create': 'elicitation', 'sampling/createMessage': 'sampling', 'roots/list': 'roots' };
const build = {
  'elicitation/create': (params) => inputRequired.elicit(params),
  'sampling/createMessage': (params) => inputRequired.createMessage(params),
  'roots/list': () => inputRequired.listRoots(),
};

const usable = (answer) => answer !== null && typeof answer === 'object' && !Array.isArray(answer);
const declared = (context) => context.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities']
  ?? context.mcpReq._meta?.['io.modelcontextprotocol/clientCapabilities'] ?? {};

/** One round of an `input_required` exchange: the result that asks for more, or undefined when all is there. */
async function nextRound(does, context) {
  const state = does.state ? context.mcpReq.requestState() : undefined;
  const answers = context.mcpReq.inputResponses ?? {};
  let round = state?.round ?? 0;
  const asked = does.rounds[Math.min(round, does.rounds.length - 1)];
  const wanted = Object.entries(asked).filter(([, ask]) => !does.onlyCapable || capability[ask.method] in declared(context));
  const complete = (!does.state || state !== undefined) && wanted.every(([key]) => usable(answers[key]));
  if (complete && (round += 1) >= does.rounds.length) return undefined;
  if (complete && !does.state) return undefined;
  const ask = complete ? Object.entries(does.rounds[round]) : wanted;
  if (ask.length === 0) return undefined;
  return inputRequired({
    inputRequests: Object.fromEntries(ask.map(([key, { method, params }]) => [key, build[method](params)])),
    ...(does.state ? { requestState: await sealed.mint({ round, nonce: randomUUID() }) } : {}),
  });
}

async function callTool(request, context) {
  const { name, arguments: given = {} } = request.params;
  if (options.journal) appendFileSync(options.journal, `${JSON.stringify({ name, arguments: given })}\n`);
  const tool = find(fixture.tools, 'name', name);
  if (!tool) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `unknown tool ${name}`);
  const { does } = tool;
  const send = context.mcpReq;
  let words = given;
  if (does.requires && !(does.requires in declared(context))) {
    // The SDK turns an undeclared input request into the error that the specification names.
    return inputRequired({ inputRequests: { needed: build['sampling/createMessage']({ messages: [], maxTokens: 1 }) } });
  }
  for (const data of does.log ?? []) {
    await send.notify({ method: 'notifications/message', params: { level: 'info', logger: fixture.name, data } });
    await pause(20);
  }
  if (does.logIfAsked) await send.log('info', does.logIfAsked);
  const progressToken = send._meta?.progressToken;
  for (const progress of progressToken === undefined ? [] : does.progress ?? []) {
    await send.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
    await pause(20);
  }
  if (does.closeStream) {
    sessions.get(context.sessionId)?.closeSSEStream(send.id);
    await pause(100);
  }
  if (does.trigger === 'tools') modern?.notify.toolsChanged();
  if (does.trigger === 'prompts') modern?.notify.promptsChanged();
  if (does.ask) words = { ...words, ...wordsOf([await send.send(fill(does.ask, given))]) };
  if (does.rounds) {
    const more = await nextRound(does, context);
    if (more) return more;
    words = { ...words, ...wordsOf(Object.values(send.inputResponses ?? {})) };
  }
  return { content: fill(does.reply, words), ...(does.isError ? { isError: true } : {}) };
}

async function getPrompt(request, context) {
  const { name, arguments: given = {} } = request.params;
  const prompt = find(fixture.prompts, 'name', name);
  if (!prompt) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `unknown prompt ${name}`);
  const more = prompt.rounds && await nextRound(prompt, context);
  if (more) return more;
  const words = { ...given, ...wordsOf(Object.values(context.mcpReq.inputResponses ?? {})) };
  return { description: prompt.description, messages: fill(prompt.messages, words) };
}

function readResource({ params: { uri } }, era) {
  const resource = find(fixture.resources, 'uri', uri);
  if (resource) return { contents: [without(resource, 'name', 'description')] };
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id) return { contents: [{ uri, mimeType: fixture.template.mimeType, text: fill(fixture.template.text, { id }) }] };
  throw new ProtocolError(era === 'modern' ? ProtocolErrorCode.InvalidParams : -32002, `no resource ${uri}`, { uri });
}

/** One server for one unit of serving: a session, a modern request, or a stdio connection. */
function newServer({ era } = { era: 'legacy' }) {
  const capabilities = {
    tools: { listChanged: true }, prompts: { listChanged: true }, resources: { subscribe: true }, completions: {}, ...(era === 'legacy' ? { logging: {} } : {}),
  };
  const cache = { ttlMs: fixture.cacheTtlMs, cacheScope: 'public' };
  const hints = Object.fromEntries(
    ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read', 'server/discover']
      .map((method) => [method, cache]));
  const server = new Server({ name: fixture.name, version: fixture.version },
    { capabilities, cacheHints: hints, requestState: { verify: sealed.verify } });
  server.setRequestHandler('tools/list', () => ({ tools: fixture.tools.map((tool) => without(tool, 'does')) }));
  server.setRequestHandler('tools/call', callTool);
  server.setRequestHandler('prompts/list', () => ({ prompts: fixture.prompts.map((prompt) => without(prompt, 'messages', 'rounds')) }));
  server.setRequestHandler('prompts/get', getPrompt);
  server.setRequestHandler('resources/list', () => ({ resources: fixture.resources.map((entry) => without(entry, 'text', 'blob')) }));
  server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates: [without(fixture.template, 'text')] }));
  server.setRequestHandler('resources/read', (request) => readResource(request, era));
  server.setRequestHandler('resources/subscribe', () => ({}));
  server.setRequestHandler('resources/unsubscribe', () => ({}));
  server.setRequestHandler('completion/complete', () => ({ completion: { values: [], total: 0, hasMore: false } }));
  if (era === 'legacy') server.setRequestHandler('logging/setLevel', () => ({}));
  return server;
}

/** Keeps what a session's streams carried, so that a client can resume one after its last event. */
const eventStore = {
  async storeEvent(stream, message) {
    const kept = events.get(stream) ?? [];
    kept.push(message);
    events.set(stream, kept);
    return `${stream}/${kept.length}`;
  },
  async getStreamIdForEventId(id) {
    return id.slice(0, id.lastIndexOf('/'));
  },
  async replayEventsAfter(id, { send }) {
    const stream = id.slice(0, id.lastIndexOf('/'));
    const kept = events.get(stream) ?? [];
    for (let at = Number(id.slice(stream.length + 1)); at < kept.length; at += 1) {
      if (kept[at] && Object.keys(kept[at]).length > 0) await send(`${stream}/${at + 1}`, kept[at]);
    }
    return stream;
  },
};

async function openSession() {
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    eventStore,
    retryInterval: 500,
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await newServer().connect(transport);
  return transport;
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {
    return chunks.length === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    return undefined;
  }
}

function refuse(response, status, code, message) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }));
}

const local = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;
const isLocal = ({ headers: { host = '', origin } }) =>
  local.test(host) && (!origin || local.test(origin.replace(/^https?:\/\//, '')));

function serveHttp() {
  modern = createMcpHandler(newServer, { legacy: 'reject' });
  const modernNode = toNodeHandler(modern);
  const http = createServer(async (request, response) => {
    if (!isLocal(request)) return refuse(response, 403, -32000, 'only local hosts and origins are served');
    const body = request.method === 'POST' ? await bodyOf(request) : undefined;
    const legacy = await isLegacyRequest(await toWebRequest(request, body ?? ''), body);
    if (!legacy) return modernNode(request, response, body);
    const id = request.headers['mcp-session-id'];
    const opening = request.method === 'POST' && body?.method === 'initialize';
    const session = id ? sessions.get(id) : opening ? await openSession() : undefined;
    if (session) return session.handleRequest(request, response, body);
    return refuse(response, id ? 404 : 400, -32000, id ? 'no such session' : 'send initialize first');
  });
  http.listen(Number(options.port), '127.0.0.1', () => console.log(`listening http://127.0.0.1:${http.address().port}/mcp`));
}

if (options.stdio) serveStdio(newServer);
else serveHttp();
