import { createGate } from 'keystile';
import policy from './policy.json';

const gate = createGate({
  policy,
  controlPlane: { url: Bun.env.CONTROL_PLANE_URL!, credential: Bun.env.EDGE_CREDENTIAL },
});

Bun.serve({
  port: Number(Bun.env.PORT),
  hostname: '127.0.0.1',
  async fetch(request, server) {
    const decision = await gate.check(request, { clientAddress: server.requestIP(request)?.address });
    if (decision.outcome === 'refuse') {
      return decision.response;
    }
    const forwarded = decision.request;
    return Response.json({
      subject: decision.identity?.subject,
      issuer: decision.claims?.iss,
      headers: [...forwarded.headers],
      path: new URL(forwarded.url).pathname + new URL(forwarded.url).search,
      body: await forwarded.text(),
    });
  },
});
