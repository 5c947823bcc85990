import { AutoRouter, type IRequest } from 'itty-router';
import { createGate } from 'keystile';
import { type KeystileRequest, keystile } from 'keystile/itty-router';
import { env } from 'cloudflare:workers';
import policy from './policy.json';

const gate = createGate({
  policy,
  controlPlane: { url: env.CONTROL_PLANE_URL, credential: env.EDGE_CREDENTIAL },
});

const router = AutoRouter<IRequest>({
  before: [keystile(gate, { clientAddress: (request) => request.headers.get('cf-connecting-ip') })],
});

router.all<KeystileRequest>('*', async ({ keystile: { identity, claims, request } }) => ({
  subject: identity?.subject,
  issuer: claims?.iss,
  headers: [...request.headers],
  path: new URL(request.url).pathname + new URL(request.url).search,
  body: await request.text(),
}));

export default router;
