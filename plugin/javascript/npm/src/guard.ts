// A handler of `fetch` between clients and an origin.
import type { CheckOptions, Decision, Gate } from './types.js';

type Passing = Exclude<Decision, { outcome: 'refuse' }>;

export interface GuardOptions {
  /**
   * Where requests that may pass go: the URL of the origin, which replaces scheme, host and port, or a function. The
   * function gets `decision.request`, and only that: without credential, with identity headers.
   */
  readonly origin: string | URL | ((request: Request, decision: Passing) => Response | Promise<Response>);
  /** Returns the address of the client, such as `request.headers.get('cf-connecting-ip')`. */
  readonly clientAddress?: ((request: Request) => string | null | undefined) | undefined;
}

/** Returns a handler of `fetch` that lets only checked requests through to an origin. */
export function guard(
  gate: Gate,
  options: GuardOptions,
): (request: Request, env?: unknown, ctx?: CheckOptions) => Promise<Response> {
  const { origin, clientAddress } = options;
  const base = typeof origin === 'function' ? undefined : new URL(origin).origin;
  return async (request, _env, ctx) => {
    const decision = await gate.check(request, {
      waitUntil: typeof ctx?.waitUntil === 'function' ? (promise) => ctx.waitUntil?.(promise) : undefined,
      clientAddress: clientAddress?.(request) ?? undefined,
    });
    if (decision.outcome === 'refuse') {
      return decision.response;
    }
    if (typeof origin === 'function') {
      return origin(decision.request, decision);
    }
    return fetch(new Request(base + decision.forwarded.path, decision.request), { redirect: 'manual' });
  };
}
