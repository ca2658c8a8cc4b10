// A real provider of OpenID Connect (npm `oidc-provider`), for tests/oidc.rs: whoever says a name is
// signed in by it. Its one argument is JSON; a line says when it listens.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const { port, clients } = JSON.parse(process.argv[2] ?? '{}');
const issuer = `http://127.0.0.1:${port}`;
const resource = 'urn:folkmoot:api';
const scopes = 'openid profile groups';
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const html = (title, body) => `<!doctype html><title>${title}</title><h1>${title}</h1>${body}`;
const api = (audience, seconds) => ({ scope: 'folkmoot:read', audience, accessTokenTTL: seconds, accessTokenFormat: 'jwt' });

const provider = new Provider(issuer, {
  clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig', kid: 'one' }] },
  cookies: { keys: ['a key that only tests know'] },
  scopes: ['openid', 'profile', 'groups'],
  claims: { openid: ['sub'], profile: ['preferred_username', 'name'], groups: ['groups'] },
  pkce: { required: () => true },
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  findAccount: (_, sub) => {
    const name = sub.replace('sub-', '');
    const groups = name === 'ida' ? ['staff', 'ops'] : ['staff'];
    return { accountId: sub, claims: () => ({ sub, preferred_username: name, name: name.toUpperCase(), groups }) };
  },
  // Nobody is asked whether this client may know who they are.
  loadExistingGrant: async ({ oidc }) => {
    const { clientId } = oidc.client;
    const known = oidc.session.grantIdFor(clientId);
    if (known) return provider.Grant.find(known);
    const grant = new provider.Grant({ clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope(scopes);
    grant.addResourceScope(resource, 'folkmoot:read');
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: { enabled: true, getResourceServerInfo: () => api('folkmoot', 300) },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form) => {
        ctx.body = html('Code', `${form}<button type="submit" form="op.deviceInputForm">Go on</button>`);
      },
      userCodeConfirmSource: (ctx, form, _client, _device, userCode) => {
        ctx.body = html('Confirm', `<code>${userCode}</code>${form}<button id="confirm" type="submit" form="op.deviceConfirmForm">Confirm</button>`);
      },
      successSource: (ctx) => {
        ctx.body = html('Signed in', '<p id="success">You may close this.</p>');
      },
    },
  },
});

/** Signs in whoever says a name. */
const interact = async (request, response) => {
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html');
    response.end(html('Who are you?', '<form method="post"><input name="name" autofocus> <button>Sign in</button></form>'));
    return;
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const name = new URLSearchParams(body).get('name') ?? '';
  const result = name === 'nobody' ? { error: 'access_denied' } : { login: { accountId: `sub-${name}` } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
};

/** An access token as the provider issues it: `?sub=&aud=&seconds=`. */
const token = async (url, response) => {
  const query = new URL(url, issuer).searchParams;
  const client = await provider.Client.find(clients[0].client_id);
  const issued = new provider.AccessToken({ accountId: query.get('sub'), client, grantId: 'tests', gty: 'authorization_code', scope: query.get('scope') ?? undefined });
  issued.resourceServer = new provider.ResourceServer(resource, api(query.get('aud'), Number(query.get('seconds'))));
  response.end(await issued.save());
};

const callback = provider.callback();
const server = createServer((request, response) => {
  const failed = (error) => {
    process.stderr.write(`${error.stack}\n`);
    response.writeHead(500).end();
  };
  if (request.url.startsWith('/interaction/')) interact(request, response).catch(failed);
  else if (request.url.startsWith('/tests/token')) token(request.url, response).catch(failed);
  else callback(request, response);
});
server.listen(port, '127.0.0.1', () => process.stdout.write('listening\n'));
process.stdin.on('end', () => process.exit(0)).resume();
