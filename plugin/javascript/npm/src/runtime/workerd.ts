// The entry for Cloudflare's Workers, which compile modules when they are deployed.
import module from '../core/core_bg.wasm';
import { type Runtime, createGateOn } from '../gate.js';
import type { Gate, GateOptions } from '../types.js';

export * from './common.js';

const runtime: Runtime = { module, refresh: 'poll' };

/**
 * Creates a gate. Call it once, outside of the handler of requests.
 *
 * @throws {Error} with the path in the policy and what is wrong with it
 */
export function createGate(options: GateOptions): Gate {
  return createGateOn(runtime, options);
}
