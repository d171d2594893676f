// Who may come in: a real OpenID provider, the SDK's client, a server that writes down what reaches it, and attempts.
//
// `node attack.mjs --cairn PROGRAM` starts a provider (issuer.mjs), a server, and two gateways in front of it: one over
// HTTP, one over TLS that asks for client certificates. It comes in as one should, rotates the provider's keys under load,
// and then tries each way to cheat. Each expectation is a line `ok …` or `FAILED …`; each refusal must have left an event.

import { execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as plain } from 'node:http';
import { request as secure } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { calculateJwkThumbprint, exportJWK, exportSPKI, generateKeyPair, importJWK, SignJWT } from 'jose';
import { heard } from '../conformance-ts/cairn.mjs';
import { SECRET, startIssuer } from './issuer.mjs';

const PATIENCE_MS = 60_000;
const { values: options } = parseArgs({ options: { cairn: { type: 'string' } } });
const folder = mkdtempSync(join(tmpdir(), 'cairn-identity-'));
const running = [];
let failed = 0;

function expect(what, got, wanted) {
  const equal = isDeepStrictEqual(got, wanted);
  console.log(equal ? `ok ${what}` : `FAILED ${what}: got ${JSON.stringify(got)?.slice(0, 600)} wanted ${JSON.stringify(wanted)}`);
  failed += equal ? 0 : 1;
}

/** A server of 2025-11-25 over HTTP that keeps sessions and writes down every header that reaches it. */
async function startServer() {
  const reached = [];
  let sessions = 0;
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => {
      reached.push({ headers: request.headers, body });
      if (request.method !== 'POST') return response.writeHead(405).end();
      const message = JSON.parse(body);
      if (message.id === undefined) return response.writeHead(202).end();
      const results = {
        initialize: { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'orders', version: '1' } },
        'tools/list': { tools: [{ name: 'look', inputSchema: { type: 'object' } }, { name: 'act', inputSchema: { type: 'object' } }] },
        'tools/call': { content: [{ type: 'text', text: 'done' }] },
      };
      const result = results[message.method];
      const headers = { 'content-type': 'application/json' };
      if (message.method === 'initialize') headers['mcp-session-id'] = `session-${sessions += 1}-${crypto.randomUUID()}`;
      const answer = result ? { result } : { error: { code: -32601, message: 'no such method' } };
      response.writeHead(200, headers).end(JSON.stringify({ jsonrpc: '2.0', id: message.id, ...answer }));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}/`, reached, stop: () => server.close() };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

async function startCairn(name, configuration, port) {
  const path = join(folder, `${name}.toml`);
  writeFileSync(path, configuration);
  const data = join(folder, name);
  const cairn = spawn(options.cairn, ['up', '--data', data, '--config', path, '--kafka', '127.0.0.1:0', '--gateway', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'pipe'] });
  running.push(cairn);
  const { said, ready } = heard(cairn, PATIENCE_MS);
  await ready;
  return {
    data,
    said,
    cli: (...words) => execFileSync(options.cairn, [...words, '--data', data], { encoding: 'utf8', timeout: PATIENCE_MS, maxBuffer: 256 << 20 }),
  };
}

/** One request; what it was answered, with the words of a refusal. */
function send(url, { method = 'POST', headers = {}, message, agent = {} } = {}) {
  const ask = url.startsWith('https:') ? secure : plain;
  return new Promise((resolve, reject) => {
    const request = ask(url, { method, agent: false, ...agent, headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...headers } }, (response) => {
      let text = '';
      response.on('data', (chunk) => { text += chunk; });
      response.on('end', () => {
        let body;
        try { body = JSON.parse(text); } catch { body = text; }
        resolve({ status: response.statusCode, headers: response.headers, body, reason: body?.reason });
      });
    });
    request.on('error', reject);
    request.end(message ? JSON.stringify(message) : undefined);
  });
}

const call = (name = 'look') => ({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: {} } });
const handshake = { jsonrpc: '2.0', id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'attacker', version: '1' } } };

/** Opens a session; gives the headers of the requests in it. */
async function open(url, headers, more = {}) {
  const answer = await send(url, { headers, message: handshake, ...more });
  if (answer.status !== 200) throw new Error(`no session: ${answer.status} ${JSON.stringify(answer.body)}`);
  return { ...headers, 'mcp-session-id': answer.headers['mcp-session-id'], 'mcp-protocol-version': '2025-11-25' };
}

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const bearer = (token) => ({ authorization: `Bearer ${token}` });
const refused = (answer) => [answer.status, answer.reason];

/** A key that a client proves to have. */
async function newHolder() {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const jwk = await exportJWK(publicKey);
  const proof = (htm, htu, token, more = {}) => new SignJWT({ htm, htu, jti: crypto.randomUUID(), ...(token ? { ath: createHash('sha256').update(token).digest('base64url') } : {}), ...more })
    .setIssuedAt(more.iat).setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk }).sign(privateKey);
  return { proof, thumbprint: await calculateJwkThumbprint(jwk) };
}

async function comesIn(issuer, url, server) {
  const nobody = await send(url, { message: handshake });
  const challenge = nobody.headers['www-authenticate'];
  const where = /resource_metadata="([^"]+)"/.exec(challenge)?.[1];
  expect('nobody is told where to go and what is needed', [nobody.status, nobody.reason, /scope="orders:read"/.test(challenge)], [401, 'no_credentials', true]);
  const metadata = await send(where, { method: 'GET' });
  expect('the metadata names resource, issuer and scopes', [metadata.body.resource, metadata.body.authorization_servers, metadata.body.scopes_supported], [url, [issuer.issuer], ['orders:read', 'orders:write']]);
  const root = await send(new URL('/.well-known/oauth-protected-resource', url).href, { method: 'GET' });
  expect('the metadata of the root', root.body.resource, new URL(url).origin);
  const none = await send(`${where}-that-is-not-there`, { method: 'GET' });
  expect('no metadata of a server that is not there', none.status, 404);

  // The SDK finds all of it by itself.
  const authProvider = new ClientCredentialsProvider({ clientId: 'app', clientSecret: SECRET, scope: 'orders:read orders:write' });
  const client = new Client({ name: 'sdk', version: '1' });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
  expect("the SDK's client finds the issuer, gets a token and comes in", (await client.listTools()).tools.length, 2);
  await client.close();

  const token = await issuer.token(url);
  const inside = await open(url, { ...bearer(token), cookie: 'a=cookie-of-the-client', 'proxy-authorization': 'Basic cHJveHk6cHJveHk=', dpop: 'a-proof-of-the-client' });
  expect('a call with a token', (await send(url, { headers: inside, message: call() })).status, 200);
  const leaked = server.reached.filter(({ headers, body }) => {
    const text = JSON.stringify(headers) + body;
    return ['cookie', 'dpop', 'proxy-authorization'].some((name) => headers[name]) || headers.authorization !== 'Bearer of-cairn' || text.includes(token) || text.includes('cookie-of-the-client');
  });
  expect(`nothing of a client's credentials in ${server.reached.length} requests that reached the server`, leaked, []);
  return token;
}

