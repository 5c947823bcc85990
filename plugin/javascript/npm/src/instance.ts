// The one instance of the core in this module, and its replacement after a trap.
import { Core, __wbg_reset_state, initSync } from './core/core.js';

/** The core failed in a way that it does not report: it trapped. The instance has been discarded. */
export class CoreFailure extends Error {
  override readonly name = 'CoreFailure';
}

let generation = 0;
let isTrapped = false;

/** Starts the instance, once. */
export function start(module: WebAssembly.Module): void {
  if (generation === 0) {
    initSync({ module });
    generation = 1;
  }
}

/** Returns the number of the instance. The objects of an earlier one must not be used. */
export function currentGeneration(): number {
  return generation;
}

/**
 * Calls the core. A text that it throws is an error that it reports. Anything else is a trap, after which the memory of the
 * instance may be inconsistent, so another one takes its place.
 */
export function callCore<T>(call: () => T): T {
  if (isTrapped) {
    replaceInstance();
  }
  try {
    return call();
  } catch (error) {
    if (typeof error === 'string') {
      throw new Error(error);
    }
    isTrapped = true;
    generation += 1;
    replaceInstance();
    throw new CoreFailure('the core failed and was restarted', { cause: error });
  }
}

function replaceInstance(): void {
  __wbg_reset_state();
  isTrapped = false;
}

export { Core };
