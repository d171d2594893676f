// A `cairn up` in front of given servers, for the scripts here.
//
// `start(program, servers)` takes the path of the binary and an `mcpServers` object, or the text of a cairn.toml; it gives the gateway's URL, the
// address of its Kafka port, the data folder (which `cairn wrap --data` joins), and `stop`, which ends the process that
// it started and removes its folder. `login` runs `cairn login` there and plays the person's browser, `record` writes a
// workflow into a file that `cairn play` plays.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Whatever port is free: one that was free a moment ago may be somebody's by now. */
const ANY = '127.0.0.1:0';
const READY_MS_MAX = 60_000;
const TOKEN = 'cairn-op-for-the-clients-0123456789';
/** More stops than this no browser makes on its way through a login. */
const STOPS_MAX = 5;

/** What a `cairn up` says, and when it serves; an end before that is an error with its last words. */
export function heard(cairn, withinMs) {
  let said = '';
  const ready = new Promise((resolve, reject) => {
    const hear = (chunk) => {
      said = (said + chunk).slice(-20000);
      if (/^ready/m.test(said)) resolve();
    };
    cairn.stdout.on('data', hear);
    cairn.stderr.on('data', hear);
    cairn.on('exit', (code) => reject(new Error(`cairn up ended with ${code}; it said:\n${said}`)));
    setTimeout(() => reject(new Error(`cairn up is not ready; it said:\n${said}`)), withinMs).unref();
  });
  return { said: () => said, ready };
}

export async function start(program, servers) {
  const folder = mkdtempSync(join(tmpdir(), 'cairn-clients-'));
  const isToml = typeof servers === 'string';
  const configuration = join(folder, isToml ? 'cairn.toml' : 'mcp.json');
  writeFileSync(configuration, isToml ? servers : JSON.stringify({ mcpServers: servers }));
  const data = join(folder, 'data');
  const cairn = spawn(program, ['up', '--data', data, '--config', configuration,
    '--kafka', ANY, '--gateway', ANY, '--admin', ANY],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CAIRN_OPERATOR_TOKEN: TOKEN } });
  const { said, ready } = heard(cairn, READY_MS_MAX);
  const stop = async () => {
    if (cairn.exitCode === null && cairn.signalCode === null) {
      cairn.kill('SIGTERM');
      const late = setTimeout(() => cairn.kill('SIGKILL'), 15_000);
      await once(cairn, 'exit');
      clearTimeout(late);
    }
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await ready;
  } catch (error) {
    await stop();
    throw error;
  }
  const { kafka, gateway, admin } = JSON.parse(readFileSync(join(data, 'endpoints.json'), 'utf8'));
  /** Logs in to a server, as a person who says yes to everything. Fails where `cairn login` does. */
  const login = async (server) => {
    const asking = spawn(program, ['login', server, '--json', '--admin', admin],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CAIRN_OPERATOR_TOKEN: TOKEN } });
    const ended = once(asking, 'exit');
    let [out, errors] = ['', ''];
    asking.stderr.on('data', (chunk) => { errors += chunk; });
    const begun = new Promise((resolve) => asking.stdout.on('data', (chunk) => {
      out += chunk;
      if (out.includes('\n')) resolve(JSON.parse(out.slice(0, out.indexOf('\n'))));
    }));
    const first = await Promise.race([begun, ended.then(() => undefined)]);
    let url = first?.url;
    for (let stops = 0; url && stops < STOPS_MAX; stops += 1) {
      const answer = await fetch(url, { redirect: 'manual' });
      await answer.text();
      const next = answer.headers.get('location');
      url = next ? new URL(next, url).href : undefined;
    }
    const [code] = await ended;
    if (code !== 0) throw new Error(`cairn login ended with ${code}: ${errors}`);
  };
  const record = (workflow, file) => execFileSync(program, ['play', '--workflow', workflow, '--export', file, '--data', data],
    { encoding: 'utf8', env: { ...process.env, CAIRN_OPERATOR_TOKEN: TOKEN } });
  return { login, record, folder, url: (server) => `http://${gateway}/mcp/${server}`, kafka, data: join(folder, 'data'), said, stop };
}