async function rotatesUnderLoad(issuer, url) {
  const asked = issuer.asked.keys;
  let calls = 0;
  const lost = [];
  let going = true;
  const load = Array.from({ length: 8 }, async () => {
    let inside;
    for (let number = 0; going; number += 1) {
      // A new token now and then, so that old and new keys are used side by side.
      if (number % 5 === 0) {
        const token = await issuer.token(url);
        inside = inside ? { ...inside, ...bearer(token) } : await open(url, bearer(token));
      }
      const answer = await send(url, { headers: inside, message: call() });
      calls += 1;
      if (answer.status !== 200 || !answer.body.result) lost.push([answer.status, answer.body]);
    }
  });
  const rotations = 5;
  for (let round = 0; round < rotations; round += 1) {
    const before = calls;
    while (calls < before + 60) await new Promise((resolve) => { setTimeout(resolve, 10); });
    await issuer.rotate();
  }
  const before = calls;
  while (calls < before + 60) await new Promise((resolve) => { setTimeout(resolve, 10); });
  going = false;
  await Promise.all(load);
  expect(`no call of ${calls} lost while keys rotated ${rotations} times`, lost, []);
  expect('the issuer was asked no more than twice for each rotation', issuer.asked.keys - asked <= rotations * 2, true);
}

async function cheats(issuer, url, cairn) {
  const now = Math.floor(Date.now() / 1000);
  const aud = url;
  const { privateKey: strange } = await generateKeyPair(issuer.newest().alg, { extractable: true });
  const spki = await exportSPKI(await importJWK(publicOf(issuer.publicKey()), issuer.newest().alg));
  const payload = { iss: issuer.issuer, sub: 'ada', aud, iat: now, exp: now + 300 };
  const hs = `${b64({ alg: 'HS256', kid: issuer.newest().kid, typ: 'at+jwt' })}.${b64(payload)}`;
  const swapped = `${hs}.${createHmac('sha256', spki).update(hs).digest('base64url')}`;
  const good = await issuer.forge({ aud });
  const [head, , signature] = good.split('.');
  const attempts = [
    ['expired', await issuer.forge({ aud, exp: now - 60 }), 'token_expired'],
    ['not valid yet', await issuer.forge({ aud, nbf: now + 120 }), 'token_not_yet_valid'],
    ['for another server of this gateway', await issuer.token(url.replace('/orders', '/payroll')), 'audience_wrong'],
    ['for nobody', await issuer.forge({}), 'audience_wrong'],
    ['of another issuer', await issuer.forge({ aud, iss: 'http://127.0.0.1:1' }), 'issuer_unknown'],
    ['unsigned', `${b64({ alg: 'none', typ: 'at+jwt' })}.${b64(payload)}.`, 'algorithm_refused'],
    ['symmetric, with the public key as the secret', swapped, 'algorithm_refused'],
    ['with claims that its signature is not over', `${head}.${b64({ ...payload, sub: 'root' })}.${signature}`, 'signature_invalid'],
    ['of a stranger under a known key', await issuer.forge({ aud }, {}, strange), 'signature_invalid'],
    ['of a key that nobody knows', await issuer.forge({ aud }, { kid: 'made-up' }, strange), 'key_unknown'],
    ['of another type', await issuer.forge({ aud }, { typ: 'logout+jwt' }), 'type_refused'],
    ['critical', await issuer.forge({ aud }, { b64: true, crit: ['b64'] }), 'critical_header'],
    ['without a subject', await issuer.forge({ aud, iss: issuer.issuer, sub: undefined }), 'claim_unusable'],
    ['no token at all', 'x', 'token_malformed'],
  ];
  const expected = new Set(attempts.map(([, , reason]) => reason));
  for (const [what, token, reason] of attempts) {
    expect(`a token ${what}`, refused(await send(url, { headers: bearer(token), message: handshake })), [401, reason]);
  }
  const inQuery = await send(`${url}?access_token=${good}`, { message: handshake });
  expect('a token in the address', refused(inQuery), [401, 'no_credentials']);

  // Scopes: the call needs one more than the handshake.
  const little = bearer(await issuer.token(url, { scope: 'orders:read' }));
  const reads = await open(url, little);
  const lacking = await send(url, { headers: reads, message: call('act') });
  expect('a scope that is missing', refused(lacking), [403, 'insufficient_scope']);
  expect('the challenge names all that is needed', /scope="orders:read orders:write"/.test(lacking.headers['www-authenticate']) && /error="insufficient_scope"/.test(lacking.headers['www-authenticate']), true);
  expected.add('insufficient_scope');

  // Somebody else's session.
  const mine = await open(url, bearer(good));
  for (const [who, theirs] of [['another principal', await issuer.forge({ aud, sub: 'eve' })], ['another client of the same principal', await issuer.forge({ aud, client_id: 'other' })]]) {
    const stolen = { ...mine, ...bearer(theirs) };
    expect(`${who} in a session that is not theirs`, (await send(url, { headers: stolen, message: call() })).status, 404);
    expect(`${who} deletes a session that is not theirs`, (await send(url, { method: 'DELETE', headers: stolen })).status, 404);
  }
  expect('whose session it is goes on', (await send(url, { headers: mine, message: call() })).status, 200);
  expected.add('session_other');

  // A token that is bound to a key.
  const holder = await newHolder();
  const token = await issuer.token(url, { dpop: (htm, htu) => holder.proof(htm, htu) });
  const proof = await holder.proof('POST', url, token);
  const once_ = { authorization: `DPoP ${token}`, dpop: proof };
  expect('a bound token with its proof', (await send(url, { headers: once_, message: handshake })).status, 200);
  expect('the same request once more', refused(await send(url, { headers: once_, message: handshake })), [401, 'proof_replayed']);
  expect('a bound token that was stolen', refused(await send(url, { headers: bearer(token), message: handshake })), [401, 'proof_missing']);
  const thief = await newHolder();
  const other = { ...once_, dpop: await thief.proof('POST', url, token) };
  expect("a bound token with a thief's proof", refused(await send(url, { headers: other, message: handshake })), [401, 'proof_invalid']);
  const elsewhere = { ...once_, dpop: await holder.proof('GET', url, token) };
  expect('a proof for another method', refused(await send(url, { headers: elsewhere, message: handshake })), [401, 'proof_invalid']);
  for (const reason of ['proof_replayed', 'proof_missing', 'proof_invalid', 'no_credentials']) expected.add(reason);

  // API keys.
  const { id, key } = JSON.parse(cairn.cli('key', 'new', '--principal', 'nightly', '--tenant', 'acme', '--scopes', 'orders:read,orders:write', '--json'));
  const machine = await open(url, bearer(key));
  expect('an API key', (await send(url, { headers: machine, message: call() })).status, 200);
  cairn.cli('key', 'revoke', id);
  expect('a revoked API key counts no longer, at once', refused(await send(url, { headers: machine, message: call() })), [401, 'api_key_revoked']);
  expect('an API key that was made up', refused(await send(url, { headers: bearer(`${key.slice(0, -4)}0000`), message: call() })), [401, 'api_key_unknown']);
  expected.add('api_key_revoked').add('api_key_unknown');
  return { expected, secrets: [good, token, key, proof, mine['mcp-session-id']] };
}

