import { readFileSync } from 'node:fs';
import Fastify from 'fastify';
import { createGate } from 'keystile';
import { keystile } from 'keystile/fastify';

const gate = createGate({
  policy: readFileSync('policy.json', 'utf8'),
  controlPlane: { url: process.env.CONTROL_PLANE_URL!, credential: process.env.EDGE_CREDENTIAL },
});

const app = Fastify();

await app.register(keystile, { gate });

app.all('/*', async (request) => ({
  subject: request.keystile?.identity?.subject,
  issuer: request.keystile?.claims?.iss,
  headers: Object.entries(request.headers),
  path: request.raw.url,
  body: request.body ?? '',
}));

await app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
