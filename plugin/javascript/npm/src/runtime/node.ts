// The entry for Node, Deno and Bun.
import { readFileSync } from 'node:fs';
import { type Runtime, createGateOn } from '../gate.js';
import type { Gate, GateOptions } from '../types.js';

export * from './common.js';

const runtime: Runtime = {
  module: new WebAssembly.Module(readFileSync(new URL('../core/core_bg.wasm', import.meta.url))),
  refresh: 'long-poll',
};

/**
 * Creates a gate. Call it once, outside of the handler of requests.
 *
 * @throws {Error} with the path in the policy and what is wrong with it
 */
export function createGate(options: GateOptions): Gate {
  return createGateOn(runtime, options);
}
