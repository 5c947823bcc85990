import { type Gate, createGate } from 'keystile';
import policy from './policy.json';

interface Env {
  CONTROL_PLANE_URL: string;
  EDGE_CREDENTIAL: string;
}

// One for all requests of the isolate.
let gate: Gate | undefined;

export default {
  async fetch(request, env, ctx) {
    gate ??= createGate({
      policy,
      controlPlane: { url: env.CONTROL_PLANE_URL, credential: env.EDGE_CREDENTIAL },
    });
    const decision = await gate.check(request, {
      waitUntil: (promise) => ctx.waitUntil(promise),
      clientAddress: request.headers.get('cf-connecting-ip') ?? undefined,
    });
    if (decision.outcome === 'refuse') {
      return decision.response;
    }
    // The request without the credential, and with the identity in headers: also for `fetch` to an origin.
    const forwarded = decision.request;
    return Response.json({
      subject: decision.identity?.subject,
      issuer: decision.claims?.iss,
      headers: [...forwarded.headers],
      path: new URL(forwarded.url).pathname + new URL(forwarded.url).search,
      body: await forwarded.text(),
    });
  },
} satisfies ExportedHandler<Env>;
