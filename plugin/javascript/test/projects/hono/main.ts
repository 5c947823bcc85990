import { Hono } from 'hono';
import { createGate } from 'keystile';
import { type KeystileVariables, keystile } from 'keystile/hono';
import { env } from 'cloudflare:workers';
import policy from './policy.json';

const gate = createGate({
  policy,
  controlPlane: { url: env.CONTROL_PLANE_URL, credential: env.EDGE_CREDENTIAL },
});

const app = new Hono<{ Variables: KeystileVariables }>();

app.use(keystile(gate, { clientAddress: (c) => c.req.header('cf-connecting-ip') }));

app.all('*', async (c) => {
  const { identity, claims } = c.get('keystile');
  return c.json({
    subject: identity?.subject,
    issuer: claims?.iss,
    headers: [...c.req.raw.headers],
    path: new URL(c.req.url).pathname + new URL(c.req.url).search,
    body: await c.req.text(),
  });
});

export default app;