const publicOf = ({ d, p, q, dp, dq, qi, ...rest }) => rest;

/** Every refusal has left an event, and no event holds anything of a credential. */
async function recorded(cairn, expected, secrets) {
  const read = () => cairn.cli('tail', '--from-start', '--no-follow', '--json').split('\n').filter(Boolean);
  const end = Date.now() + PATIENCE_MS;
  let lines;
  let missing;
  do {
    lines = read();
    const reasons = new Set(lines.map((line) => /"reason":"([a-z_]+)"/.exec(line)?.[1]));
    missing = [...expected].filter((reason) => !reasons.has(reason));
  } while (missing.length && Date.now() < end);
  expect(`${expected.size} kinds of refusals, each with its event`, missing, []);
  const leaks = secrets.map((secret, at) => [at, lines.filter((line) => line.includes(secret)).length]).filter(([, times]) => times);
  expect('no event holds a token, key, proof or session id', leaks, []);
  return lines;
}

function makeCertificates() {
  const run = (...words) => execFileSync('openssl', words, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  const authority = (name) => run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`);
  const leaf = (name, by, names) => {
    writeFileSync(join(folder, `${name}.ext`), `subjectAltName=${names}\n`);
    run('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    run('x509', '-req', '-in', `${name}.csr`, '-CA', `${by}.pem`, '-CAkey', `${by}.key`, '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`, '-out', `${name}.pem`);
  };
  authority('authority');
  authority('strangers');
  leaf('server', 'authority', 'IP:127.0.0.1');
  leaf('ada', 'authority', 'URI:spiffe://prod/ada');
  leaf('eve', 'authority', 'URI:spiffe://prod/eve');
  leaf('two', 'authority', 'URI:spiffe://prod/ada,URI:spiffe://prod/root');
  leaf('stranger', 'strangers', 'URI:spiffe://prod/ada');
}

