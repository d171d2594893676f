// A real OpenID provider (npm's oidc-provider) on a free port, whose signing keys can be rotated while it serves.
//
// `startIssuer()` gives its identifier; `rotate()`, which makes a new key that signs from here on and keeps the old ones
// for checking; `forge(claims, header)`, a token signed with the newest key but with any contents; and `stop()`.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import Provider from 'oidc-provider';

export const SECRET = 'a-client-secret-of-the-tests-that-is-long-enough';

export async function startIssuer() {
  let callback;
  const asked = { keys: 0 };
  const server = createServer((request, response) => {
    if (request.url === '/jwks') asked.keys += 1;
    callback(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const keys = [];
  let newest;

  async function rotate() {
    // Each kind in turn: RSA first, as most providers have it.
    const alg = keys.length % 2 ? 'ES256' : 'RS256';
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    const kid = `key-${keys.length}`;
    keys.unshift({ ...(await exportJWK(privateKey)), kid, alg, use: 'sig' });
    newest = { privateKey, alg, kid };
    const provider = new Provider(issuer, {
      jwks: { keys },
      clients: ['app', 'other'].map((id) => ({
        client_id: id,
        client_secret: SECRET,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
        token_endpoint_auth_method: 'client_secret_basic',
      })),
      scopes: ['orders:read', 'orders:write'],
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        dPoP: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (_context, resource) => ({
            scope: 'orders:read orders:write',
            audience: resource,
            accessTokenFormat: 'jwt',
            accessTokenTTL: 300,
            jwt: { sign: { alg } },
          }),
        },
      },
    });
    callback = provider.callback();
  }
  await rotate();

  const now = () => Math.floor(Date.now() / 1000);
  /** A token with the provider's newest key; `claims` and `header` go over what a good one has. */
  function forge(claims, header = {}, key = newest.privateKey) {
    const whole = { iss: issuer, sub: 'ada', client_id: 'app', iat: now(), exp: now() + 300, jti: crypto.randomUUID(), scope: 'orders:read orders:write', ...claims };
    for (const name of Object.keys(whole)) if (whole[name] === undefined) delete whole[name];
    return new SignJWT(whole).setProtectedHeader({ alg: newest.alg, kid: newest.kid, typ: 'at+jwt', ...header }).sign(key);
  }

  /** A token by the client credentials flow; with `dpop`, a function that makes a proof, one that is bound to its key. */
  async function token(resource, { client = 'app', scope = 'orders:read orders:write', dpop } = {}) {
    const url = `${issuer}/token`;
    const headers = { authorization: `Basic ${Buffer.from(`${client}:${SECRET}`).toString('base64')}`, 'content-type': 'application/x-www-form-urlencoded' };
    if (dpop) headers.dpop = await dpop('POST', url);
    const answer = await fetch(url, { method: 'POST', headers, body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope }) });
    const body = await answer.json();
    if (!body.access_token) throw new Error(`the provider gave no token: ${JSON.stringify(body)}`);
    return body.access_token;
  }

  return { issuer, asked, rotate, forge, token, publicKey: () => keys[0], newest: () => newest, stop: () => server.close() };
}
