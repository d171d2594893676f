// Reference servers, directly and through Cairn: what both say must be equal.
//
// `node compare.mjs --cairn PROGRAM --python FOLDER` starts each server twice, once for itself by stdio and once
// behind Cairn, asks both the same, and compares the answers. Each comparison is a line `ok …` or `FAILED …`.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { start } from './cairn.mjs';

const { values: options } = parseArgs({ options: { cairn: { type: 'string' }, python: { type: 'string' } } });
const require = createRequire(import.meta.url);
const folder = mkdtempSync(join(tmpdir(), 'cairn-compare-'));

/** The program of an npm package. */
function npm(name) {
  const manifest = require.resolve(`${name}/package.json`);
  const { bin } = require(manifest);
  return join(dirname(manifest), typeof bin === 'string' ? bin : Object.values(bin)[0]);
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

let failed = 0;
const configured = Object.fromEntries(Object.entries(servers).map(([name, { calls, ...server }]) => [name, server]));
const cairn = await start(options.cairn, configured);
try {
  for (const [name, { calls, ...server }] of Object.entries(servers)) {
    try {
      const direct = await askAll(new StdioClientTransport({ ...server, env: { ...process.env, ...server.env }, stderr: 'ignore' }), calls);
      const through = await askAll(new StreamableHTTPClientTransport(new URL(cairn.url(name))), calls);
      for (const [ask, expected] of direct) {
        const got = through.get(ask);
        const equal = isDeepStrictEqual(got, expected);
        console.log(equal ? `ok ${name}: ${ask}` : `FAILED ${name}: ${ask}: direct ${JSON.stringify(expected).slice(0, 800)} through ${JSON.stringify(got).slice(0, 800)}`);
        failed += equal ? 0 : 1;
      }
    } catch (error) {
      console.log(`FAILED ${name}: ${error.stack.replace(/\n/g, ' | ')}`);
      failed += 1;
    }
  }
} finally {
  await cairn.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed === 0 ? 0 : 1;
