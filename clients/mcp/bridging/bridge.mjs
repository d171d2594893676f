// Clients of one protocol era, servers of the other, Cairn between them.
//
// `node bridge.mjs --cairn PROGRAM [--python FOLDER]` starts servers that speak one era only (server.mjs by HTTP and by
// stdio, and the reference server `everything`), puts one Cairn in front of all of them, and drives each with the SDK's
// client in the other era, over HTTP and through `cairn wrap`. Each expectation is a line `ok …` or `FAILED …`. With
// --python the trail is then read by a Kafka client and held to the invariants and to what the servers wrote down.
//
// Two workflows are also recorded there, and played to clients of both eras without any server behind.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { start } from '../conformance-ts/cairn.mjs';

const PATIENCE_MS = 30_000;
const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const { values: options } = parseArgs({ options: { cairn: { type: 'string' }, python: { type: 'string' }, only: { type: 'string' } } });
const folder = mkdtempSync(join(tmpdir(), 'cairn-bridge-'));
let failed = 0;

function expect(what, got, wanted) {
  const equal = isDeepStrictEqual(got, wanted);
  console.log(equal ? `ok ${what}` : `FAILED ${what}: got ${JSON.stringify(got)?.slice(0, 600)} wanted ${JSON.stringify(wanted)}`);
  failed += equal ? 0 : 1;
}

/** Waits until `look` gives something true; it does not care how long that takes, up to a generous end. */
async function until(look) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found || Date.now() > end) return found;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

const listening = [];

/** Starts a server of one era by HTTP; gives its URL. */
async function serve(era, journal) {
  const server = spawn(process.execPath, [join(here, 'server.mjs'), '--era', era, '--port', '0', '--journal', journal], { stdio: ['ignore', 'pipe', 'inherit'] });
  listening.push(server);
  let said = '';
  server.stdout.on('data', (chunk) => { said += chunk; });
  await until(() => /listening (\S+)/.test(said));
  return /listening (\S+)/.exec(said)[1];
}

const everything = () => {
  const manifest = require.resolve('@modelcontextprotocol/server-everything/package.json');
  const { bin } = require(manifest);
  return join(dirname(manifest), typeof bin === 'string' ? bin : Object.values(bin)[0]);
};

const notes = (journal) => (existsSync(`${journal}.notes`) ? readFileSync(`${journal}.notes`, 'utf8').split('\n') : []);

/** A client of one era that answers what it is asked, and writes down what it is told. */
function newClient(era) {
  const heard = { asked: [], logs: [], lists: 0, updated: [] };
  const client = new Client({ name: `${era}-client`, version: '4.5.6' }, {
    capabilities: { elicitation: { form: {} }, sampling: {}, roots: {} },
    ...(era === 'modern' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {}),
  });
  client.setRequestHandler('elicitation/create', ({ params }) => {
    heard.asked.push(params.message);
    const [field] = Object.keys(params.requestedSchema.properties);
    return { action: 'accept', content: { [field]: { name: 'Ada', day: 'Monday' }[field] ?? 'x' } };
  });
  client.setRequestHandler('sampling/createMessage', () => ({ role: 'assistant', model: 'm', content: { type: 'text', text: 'hello' } }));
  client.setRequestHandler('roots/list', () => ({ roots: [{ uri: 'file:///stones' }] }));
  client.setNotificationHandler('notifications/message', ({ params }) => { heard.logs.push(params.data); });
  client.setNotificationHandler('notifications/tools/list_changed', () => { heard.lists += 1; });
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => { heard.updated.push(params.uri); });
  return { client, heard };
}

const words = (result) => result.content?.map((part) => part.text).join();

const refusal = async (ask) => {
  try {
    return { result: await ask() };
  } catch (error) {
    return { code: error.code, data: error.data };
  }
};

