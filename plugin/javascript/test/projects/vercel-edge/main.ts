import { createGate } from 'keystile';
import policy from './policy.json';

export const config = { runtime: 'edge' };

const gate = createGate({
  policy,
  controlPlane: { url: process.env.CONTROL_PLANE_URL!, credential: process.env.EDGE_CREDENTIAL },
});

export default async function handler(
  request: Request,
  ctx: { waitUntil(promise: Promise<unknown>): void },
): Promise<Response> {
  const decision = await gate.check(request, {
    waitUntil: (promise) => ctx.waitUntil(promise),
    clientAddress: request.headers.get('x-real-ip') ?? undefined,
  });
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
}
