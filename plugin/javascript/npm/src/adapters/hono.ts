// Middleware for Hono.
import type { Context, MiddlewareHandler } from 'hono';
import type { CheckOptions, Decision, Gate } from '../types.js';

/** What a handler gets by `c.get('keystile')`: an identity, or the reason why there is none. */
export type Passing = Exclude<Decision, { outcome: 'refuse' }>;

export interface KeystileVariables {
  keystile: Passing;
}

export interface KeystileOptions {
  /** Returns the address of the client. */
  readonly clientAddress?: ((c: Context) => string | null | undefined) | undefined;
}

/**
 * Refuses what the gate refuses. Handlers get the decision by `c.get('keystile')`, and a request without the credential and
 * with the identity headers.
 */
export function keystile(
  gate: Gate,
  options: KeystileOptions = {},
): MiddlewareHandler<{ Variables: KeystileVariables }> {
  return async (c, next) => {
    const decision = await gate.check(c.req.raw, {
      waitUntil: waitUntilOf(c),
      clientAddress: options.clientAddress?.(c) ?? undefined,
    });
    if (decision.outcome === 'refuse') {
      return decision.response;
    }
    c.set('keystile', decision);
    c.req.raw = decision.request;
    await next();
    return undefined;
  };
}

/** Hono throws where the platform has no execution context. */
function waitUntilOf(c: Context): CheckOptions['waitUntil'] {
  try {
    const ctx = c.executionCtx;
    return (promise) => ctx.waitUntil(promise);
  } catch {
    return undefined;
  }
}