async function drive(name, era, transport, journal) {
  const { client, heard } = newClient(era);
  const call = (tool, given = {}, with_ = {}) => client.callTool({ name: tool, arguments: given, ...with_.params }, with_.options);
  await client.connect(transport);
  const other = era === 'legacy' ? 'modern' : 'legacy';
  expect(`${name}: the server names itself`, client.getServerVersion()?.name, `only-${other}`);
  expect(`${name}: instructions`, client.getInstructions(), 'stone upon stone');
  expect(`${name}: tools/list`, (await client.listTools()).tools.length, 8);
  expect(`${name}: resources/read`, (await client.readResource({ uri: 'test://stone' })).contents[0].text, 'granite');
  expect(`${name}: tools/call`, words(await call('echo', { words: 'as it came “ü”' })), 'as it came “ü”');
  expect(`${name}: a tool's own failure`, (await call('fails')).isError, true);
  const unknown = await refusal(() => call('no such tool'));
  expect(`${name}: a server's error`, unknown.code ?? unknown.result?.isError, -32602);
  if (era === 'legacy') expect(`${name}: ping`, await client.ping(), {});
  expect(`${name}: elicitation, two rounds`, words(await call('book')), 'Ada on Monday');
  expect(`${name}: each round asked once`, heard.asked, ['who?', 'when?']);
  expect(`${name}: sampling`, words(await call('greet')), 'the model says hello');
  expect(`${name}: roots`, words(await call('where')), 'file:///stones');

  const steps = [];
  await call('works', {}, { options: { onprogress: ({ progress }) => steps.push(progress) } });
  expect(`${name}: progress`, steps, [1, 2]);
  heard.logs.length = 0;
  if (era === 'legacy') {
    await client.setLoggingLevel('warning');
    await call('works');
  } else {
    await call('works', {}, { params: { _meta: { 'io.modelcontextprotocol/logLevel': 'warning' } } });
  }
  expect(`${name}: log messages of the level that was asked for`, await until(() => heard.logs.length > 0 && heard.logs), ['large']);

  const subscribed = era === 'legacy'
    ? await client.subscribeResource({ uri: 'test://stone' })
    : await client.listen({ toolsListChanged: true, resourceSubscriptions: ['test://stone'] });
  if (era === 'modern') expect(`${name}: what is honoured`, subscribed.honoredFilter, { toolsListChanged: true, resourceSubscriptions: ['test://stone'] });
  // A legacy client's stream for such messages opens beside its requests, so the first changes may come before it.
  const told = await until(async () => {
    await call('changes');
    return heard.updated.includes('test://stone') && heard.lists > 0;
  });
  expect(`${name}: a change of a resource and of the list of tools is told`, told, true);
  if (era === 'legacy') await client.unsubscribeResource({ uri: 'test://stone' });
  else await subscribed.close();
  if (era === 'modern') expect(`${name}: the server is told of the end`, await until(() => notes(journal).includes('unsubscribe test://stone')), true);

  const stop = new AbortController();
  const before = notes(journal).filter((line) => line === 'cancelled sleeps').length;
  const sleeping = refusal(() => call('sleeps', {}, { options: { signal: stop.signal } }));
  await until(() => readFileSync(journal, 'utf8').includes('"sleeps"'));
  await new Promise((resolve) => setTimeout(resolve, 200));
  stop.abort('enough');
  await sleeping;
  const heardOf = await until(() => notes(journal).filter((line) => line === 'cancelled sleeps').length > before);
  expect(`${name}: a cancellation reaches the server`, heardOf, true);
  expect(`${name}: and calls go on`, words(await call('echo', { words: 'still here' })), 'still here');
  // Without this a legacy session over HTTP, and what it listens to, would last until it is idle for long.
  if (era === 'legacy') await transport.terminateSession?.();
  await client.close();
}

/** A real server that only speaks the legacy era, and a modern client. */
async function reference(name, transport) {
  const { client, heard } = newClient('modern');
  await client.connect(transport);
  expect(`${name}: tools/call`, words(await client.callTool({ name: 'echo', arguments: { message: 'hi' } })), 'Echo: hi');
  const { tools } = await client.listTools();
  expect(`${name}: tools/list`, tools.length > 5, true);
  const { resources } = await client.listResources();
  const read = await client.readResource({ uri: resources[0].uri });
  expect(`${name}: resources/read`, read.contents.length, 1);
  const { prompts } = await client.listPrompts();
  expect(`${name}: prompts/list`, prompts.length > 0, true);
  const asks = tools.find((tool) => /elicitation/i.test(tool.name));
  if (asks) {
    const result = await client.callTool({ name: asks.name, arguments: {} });
    expect(`${name}: ${asks.name}`, [heard.asked.length, result.isError ?? false], [1, false]);
  }
  await client.close();
}

/** What a client of one era hears of the same few calls. */
async function hears(era, transport, books) {
  const { client, heard } = newClient(era);
  await client.connect(transport);
  const call = (tool, given = {}) => client.callTool({ name: tool, arguments: given });
  const said = {
    name: client.getServerVersion()?.name,
    instructions: client.getInstructions(),
    tools: (await client.listTools()).tools.map(({ name }) => name),
    read: (await client.readResource({ uri: 'test://stone' })).contents[0].text,
    echo: [words(await call('echo', { words: 'as it came “ü”' })), words(await call('echo', { words: 'again' }))],
    fails: (await call('fails')).isError,
    book: books ? words(await call('book')) : undefined,
  };
  const unknown = await refusal(() => call('no such tool'));
  said.unknown = unknown.code ?? unknown.result?.isError;
  if (era === 'legacy') await transport.terminateSession?.();
  await client.close();
  return { said, asked: heard.asked };
}

