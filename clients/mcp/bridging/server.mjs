// An MCP server of one protocol era and no other, on the official TypeScript SDK.
//
// `node server.mjs --era legacy|modern` speaks on stdio; with `--port N` it serves Streamable HTTP at /mcp (port 0 takes
// a free one) and prints `listening http://127.0.0.1:N/mcp`. With --journal FILE each tool call that reaches it is
// appended there as one line of JSON, and what else reaches it to FILE.notes as one line of text. Its tools ask for what
// differs between the eras: input of the client, progress, log messages, changes, cancellation.

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomBytes, randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, createRequestStateCodec, inputRequired, ProtocolError, Server } from '@modelcontextprotocol/server';
import { serveStdio, StdioServerTransport } from '@modelcontextprotocol/server/stdio';

const { values: options } = parseArgs({
  options: { era: { type: 'string' }, port: { type: 'string' }, journal: { type: 'string' } },
});
const modern = options.era === 'modern';
const sealed = createRequestStateCodec({ key: randomBytes(32) });
const journal = (name) => options.journal && appendFileSync(options.journal, `${JSON.stringify({ name })}\n`);
const note = (line) => options.journal && appendFileSync(`${options.journal}.notes`, `${line}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const text = (words) => ({ content: [{ type: 'text', text: words }] });

const form = (message, field) => ({
  mode: 'form', message,
  requestedSchema: { type: 'object', properties: { [field]: { type: 'string' } }, required: [field] },
});
const prompt = { messages: [{ role: 'user', content: { type: 'text', text: 'say hello' } }], maxTokens: 20 };

/** Tells whoever listens, however this server does that. */
let tell = {};

const object = { type: 'object' };
const tools = [
  { name: 'echo', inputSchema: { type: 'object', properties: { words: { type: 'string' } } } },
  { name: 'fails', inputSchema: object },
  { name: 'book', description: 'asks for a name, then for a day', inputSchema: object },
  { name: 'greet', description: 'asks the model', inputSchema: object },
  { name: 'where', description: 'asks for roots', inputSchema: object },
  { name: 'works', description: 'reports progress and logs', inputSchema: object },
  { name: 'sleeps', description: 'until it is cancelled', inputSchema: object },
  { name: 'changes', description: 'its resource and its list of tools', inputSchema: object },
];

async function more(key, build, round, answers = {}) {
  return inputRequired({ inputRequests: { [key]: build }, requestState: await sealed.mint({ round, answers }) });
}

const does = {
  echo: (given) => text(given.words ?? ''),
  fails: () => ({ ...text('it went wrong'), isError: true }),
  async book(_, context) {
    if (!modern) {
      const name = await context.mcpReq.send({ method: 'elicitation/create', params: form('who?', 'name') });
      if (name.action !== 'accept') return text(`no booking: ${name.action}`);
      const day = await context.mcpReq.send({ method: 'elicitation/create', params: form('when?', 'day') });
      return text(`${name.content.name} on ${day.content.day}`);
    }
    const state = context.mcpReq.requestState();
    const answer = context.mcpReq.inputResponses?.asked;
    if (!state) return more('asked', inputRequired.elicit(form('who?', 'name')), 1);
    if (answer?.action !== 'accept') return text(`no booking: ${answer?.action}`);
    if (state.round === 1) return more('asked', inputRequired.elicit(form('when?', 'day')), 2, { name: answer.content.name });
    return text(`${state.answers.name} on ${answer.content.day}`);
  },
  async greet(_, context) {
    if (!modern) {
      const said = await context.mcpReq.send({ method: 'sampling/createMessage', params: prompt });
      return text(`the model says ${said.content.text}`);
    }
    const said = context.mcpReq.inputResponses?.said;
    return said ? text(`the model says ${said.content.text}`) : more('said', inputRequired.createMessage(prompt), 1);
  },
  async where(_, context) {
    const answer = modern ? context.mcpReq.inputResponses?.roots : await context.mcpReq.send({ method: 'roots/list' });
    return answer ? text(answer.roots.map((root) => root.uri).join(' ')) : more('roots', inputRequired.listRoots(), 1);
  },
  async works(_, context) {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (const progress of progressToken === undefined ? [] : [1, 2]) {
      await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 2 } });
      await pause(20); // the SDK's clients forget a progress token in the moment in which they read the answer
    }
    await context.mcpReq.log('debug', 'small');
    await context.mcpReq.log('warning', 'large');
    return text('done');
  },
  async sleeps(_, context) {
    await new Promise((resolve) => {
      if (context.mcpReq.signal.aborted) resolve();
      else context.mcpReq.signal.addEventListener('abort', resolve);
    });
    note('cancelled sleeps');
    return text('never');
  },
  async changes() {
    await tell.resource?.('test://stone');
    await tell.tools?.();
    return text('changed');
  },
};

function newServer() {
  const server = new Server({ name: `only-${options.era}`, version: '1.2.3' }, {
    capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} },
    instructions: 'stone upon stone',
    requestState: { verify: sealed.verify },
  });
  server.setRequestHandler('tools/list', () => ({ tools }));
  server.setRequestHandler('tools/call', async (request, context) => {
    const { name, arguments: given = {} } = request.params;
    journal(name);
    if (!does[name]) throw new ProtocolError(-32602, `unknown tool ${name}`);
    return does[name](given, context);
  });
  server.setRequestHandler('resources/list', () => ({ resources: [{ uri: 'test://stone', name: 'stone' }] }));
  server.setRequestHandler('resources/read', () => ({ contents: [{ uri: 'test://stone', text: 'granite' }] }));
  if (!modern) {
    server.setRequestHandler('resources/subscribe', ({ params }) => { note(`subscribe ${params.uri}`); return {}; });
    server.setRequestHandler('resources/unsubscribe', ({ params }) => { note(`unsubscribe ${params.uri}`); return {}; });
    tell = { resource: (uri) => server.sendResourceUpdated({ uri }), tools: () => server.sendToolListChanged() };
  }
  return server;
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return chunks.length === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString('utf8'));
}

const sessions = new Map();

async function legacyHttp(request, response, body) {
  const id = request.headers['mcp-session-id'];
  let transport = sessions.get(id);
  if (!transport && !id && body?.method === 'initialize') {
    transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      onsessioninitialized: (opened) => sessions.set(opened, transport),
    });
    await newServer().connect(transport);
  }
  if (transport) return transport.handleRequest(request, response, body);
  response.writeHead(id ? 404 : 400, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32000, message: 'send initialize first' } }));
}

if (options.port !== undefined) {
  let serve = legacyHttp;
  if (modern) {
    const handler = createMcpHandler(newServer, { legacy: 'reject' });
    tell = { resource: (uri) => handler.notify.resourceUpdated(uri), tools: () => handler.notify.toolsChanged() };
    serve = toNodeHandler(handler);
  }
  const http = createServer(async (request, response) => serve(request, response, request.method === 'POST' ? await bodyOf(request) : undefined));
  http.listen(Number(options.port), '127.0.0.1', () => console.log(`listening http://127.0.0.1:${http.address().port}/mcp`));
} else if (modern) {
  let last;
  serveStdio(() => (last = newServer()), { legacy: 'reject' });
  tell = { resource: (uri) => last.sendResourceUpdated({ uri }), tools: () => last.sendToolListChanged() };
} else {
  await newServer().connect(new StdioServerTransport());
}
