// A handler for itty-router.
import type { IRequest, RequestHandler } from 'itty-router';
import type { CheckOptions, Decision, Gate } from '../types.js';

/** A decision about a request that may pass. */
export type Passing = Exclude<Decision, { outcome: 'refuse' }>;

/** A request after {@link keystile}. */
export interface KeystileRequest extends IRequest {
  /** The decision: an identity, or the reason why there is none. `keystile.request` is what an upstream may receive. */
  keystile: Passing;
}

export interface KeystileOptions {
  /** Returns the address of the client. */
  readonly clientAddress?: ((request: IRequest) => string | null | undefined) | undefined;
}

/** Answers what the gate refuses. The handlers after it get the decision as `request.keystile`. */
export function keystile(gate: Gate, options: KeystileOptions = {}): RequestHandler<IRequest> {
  return async (request: IRequest, ...args: unknown[]) => {
    const ctx = args.find((arg) => typeof (arg as CheckOptions | null)?.waitUntil === 'function') as
      | CheckOptions
      | undefined;
    const decision = await gate.check(request as unknown as Request, {
      waitUntil: ctx === undefined ? undefined : (promise) => ctx.waitUntil?.(promise),
      clientAddress: options.clientAddress?.(request) ?? undefined,
    });
    if (decision.outcome === 'refuse') {
      return decision.response;
    }
    request.keystile = decision;
    return undefined;
  };
}
