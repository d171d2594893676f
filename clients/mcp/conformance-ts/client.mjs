// An MCP client for the conformance suite's client scenarios, on the official TypeScript SDK.
//
// The suite starts it as `node client.mjs [--cairn PROGRAM [--wrap]] URL` with the scenario's name in the environment.
// With --cairn it starts a Cairn in front of URL and talks to that instead, by HTTP or, with --wrap, by the standard
// streams of `cairn wrap --url URL`, so that the suite's server sees what Cairn forwards. It does what every scenario
// wants of a client: connect, list, call each tool, read and get what is there.
//
// In the scenarios about authorization Cairn is the OAuth client: it is configured with `[servers.suite.auth]`, and where
// it says that a person must log in, `cairn login` is run and its URL followed as a browser would. They want --cairn.

import { parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { start } from './cairn.mjs';

const { values: options, positionals } = parseArgs({ options: { cairn: { type: 'string' }, wrap: { type: 'boolean' } }, allowPositionals: true });
const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? '';
const isModern = (process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? '') >= '2026';
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const { toolCalls = [] } = context;
const clientInfo = { name: 'cairn-conformance-client', version: '1.0.0' };

const capabilities = {
  'elicitation-sep1034-client-defaults': { elicitation: { form: { applyDefaults: true } } },
  'sep-2322-client-request-state': { elicitation: {} },
  'request-metadata': { roots: { listChanged: true }, sampling: {}, elicitation: {} },
}[scenario] ?? {};
/** Scenarios that judge the handshake alone, or whose tools are there to be looked at. */
const onlyLists = ['initialize', 'request-metadata', 'json-schema-ref-no-deref'].includes(scenario);
/** Scenarios whose server speaks the modern revision without answering `server/discover`. */
const withoutDiscover = ['http-standard-headers', 'http-custom-headers', 'http-invalid-tool-headers', 'sep-2322-client-request-state'];

/** What `server/discover` would have said where the suite's server has none. */
const discovered = (message) => message.method !== 'server/discover' ? undefined : { jsonrpc: '2.0', id: message.id, result: {
  resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities: { tools: {}, resources: {}, prompts: {} },
  ttlMs: 0, cacheScope: 'private', _meta: { 'io.modelcontextprotocol/serverInfo': clientInfo },
} };

async function fetchWithDiscover(input, init) {
  const answer = discovered(typeof init?.body === 'string' ? JSON.parse(init.body) : {});
  return answer ? Response.json(answer) : fetch(input, init);
}

/** A transport around another that answers `server/discover` by itself. */
function withDiscover(inner) {
  const outer = {
    start: () => {
      inner.onmessage = (...said) => outer.onmessage?.(...said);
      inner.onclose = () => outer.onclose?.();
      inner.onerror = (error) => outer.onerror?.(error);
      return inner.start();
    },
    send: async (message, ...rest) => {
      const answer = discovered(message);
      return answer ? outer.onmessage?.(answer) : inner.send(message, ...rest);
    },
    close: () => inner.close(),
  };
  return outer;
}

function transport() {
  const url = new URL(cairn && !options.wrap ? cairn.url('suite') : upstream);
  if (!options.wrap) return new StreamableHTTPClientTransport(url, withoutDiscover.includes(scenario) ? { fetch: fetchWithDiscover } : {});
  const args = ['wrap', '--data', cairn.data, '--name', 'suite', '--url', url.href];
  const pipe = new StdioClientTransport({ command: options.cairn, args, stderr: 'inherit' });
  return withoutDiscover.includes(scenario) ? withDiscover(pipe) : pipe;
}

/** Values for what a tool of the suite asks for. */
function argumentsFor(tool) {
  const known = { a: 5, b: 3, region: 'us-west1' };
  const wanted = Object.keys(tool.inputSchema?.properties ?? {});
  return Object.fromEntries(wanted.filter((name) => name in known).map((name) => [name, known[name]]));
}

async function exercise(client) {
  const { tools } = await client.listTools();
  if (onlyLists) return;
  if (scenario === 'json-schema-2020-12-preservation') {
    const schema = tools.find(({ name }) => name === 'json_schema_2020_12_tool').inputSchema;
    return client.callTool({ name: 'json_schema_echo', arguments: { schema } });
  }
  const calls = toolCalls.length > 0 ? toolCalls : tools.map((tool) => ({ name: tool.name, arguments: argumentsFor(tool) }));
  for (const call of calls) {
    // A refusal is an answer too: the suite's server judges what it saw.
    await client.callTool({ name: call.name, arguments: call.arguments }).catch((error) => console.error(String(error)));
  }
  if (scenario !== 'http-standard-headers') return;
  for (const { uri } of (await client.listResources()).resources) await client.readResource({ uri });
  for (const { name } of (await client.listPrompts()).prompts) await client.getPrompt({ name, arguments: {} });
}

/** Cairn's own error for "a person must log in". */
const LOGIN_REQUIRED = -31040;
/** A person who is asked again and again stops saying yes. */
const LOGINS_MAX = 3;
const isAuth = scenario.startsWith('auth/');

/** How Cairn proves itself, for each scenario about that. */
function authorization() {
  const text = (value) => JSON.stringify(value);
  const secret = (name) => [`client_id = ${text(context.client_id)}`, `client_secret = ${text(context[name])}`];
  switch (scenario) {
    case 'auth/client-credentials-basic':
      return ['kind = "client_credentials"', ...secret('client_secret')];
    case 'auth/client-credentials-jwt':
      return ['kind = "client_credentials"', `client_id = ${text(context.client_id)}`, `private_key = ${text(context.private_key_pem)}`];
    case 'auth/wif-jwt-bearer':
      return ['kind = "jwt_bearer"', `client_id = ${text(context.client_id)}`, `assertion = ${text(context.valid_jwt)}`];
    case 'auth/enterprise-managed-authorization':
      return ['kind = "enterprise"', ...secret('client_secret'), `subject_token = ${text(context.idp_id_token)}`,
        `provider_token_endpoint = ${text(context.idp_token_endpoint)}`, `provider_client_id = ${text(context.idp_client_id)}`];
    case 'auth/pre-registration':
      return ['kind = "oauth"', ...secret('client_secret')];
    default:
      return ['kind = "oauth"', 'client_metadata_url = "https://conformance-test.local/client-metadata.json"'];
  }
}

/** Does something, logging in where Cairn says that somebody must. */
let logins = 0;
async function asPerson(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error?.code !== LOGIN_REQUIRED || logins >= LOGINS_MAX) throw error;
      logins += 1;
      console.error(String(error));
      await cairn.login('suite');
    }
  }
}

const upstream = positionals.at(-1);
const servers = isAuth ? ['[servers.suite]', `url = ${JSON.stringify(upstream)}`, '[servers.suite.auth]', ...authorization(), ''].join('\n')
  : { suite: { type: 'http', url: upstream } };
const cairn = options.cairn ? await start(options.cairn, servers) : undefined;
try {
  if (isAuth) {
    const connected = await asPerson(async () => {
      const client = new Client(clientInfo, { capabilities, ...(isModern ? { versionNegotiation: { mode: 'auto' } } : {}) });
      await client.connect(transport());
      return client;
    });
    const { tools } = await asPerson(() => connected.listTools());
    for (const tool of tools) {
      await asPerson(() => connected.callTool({ name: tool.name, arguments: argumentsFor(tool) }));
    }
    await connected.close();
  } else {
    const client = new Client(clientInfo, { capabilities, ...(isModern ? { versionNegotiation: { mode: 'auto' } } : {}) });
    if (capabilities.elicitation) {
      const content = scenario === 'sep-2322-client-request-state' ? { confirmed: true } : {};
      client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content }));
    }
    await client.connect(transport());
    await exercise(client);
    await client.close();
  }
} finally {
  await cairn?.stop();
}
