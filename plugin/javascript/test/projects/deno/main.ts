import { createGate } from 'keystile';
import policy from './policy.json' with { type: 'json' };

const gate = createGate({
  policy,
  controlPlane: { url: Deno.env.get('CONTROL_PLANE_URL')!, credential: Deno.env.get('EDGE_CREDENTIAL') },
});

Deno.serve({ port: Number(Deno.env.get('PORT')), hostname: '127.0.0.1' }, async (request, { remoteAddr }) => {
  const decision = await gate.check(request, { clientAddress: remoteAddr.hostname });
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
});
