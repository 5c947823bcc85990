// What all entries export, besides `createGate`.
export { guard, type GuardOptions } from '../guard.js';
export * from '../types.js';
