// Peers that speak JSON-RPC as text, for `compare.mjs`: no SDK in between that could mend or spoil a message.
//
// `pipe(command, args, env)` starts a server (or `cairn wrap`) and speaks lines; `web(url)` speaks Streamable HTTP of the
// legacy era. Both give `ask(text)`, which resolves with the answer, `tell(text)` for what has none, `heard` (what the
// other side said unasked) and `close()`. Requests of the server are answered from `replies`.
// What is read keeps each number as it was written.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

const ANSWER_MS_MAX = 60_000;

/** JSON with each number as the text that stood there, so that 1.0 and 1, or two large numbers, stay apart. */
export const parse = (text) => JSON.parse(text, (_, value, context) => typeof value === 'number' ? `#${context.source}` : value);

const replies = {
  'roots/list': { roots: [{ uri: 'file:///somewhere', name: 'somewhere' }] },
  'sampling/createMessage': { role: 'assistant', content: { type: 'text', text: 'a sampled word' }, model: 'none', stopReason: 'endTurn' },
  'elicitation/create': { action: 'accept', content: { name: 'Ada', check: true } },
  ping: {},
};

/** What both kinds of peer share: who waits for which id, what was heard. */
function conversation(send) {
  const waiting = new Map();
  const heard = [];
  const said = (text) => {
    const message = parse(text);
    for (const one of Array.isArray(message) ? message : [message]) {
      if (one.method === undefined) {
        const key = JSON.stringify(one.id);
        waiting.get(key)?.(one);
        waiting.delete(key);
      } else {
        heard.push(one);
        // The id goes back as it came.
        const id = typeof one.id === 'string' && one.id.startsWith('#') ? one.id.slice(1) : JSON.stringify(one.id);
        if (one.id !== undefined) send(`{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(replies[one.method] ?? {})}}`);
      }
    }
  };
  const wait = (id) => new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no answer to ${id}`)), ANSWER_MS_MAX);
    waiting.set(id, (answer) => { clearTimeout(late); resolve(answer); });
  });
  const idOf = (text) => JSON.stringify(parse(text).id);
  return { heard, said, wait, idOf, isWaiting: (text) => waiting.has(idOf(text)) };
}

export function pipe(command, args, env) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'ignore'] });
  const write = (text) => child.stdin.write(`${text}\n`);
  const talk = conversation(write);
  let rest = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) if (line.trim()) talk.said(line);
  });
  child.stdin.on('error', () => {});
  return {
    ...talk,
    ask: (text) => { const answer = talk.wait(talk.idOf(text)); write(text); return answer; },
    tell: async (text) => { write(text); },
    close: async () => {
      child.stdin.end();
      const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      clearTimeout(late);
    },
  };
}

export function web(url) {
  let session;
  const stop = new AbortController();
  const version = { 'mcp-protocol-version': undefined };
  const headers = () => ({ 'content-type': 'application/json', accept: 'application/json, text/event-stream',
    ...(session ? { 'mcp-session-id': session } : {}), ...(version['mcp-protocol-version'] ? version : {}) });
  const read = async (response) => {
    session ??= response.headers.get('mcp-session-id') ?? undefined;
    if (!(response.headers.get('content-type') ?? '').startsWith('text/event-stream')) {
      const text = await response.text();
      if (text && (response.headers.get('content-type') ?? '').startsWith('application/json')) talk.said(text);
      return;
    }
    let rest = '';
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      const events = (rest + chunk).split('\n\n');
      rest = events.pop();
      for (const event of events) {
        const data = event.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
        if (data) talk.said(data);
      }
    }
  };
  const post = (text) => fetch(url, { method: 'POST', headers: headers(), body: text, signal: stop.signal }).then(read);
  const quiet = (error) => { if (!stop.signal.aborted) console.error(`compare: ${error}`); };
  const talk = conversation((text) => post(text).catch(quiet));
  return {
    ...talk,
    ask: (text) => { const answer = talk.wait(talk.idOf(text)); post(text).catch(quiet); return answer; },
    tell: async (text) => {
      await post(text);
      if (!text.includes('notifications/initialized')) return;
      version['mcp-protocol-version'] = '2025-06-18';
      fetch(url, { headers: { ...headers(), accept: 'text/event-stream' }, signal: stop.signal }).then(read).catch(quiet);
    },
    batch: (texts) => {
      const answers = texts.filter((text) => parse(text).id !== undefined).map((text) => talk.wait(talk.idOf(text)));
      post(`[${texts.join(',')}]`).catch(quiet);
      return Promise.all(answers);
    },
    close: async () => {
      if (session) await fetch(url, { method: 'DELETE', headers: headers() }).catch(() => {});
      stop.abort();
    },
  };
}
