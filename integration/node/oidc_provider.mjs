// A real OpenID provider for one client, whose accounts are whoever logs in: `node oidc_provider.mjs PORT APP_URL...`.
// Its login pages are the library's own for development. The id_token lasts for as long as ID_TOKEN_SECONDS says.
import { Provider } from 'oidc-provider';

const [port, ...apps] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const seconds = Number(process.env.ID_TOKEN_SECONDS ?? 3600);

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'groove',
    client_secret: 'a secret : of ours',
    redirect_uris: apps.map((app) => `${app}/oauth2/callback`),
    post_logout_redirect_uris: apps.map((app) => `${app}/`),
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
  scopes: ['openid', 'email', 'profile', 'groups', 'offline_access'],
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  ttl: { IdToken: seconds, AccessToken: seconds, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  issueRefreshToken: async () => true,
  rotateRefreshToken: true,
  cookies: { keys: ['a key of the test'] },
  findAccount: async (_, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      email: `${id}@example.test`,
      email_verified: true,
      name: `Dr. ${id}`,
      groups: id === 'ann' ? ['ops', 'dev'] : ['guests'],
    }),
  }),
});

let refreshes = 0;
provider.on('grant.success', (ctx) => {
  if (ctx.oidc.params.grant_type === 'refresh_token') console.log(`refreshed ${++refreshes}`);
});
provider.on('server_error', (_, error) => console.log(`server error ${error.stack}`));
provider.on('grant.error', (_, error) => console.log(`grant error ${error.message} ${error.error_description}`));
provider.on('authorization.error', (_, error) => console.log(`authorization error ${error.message} ${error.error_description}`));
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
