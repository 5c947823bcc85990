// Loads and queries one revocation set in V8: node time.mjs MODULE OBJECTS KIND ISSUED REVOKED. Prints the results as JSON.
import { readFileSync } from "node:fs";

const [module, objects, ...numbers] = process.argv.slice(2);
const [kind, issued, revoked] = numbers.map(Number);
const { instance } = await WebAssembly.instantiate(readFileSync(module));
const { begin, room, open, ask, bytes, memory } = instance.exports;

const file = readFileSync(objects);

function load() {
  begin(kind);
  let longest = 0;
  let all = 0;
  for (let at = 0; at < file.length; ) {
    const length = file.readUInt32LE(at);
    const place = room(length);
    new Uint8Array(memory.buffer, place, length).set(file.subarray(at + 4, at + 4 + length));
    const start = performance.now();
    open();
    const took = performance.now() - start;
    longest = Math.max(longest, took);
    all += took;
    at += 4 + length;
  }
  return { longest, all };
}

const cold = load(); // V8 compiles code on its first run, and optimizes code that runs often
const loaded = load();

// Measures members of a range in pieces, and takes the best of several passes, because other processes also use the CPU.
function nanoseconds(first, count) {
  const sample = Math.min(count, 200_000);
  const step = Math.floor(count / sample);
  const piece = 4_000;
  let total = 0;
  let hits = 0;
  for (let at = 0; at < sample; at += piece) {
    const asked = Math.min(piece, sample - at);
    let best = Infinity;
    for (let pass = 0; pass < 7; pass++) {
      const start = performance.now();
      const found = ask(first + at * step, step, asked);
      best = Math.min(best, performance.now() - start);
      if (pass === 0) hits += found;
    }
    total += best;
  }
  return { ns: (total * 1e6) / sample, hits: hits / sample };
}

nanoseconds(0, revoked); // warms up, until V8 has optimized the code
const held = bytes();
const [good, bad] = [nanoseconds(revoked, issued - revoked), nanoseconds(0, revoked)];
console.log(JSON.stringify({
  v8: process.versions.v8, vm_bytes: held, longest_open_ms: loaded.longest, all_open_ms: loaded.all,
  longest_cold_open_ms: cold.longest,
  good_ns: good.ns, good_hits: good.hits, revoked_ns: bad.ns, revoked_hits: bad.hits,
}));
