// A plugin for Fastify.
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Gate } from '../types.js';
import { type Passing, headOf, replaceHeaders } from './node-request.js';

export type { Passing };

declare module 'fastify' {
  interface FastifyRequest {
    /** The decision about this request: an identity, or the reason why there is none. */
    keystile: Passing | null;
  }
}

export interface KeystileOptions {
  readonly gate: Gate;
  /** Returns the address of the client; by default `request.ip`, which follows the option `trustProxy`. */
  readonly clientAddress?: ((request: FastifyRequest) => string | null | undefined) | undefined;
}

/**
 * Refuses what the gate refuses, for all routes of the instance on which it is registered and below. Handlers get the
 * decision as `request.keystile`, and headers without the credential and with the identity.
 */
export async function keystile(fastify: FastifyInstance, options: KeystileOptions): Promise<void> {
  const { gate, clientAddress = (request: FastifyRequest): string => request.ip } = options;
  fastify.decorateRequest('keystile', null);
  fastify.addHook('onRequest', async (request, reply) => {
    const path = request.raw.url ?? '';
    const decision = await gate.checkHead(headOf(request.raw, path), {
      clientAddress: clientAddress(request) ?? undefined,
    });
    if (decision.outcome === 'refuse') {
      reply.code(decision.status);
      for (const [name, value] of decision.headers) {
        reply.header(name, name === 'www-authenticate' ? repeated(decision.headers, name) : value);
      }
      // Fastify adds a charset to the type of a text.
      return reply.send(decision.body === '' ? undefined : new TextEncoder().encode(decision.body));
    }
    request.keystile = decision;
    replaceHeaders(request.raw, decision.forwarded);
    if (decision.forwarded.path !== path) {
      request.raw.url = decision.forwarded.path;
    }
    return undefined;
  });
}

// Without this mark, Fastify would apply the hook to no route outside of the plugin: none would be guarded.
Object.assign(keystile, { [Symbol.for('skip-override')]: true, [Symbol.for('fastify.display-name')]: 'keystile' });

function repeated(headers: readonly (readonly [string, string])[], name: string): string[] {
  return headers.filter(([other]) => other === name).map(([, value]) => value);
}

export default keystile;