async function overTls(issuer, server) {
  makeCertificates();
  const pem = (name) => readFileSync(join(folder, name));
  const port = await freePort();
  const url = `https://127.0.0.1:${port}/mcp/orders`;
  const cairn = await startCairn('tls', `
[gateway.tls]
certificate = "server.pem"
key = "server.key"
client_authorities = "authority.pem"
[identity.issuers.corp]
issuer = "${issuer.issuer}"
[identity.certificates]
principal = "uri"
tenant = "machines"
[servers.orders]
type = "http"
url = "${server.url}"
`, port);
  const as = (name) => ({ agent: { ca: pem('authority.pem'), ...(name ? { cert: pem(`${name}.pem`), key: pem(`${name}.key`) } : {}) } });
  const ada = await open(url, {}, as('ada'));
  expect('a client certificate', (await send(url, { headers: ada, message: call(), ...as('ada') })).status, 200);
  expect('a session of another certificate', (await send(url, { headers: ada, message: call(), ...as('eve') })).status, 404);
  expect('no certificate', refused(await send(url, { message: handshake, ...as() })), [401, 'no_credentials']);
  expect('a certificate with two names', refused(await send(url, { message: handshake, ...as('two') })), [403, 'certificate_unusable']);
  const strange = await send(url, { message: handshake, ...as('stranger') }).then(() => 'let in', () => 'refused');
  expect("a stranger's certificate", strange, 'refused');
  const inClear = await send(url.replace('https', 'http'), { message: handshake }).then(({ status }) => status, () => 'refused');
  expect('HTTP in the clear', inClear, 400);

  const der = Buffer.from(pem('ada.pem').toString().replace(/-----[^-]+-----/g, ''), 'base64');
  const bound = await issuer.forge({ aud: url, cnf: { 'x5t#S256': createHash('sha256').update(der).digest('base64url') } });
  expect('a token over the connection that it is bound to', (await send(url, { headers: bearer(bound), message: handshake, ...as('ada') })).status, 200);
  for (const name of ['eve', undefined]) {
    expect(`the same token over a connection of ${name ?? 'nobody'}`, refused(await send(url, { headers: bearer(bound), message: handshake, ...as(name) })), [401, 'certificate_other']);
  }

  // New certificates, while a connection with the old one lives on.
  const { Agent } = await import('node:https');
  const kept = new Agent({ keepAlive: true, maxSockets: 1, ca: pem('authority.pem'), cert: pem('ada.pem'), key: pem('ada.key') });
  const old = () => send(url, { headers: ada, message: call(), agent: { agent: kept } });
  expect('over a connection that is kept', (await old()).status, 200);
  const before = readFileSync(join(folder, 'server.pem'), 'utf8');
  makeServerAgain();
  const end = Date.now() + PATIENCE_MS;
  while (!cairn.said().includes('the certificates of gateway.tls changed') && Date.now() < end) await new Promise((resolve) => { setTimeout(resolve, 50); });
  expect('the certificate is another one', before !== readFileSync(join(folder, 'server.pem'), 'utf8') && cairn.said().includes('the certificates of gateway.tls changed'), true);
  expect('the kept connection lives on', (await old()).status, 200);
  expect('a new one is served with the new certificate', (await send(url, { headers: ada, message: call(), ...as('ada') })).status, 200);
  kept.destroy();
  const lines = await recorded(cairn, new Set(['session_other', 'certificate_unusable', 'certificate_other', 'no_credentials']), [bound]);
  const intent = lines.find((line) => line.includes('"principal":"cert/spiffe://prod/ada"') && line.includes('"tenant":"machines"'));
  expect('events name the certificate and its tenant', Boolean(intent), true);
}

