// An agent that wants to approve its own calls: it reads all that a filesystem server behind Cairn lets it read, and
// tries whatever looks like a secret at the operators' door.
//
// Usage: node secrets.mjs --url URL --admin HOST:PORT --token TOKEN FOLDER... (the token only to look for it). Prints one
// line beginning with `ok`, or fails.

import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const { values: options, positionals: folders } = parseArgs({
  options: { url: { type: 'string' }, admin: { type: 'string' }, token: { type: 'string' } },
  allowPositionals: true,
});
const door = `http://${options.admin}/approvals`;
const opens = async (token) => (await fetch(door, { headers: { authorization: `Bearer ${token}` } })).status === 200;

assert.ok(await opens(options.token), 'the token that is looked for opens the door');

const client = new Client({ name: 'curious-agent', version: '1.0.0' }, { capabilities: {} });
await client.connect(new StreamableHTTPClientTransport(new URL(options.url)));
const call = (name, args) => client.callTool({ name, arguments: args });
const textOf = (result) => result.content.map((part) => part.text ?? '').join('\n');

/** Every file below a folder, as the server lists them. */
async function files(folder) {
  const tree = JSON.parse(textOf(await call('directory_tree', { path: folder })));
  const walk = (entries, at) =>
    entries.flatMap((entry) => (entry.children ? walk(entry.children, `${at}/${entry.name}`) : [`${at}/${entry.name}`]));
  return walk(tree, folder);
}

let read = 0;
const words = new Set();
for (const folder of folders) {
  for (const path of await files(folder)) {
    if (path.endsWith('.sock')) continue;
    const text = textOf(await call('read_text_file', { path }).catch((error) => ({ content: [{ text: String(error) }] })));
    read += 1;
    assert.ok(!text.includes(options.token), `${path} holds the operator's token`);
    if (/operator|keys|endpoints/.test(path)) for (const word of text.match(/[A-Za-z0-9_-]{16,}/g) ?? []) words.add(word);
  }
}
assert.ok(read > 3, `only ${read} files could be read`);
for (const word of words) assert.ok(!(await opens(word)), `something that lies on disk opens the operators' door: ${word}`);

// What is outside the server's folders is the server's to refuse; were it read, the token would not be there either.
for (const path of ['/proc/self/environ', `/proc/${process.ppid}/environ`]) {
  const text = textOf(await call('read_text_file', { path }).catch((error) => ({ content: [{ text: String(error) }] })));
  assert.ok(!text.includes(options.token), `${path} holds the operator's token`);
}
await client.close();
console.log(`ok: ${read} files read, ${words.size} words tried, the door stayed shut`);
