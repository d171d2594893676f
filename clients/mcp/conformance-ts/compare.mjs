// Reference servers, directly and through Cairn: what both say must be equal.
//
// `node compare.mjs --cairn PROGRAM --python FOLDER` starts each server for itself by stdio, behind Cairn's HTTP, and behind
// `cairn wrap`, asks all the same, with the SDK's client and as bare text (`raw.mjs`), and compares the answers: ids of all
// kinds, cursors, progress, cancellation, requests of the server, unknown methods, unicode, numbers as written, large
// messages, many calls at once, batches. Each comparison is a line `ok …` or `FAILED …`.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { start } from './cairn.mjs';
import { pipe, web } from './raw.mjs';

const { values: options } = parseArgs({ options: { cairn: { type: 'string' }, python: { type: 'string' } } });
const require = createRequire(import.meta.url);
const folder = mkdtempSync(join(tmpdir(), 'cairn-compare-'));

/** The program of an npm package. */
function npm(name) {
  const manifest = require.resolve(`${name}/package.json`);
  const { bin } = require(manifest);
  return join(dirname(manifest), typeof bin === 'string' ? bin : Object.values(bin)[0]);
}

/** A port that is free now. */
async function freePort() {
  const held = createServer().listen(0, '127.0.0.1');
  await once(held, 'listening');
  const { port } = held.address();
  await new Promise((resolve) => held.close(resolve));
  return port;
}

/** A repository with one commit, and files to read. */
function prepare() {
  const repository = join(folder, 'repository');
  mkdirSync(repository);
  writeFileSync(join(repository, 'cairn.txt'), 'stone upon stone\n');
  const who = ['-c', 'user.name=a', '-c', 'user.email=a@example.com', '-C', repository];
  for (const git of [['init', '-q', '-b', 'main'], ['add', '.'], ['commit', '-q', '-m', 'first', '--date', '2026-01-01T00:00:00Z']]) {
    execFileSync('git', [...who, ...git], { stdio: 'ignore' });
  }
  return repository;
}