function makeServerAgain() {
  const run = (...words) => execFileSync('openssl', words, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  run('x509', '-req', '-in', 'server.csr', '-CA', 'authority.pem', '-CAkey', 'authority.key', '-CAcreateserial', '-days', '3', '-extfile', 'server.ext', '-out', 'server.new');
  writeFileSync(join(folder, 'server.pem'), readFileSync(join(folder, 'server.new')));
}

async function main() {
  const [issuer, server] = [await startIssuer(), await startServer()];
  running.push({ kill: () => issuer.stop() }, { kill: () => server.stop() });
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/mcp/orders`;
  const cairn = await startCairn('plain', `
[identity]
api_keys = true
[identity.issuers.corp]
issuer = "${issuer.issuer}"
tenant = "acme"
refreshes_per_minute_max = 30
[servers.orders]
type = "http"
url = "${server.url}"
headers = { authorization = "Bearer of-cairn" }
scopes = ["orders:read"]
method_scopes = { "tools/call" = ["orders:write"] }
[servers.payroll]
type = "http"
url = "${server.url}"
headers = { authorization = "Bearer of-cairn" }
`, port);
  const token = await comesIn(issuer, url, server);
  await rotatesUnderLoad(issuer, url);
  const { expected, secrets } = await cheats(issuer, url, cairn);
  const lines = await recorded(cairn, expected, [token, ...secrets]);
  const own = lines.filter((line) => line.includes('"principal":"corp/app"') && line.includes('"agent":"corp/app"') && line.includes('"tenant":"acme"'));
  expect('events name tenant, principal and agent', own.length > 0, true);
  const flood = 300;
  for (let sent = 0; sent < flood; sent += 1) await send(url, { headers: bearer('x.y.z'), message: handshake });
  const counts = () => cairn.cli('tail', '--from-start', '--no-follow', '--json').split('\n').filter((line) => line.includes('"reason":"token_malformed"')).map((line) => Number(/"count":(\d+)/.exec(line)[1]));
  const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);
  const end = Date.now() + PATIENCE_MS;
  while (sum(counts()) < flood + 1 && Date.now() < end) await new Promise((resolve) => { setTimeout(resolve, 500); });
  expect('a flood is counted whole', sum(counts()), flood + 1);
  expect('and is few events', counts().length < 20, true);
  await overTls(issuer, server);
}

try {
  await main();
} catch (error) {
  console.log(`FAILED it broke off: ${error.stack}`);
  failed += 1;
}
for (const process_ of running) process_.kill('SIGTERM');
await Promise.all(running.filter((child) => child.once && child.exitCode === null).map((child) => once(child, 'exit')));
rmSync(folder, { recursive: true, force: true });
process.exit(failed ? 1 : 0);