/** Recorded by a client of one era at a server of the other; then played to both, with nothing behind. */
async function played(name, era) {
  const server = era === 'legacy' ? 'modern-http' : 'legacy-http';
  const workflow = `played-to-a-${era}-client`;
  const through = new StreamableHTTPClientTransport(new URL(cairn.url(server)), { requestInit: { headers: { 'cairn-workflow-id': workflow } } });
  // A call that asked a modern client for input cannot be played to a legacy one.
  const { said, asked } = await hears(era, through, true);
  expect(`${name}: it was asked`, asked, ['who?', 'when?']);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const file = join(folder, `${workflow}.json`);
  cairn.record(workflow, file);
  for (const to of ['legacy', 'modern']) {
    const books = era === 'legacy' || to === 'modern';
    const transport = new StdioClientTransport({ command: options.cairn, args: ['play', '--recording', file], stderr: 'ignore' });
    const again = await hears(to, transport, books);
    expect(`${name}: played to a ${to} client`, again.said, books ? said : { ...said, book: undefined });
    expect(`${name}: what a ${to} client is asked`, again.asked, era === 'modern' && books ? ['who?', 'when?'] : []);
  }
}

const journals = Object.fromEntries(['modern-http', 'legacy-http', 'modern-stdio', 'legacy-stdio', 'modern-wrap', 'legacy-wrap'].map((name) => {
  const file = join(folder, `${name}.journal`);
  writeFileSync(file, '');
  return [name, file];
}));
const stdio = (era, journal) => [join(here, 'server.mjs'), '--era', era, '--journal', journal];
const servers = {
  'modern-http': { type: 'http', url: await serve('modern', journals['modern-http']) },
  'legacy-http': { type: 'http', url: await serve('legacy', journals['legacy-http']) },
  'modern-stdio': { command: process.execPath, args: stdio('modern', journals['modern-stdio']) },
  'legacy-stdio': { command: process.execPath, args: stdio('legacy', journals['legacy-stdio']) },
  everything: { command: process.execPath, args: [everything(), 'stdio'] },
};
const cairn = await start(options.cairn, servers);
const http = (server) => new StreamableHTTPClientTransport(new URL(cairn.url(server)));
const wrap = (era, name) => new StdioClientTransport({
  command: options.cairn, args: ['wrap', '--data', cairn.data, '--name', name, '--', process.execPath, ...stdio(era, journals[name])], stderr: 'ignore',
});
const runs = [
  ['legacy client over HTTP, modern server over HTTP', (name) => drive(name, 'legacy', http('modern-http'), journals['modern-http'])],
  ['legacy client over HTTP, modern server over stdio', (name) => drive(name, 'legacy', http('modern-stdio'), journals['modern-stdio'])],
  ['legacy client through wrap, modern server', (name) => drive(name, 'legacy', wrap('modern', 'modern-wrap'), journals['modern-wrap'])],
  ['modern client over HTTP, legacy server over HTTP', (name) => drive(name, 'modern', http('legacy-http'), journals['legacy-http'])],
  ['modern client over HTTP, legacy server over stdio', (name) => drive(name, 'modern', http('legacy-stdio'), journals['legacy-stdio'])],
  ['modern client through wrap, legacy server', (name) => drive(name, 'modern', wrap('legacy', 'legacy-wrap'), journals['legacy-wrap'])],
  ['recorded by a legacy client at a modern server', (name) => played(name, 'legacy')],
  ['recorded by a modern client at a legacy server', (name) => played(name, 'modern')],
  ['modern client over HTTP, server-everything', (name) => reference(name, http('everything'))],
];
try {
  for (const [name, run] of runs) {
    if (options.only && !name.includes(options.only)) continue;
    try {
      await run(name);
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack.replace(/\n/g, ' | ')}`);
      failed += 1;
    }
  }
  for (const [server, journal] of options.python ? Object.entries(journals) : []) {
    const trail = join(here, '../trail.py');
    const said = execFileSync(join(options.python, 'python'), ['-B', trail, '--bootstrap', cairn.kafka, '--server', server, '--journal', journal], { encoding: 'utf8' });
    console.log(`ok the trail of ${server}: ${said.trim()}`);
  }
} catch (error) {
  console.log(`FAILED the trail: ${String(error.stdout ?? error).replace(/\n/g, ' | ')}`);
  failed += 1;
} finally {
  await cairn.stop();
  for (const server of listening) server.kill();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed === 0 ? 0 : 1;