const repository = prepare();
const file = join(repository, 'cairn.txt');
const entities = [{ name: 'cairn', entityType: 'stack', observations: ['of stones'] }];
const servers = {
  everything: { command: process.execPath, args: [npm('@modelcontextprotocol/server-everything'), 'stdio'], calls: [
    ['echo', { message: 'as it came — “ünïcode” \u0000' }], ['get-sum', { a: 1.5, b: 2 }], ['get-tiny-image', {}],
    ['get-structured-content', { location: 'New York' }], ['no-such-tool', {}], ['get-sum', { a: 'not a number' }],
  ] },
  filesystem: { command: process.execPath, args: [npm('@modelcontextprotocol/server-filesystem'), repository], calls: [
    ['read_text_file', { path: file }], ['list_directory', { path: repository }], ['read_text_file', { path: '/etc/hostname' }],
    ['list_allowed_directories', {}],
  ] },
  thinking: { command: process.execPath, args: [npm('@modelcontextprotocol/server-sequential-thinking')], calls: [
    ['sequentialthinking', { thought: 'stone upon stone', nextThoughtNeeded: false, thoughtNumber: 1, totalThoughts: 1 }],
    ['sequentialthinking', { thought: 7 }],
  ] },
  memory: { command: process.execPath, args: [npm('@modelcontextprotocol/server-memory')], env: { MEMORY_FILE_PATH: join(folder, 'memory.json') }, calls: [
    ['create_entities', { entities }], ['read_graph', {}], ['search_nodes', { query: 'stones' }], ['delete_entities', { entityNames: ['cairn'] }],
  ] },
  ...(options.python ? {
    git: { command: join(options.python, 'mcp-server-git'), args: ['--repository', repository], calls: [
      ['git_log', { repo_path: repository }], ['git_status', { repo_path: repository }], ['git_show', { repo_path: repository, revision: 'HEAD' }],
      ['git_show', { repo_path: repository, revision: 'nothing' }],
    ] },
    time: { command: join(options.python, 'mcp-server-time'), args: ['--local-timezone', 'UTC'], calls: [
      ['convert_time', { source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo' }],
      ['convert_time', { source_timezone: 'Nowhere', time: '12:00', target_timezone: 'UTC' }],
    ] },
    // What it fetches lies outside: only what it says of itself is asked.
    fetch: { command: join(options.python, 'mcp-server-fetch'), args: [], calls: [['fetch', { url: 7 }]] },
  } : {}),
};

/** What a server says, or how it refuses. */
const answer = async (ask) => {
  try {
    return await ask();
  } catch (error) {
    return { refused: error.code, message: error.message };
  }
};

/** Asks everything and gives the answers by name. */
async function askAll(transport, calls) {
  const client = new Client({ name: 'compare', version: '1.0.0' }, { capabilities: {} });
  await client.connect(transport);
  const answers = new Map();
  answers.set('server', { version: client.getServerVersion(), capabilities: client.getServerCapabilities(), instructions: client.getInstructions() });
  for (const list of ['listTools', 'listPrompts', 'listResources', 'listResourceTemplates']) {
    answers.set(list, await answer(() => client[list]()));
  }
  for (const [name, given] of calls) {
    answers.set(`${name} ${JSON.stringify(given)}`, await answer(() => client.callTool({ name, arguments: given })));
  }
  await client.close();
  return answers;
}

/** A request as text; `rest` is what follows the method. */
const request = (id, method, params) => `{"jsonrpc":"2.0","id":${id},"method":"${method}"${params === undefined ? '' : `,"params":${params}`}}`;
const call = (id, name, given, meta) => request(id, 'tools/call', `{"name":"${name}","arguments":${given}${meta ? `,"_meta":${meta}` : ''}}`);
const notice = (method, params = '{}') => `{"jsonrpc":"2.0","method":"${method}","params":${params}}`;
const opening = (version) => request('"open"', 'initialize',
  `{"protocolVersion":"${version}","capabilities":{"roots":{"listChanged":true},"sampling":{},"elicitation":{}},"clientInfo":{"name":"raw","version":"1"}}`);

/** What every server is asked as bare text, by what it is about. */
const questions = {
  'id 0': request(0, 'ping'),
  'a negative id': request(-7, 'ping'),
  'a large id': request(9007199254740991, 'ping'),
  'an empty id': request('""', 'ping'),
  'an id that looks like a number': request('"1"', 'ping'),
  'an id with escapes': request(String.raw`"ünï\u0000 \ud83e\udea8"`, 'ping'),
  'an unknown method': request(1, 'stones/stack', '{"height":3}'),
  'an unknown method without params': request(2, 'rpc.discover'),
  'empty params': request(3, 'tools/list', '{}'),
  'params that nobody knows': request(4, 'tools/list', '{"x-height":[1.0,{"deep":null}],"_meta":{"io.example/y":9007199254740993}}'),
  'an empty cursor': request(5, 'tools/list', '{"cursor":""}'),
  'a cursor that is none': request(6, 'tools/list', String.raw`{"cursor":"\u0000nowhere"}`),
  'a tool that is none': call(7, 'no-such-tool', '{}'),
  'no arguments': request(8, 'tools/call', '{"name":"no-such-tool"}'),
  'a resource that is none': request(9, 'resources/read', '{"uri":"test://nowhere/%00?ü"}'),
  'a prompt that is none': request(10, 'prompts/get', '{"name":"no-such-prompt","arguments":{}}'),
  'prompts': request(11, 'prompts/list'),
  'resources': request(12, 'resources/list'),
  'resource templates': request(13, 'resources/templates/list'),
  'a log level': request(14, 'logging/setLevel', '{"level":"error"}'),
  'a completion': request(15, 'completion/complete', '{"ref":{"type":"ref/prompt","name":"no-such-prompt"},"argument":{"name":"a","value":"b"}}'),
};

/** What the server with everything is asked besides. */
const everything = {
  'unicode': call(20, 'echo', String.raw`{"message":"\u0000 \u2028 \ufeff \u202e \ud83e\udea8 é é ﬃ"}`),
  'numbers as written': call(21, 'echo', '{"message":"n","x":[9007199254740993,1e400,-0,1.0,1E2]}'),
  'a number that is a text': call(22, 'echo', '{"message":9007199254740993}'),
  'a large message': call(23, 'echo', JSON.stringify({ message: 'cairn '.repeat(150_000) })),
  'deep arguments': call(24, 'echo', `{"message":"deep","x":${'['.repeat(100)}${']'.repeat(100)}}`),
  'a request for the roots': call(25, 'get-roots-list', '{}'),
  'a request for sampling': call(26, 'trigger-sampling-request', '{"prompt":"a stone","maxTokens":10}'),
  'a request for elicitation': call(27, 'trigger-elicitation-request', '{}'),
  'annotated content': call(28, 'get-annotated-message', '{"messageType":"error","includeImage":true}'),
  'links to resources': call(29, 'get-resource-links', '{"count":3}'),
};

/** Asks one peer everything, in order; gives answers and what was heard by name. */
async function interrogate(peer, name) {
  try {
    return await interrogateAll(peer, name);
  } finally {
    await peer.close();
  }
}

async function interrogateAll(peer, name) {
  const answers = new Map();
  answers.set('raw initialize', await peer.ask(opening('2025-06-18')));
  await peer.tell(notice('notifications/initialized'));
  const all = Object.entries({ ...questions, ...(name === 'everything' ? everything : {}) });
  for (const [what, text] of all) answers.set(`raw ${what}`, await peer.ask(text));
  // Many at once: each answer finds its question.
  const many = Array.from({ length: 40 }, (_, at) => request(`"many-${at}"`, at % 2 ? 'ping' : 'tools/list'));
  answers.set('raw forty at once', await Promise.all(many.map((text) => peer.ask(text))));
  if (name === 'everything') await interrogateFurther(peer, answers);
  return answers;
}

async function interrogateFurther(peer, answers) {
  for (const token of ['"a token"', '7', '""', '0']) {
    const before = peer.heard.length;
    answers.set(`raw progress under ${token}`, await peer.ask(call(`"p${token.length}${token.length > 2 ? '' : token.charCodeAt(0)}"`,
      'trigger-long-running-operation', '{"duration":0.2,"steps":4}', `{"progressToken":${token}}`)));
    answers.set(`raw what progress says under ${token}`, peer.heard.slice(before).filter(({ method }) => method === 'notifications/progress'));
  }
  const long = call('"long"', 'trigger-long-running-operation', '{"duration":3,"steps":3}');
  peer.ask(long).catch(() => {});
  await peer.ask(request('"while"', 'ping'));
  await peer.tell(notice('notifications/cancelled', '{"requestId":"long","reason":"enough"}'));
  // The server ends no cancelled call with an answer; one asked later, as long, has its answer by then.
  answers.set('raw after a cancellation', await peer.ask(call('"later"', 'trigger-long-running-operation', '{"duration":3.5,"steps":1}')));
  answers.set('raw a cancelled call stays unanswered', peer.isWaiting(long));
  // Roots it also asks for by its own clock, once or twice: that it does is compared, not when and how often.
  const asked = peer.heard.filter(({ id }) => id !== undefined).map(({ method, params }) => ({ method, params }));
  const [roots, others] = [true, false].map((is) => asked.filter(({ method }) => (method === 'roots/list') === is));
  answers.set('raw requests of the server', [...roots.slice(0, 1), ...others]);
}

let failed = 0;
/** Says whether two answers are equal. */
function judge(what, expected, got) {
  const equal = isDeepStrictEqual(got, expected);
  console.log(equal ? `ok ${what}` : `FAILED ${what}: direct ${JSON.stringify(expected).slice(0, 800)} through ${JSON.stringify(got).slice(0, 800)}`);
  failed += equal ? 0 : 1;
}

/** One server, asked as bare text: directly, through HTTP, through `cairn wrap`. */
async function compareRaw(name, { command, args, env }, cairn) {
  const wrapped = ['wrap', '--data', cairn.data, '--name', `${name}-wrapped`, '--', command, ...args];
  const [direct, http, wrap] = await Promise.all([
    interrogate(pipe(command, args, env), name), interrogate(web(cairn.url(name)), name), interrogate(pipe(options.cairn, wrapped, env), name),
  ]);
  for (const [what, expected] of direct) {
    judge(`${name}: ${what}, HTTP`, expected, http.get(what));
    judge(`${name}: ${what}, wrap`, expected, wrap.get(what));
  }
}

/** Batches of 2025-03-26, which the server with everything takes over HTTP. */
async function compareBatches(cairn) {
  const port = await freePort();
  const server = spawn(process.execPath, [npm('@modelcontextprotocol/server-everything'), 'streamableHttp'], {
    env: { ...process.env, PORT: String(port) }, stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    await once(server.stderr, 'data');
    const asked = [request(1, 'ping'), request('"two"', 'tools/list'), notice('notifications/nothing'), call(3, 'echo', '{"message":"in a batch"}'), request(4, 'no/such')];
    const ask = async (url) => {
      const peer = web(url);
      await peer.ask(opening('2025-03-26'));
      const answers = await peer.batch(asked);
      await peer.close();
      return answers;
    };
    judge('everything: a batch of 2025-03-26', await ask(`http://127.0.0.1:${port}/mcp`), await ask(cairn.url('everything')));
  } finally {
    server.kill();
  }
}

const configured = Object.fromEntries(Object.entries(servers).map(([name, { calls, ...server }]) => [name, server]));
const cairn = await start(options.cairn, configured);
try {
  for (const [name, { calls, ...server }] of Object.entries(servers)) {
    try {
      const direct = await askAll(new StdioClientTransport({ ...server, env: { ...process.env, ...server.env }, stderr: 'ignore' }), calls);
      const through = await askAll(new StreamableHTTPClientTransport(new URL(cairn.url(name))), calls);
      for (const [ask, expected] of direct) judge(`${name}: ${ask}`, expected, through.get(ask));
      await compareRaw(name, server, cairn);
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack.replace(/\n/g, ' | ')}`);
      failed += 1;
    }
  }
  await compareBatches(cairn).catch((error) => {
    console.log(`FAILED everything: batches: ${error.stack.replace(/\n/g, ' | ')}`);
    failed += 1;
  });
} finally {
  await cairn.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed === 0 ? 0 : 1;
