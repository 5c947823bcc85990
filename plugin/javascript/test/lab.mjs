// What runs inside each JavaScript runtime: the vectors, and signatures by WebCrypto. One handler of `fetch` for all of them.
import { createGate } from 'keystile';

const silent = () => {};

/** Runs `{ policies, bundles, vectors, clock_ms }` and returns what happened to each vector. */
async function runVectors({ file, isClockInjected, subtle }) {
  const gates = new Map();
  let now = file.clock_ms;
  const gateOf = (name) => {
    if (!gates.has(name)) {
      const { bundle, configuration } = file.policies[name];
      const policy = bundle === null ? configuration : { ...configuration, bundle: file.bundles[bundle] };
      const offline = { url: 'http://keystile.invalid', fetch: () => Promise.reject(new Error('offline')) };
      gates.set(
        name,
        createGate({
          policy,
          controlPlane: bundle === null ? offline : undefined,
          refresh: 'poll',
          log: silent,
          subtle: subtle === 'none' ? null : undefined,
          env: { KEYSTILE_ASSERTION: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', ...file.environment },
          now: isClockInjected ? () => now : undefined,
        }),
      );
    }
    return gates.get(name);
  };
  const results = [];
  for (const vector of file.vectors) {
    if (vector.clock === 'injected' && !isClockInjected) {
      continue;
    }
    // A bundle is loaded at the time of the file.
    now = file.clock_ms;
    const gate = gateOf(vector.policy);
    if (file.policies[vector.policy].bundle !== null && gate.version === 0) {
      await gate.checkHead({ method: 'GET', path: '/', headers: [] });
    }
    now = vector.clock_ms ?? file.clock_ms;
    const { method, path, authority, headers, client_address: clientAddress } = vector.request;
    const pairs = headers.map((line) => [line.slice(0, line.indexOf(': ')), toBytes(line.slice(line.indexOf(': ') + 2))]);
    // The second time, the credential is in the cache.
    for (const round of ['first', 'second']) {
      const decision = await gate.checkHead({ method, path, authority, headers: pairs }, { clientAddress });
      results.push({ name: vector.name, round, ...observed(decision) });
    }
  }
  return results;
}

function observed(decision) {
  const line = ([name, value]) => `${name}: ${fromBytes(value)}`;
  if (decision.outcome === 'refuse') {
    const { code, status, headers, body } = decision;
    return { decision: 'refused', reason: code, response: { status, headers: headers.map(line), body } };
  }
  return {
    decision: decision.outcome === 'admit' ? 'admitted' : 'passed',
    reason: decision.code,
    forwarded: { path: decision.forwarded.path, headers: decision.forwarded.headers.map(line) },
  };
}

/** The vectors have values in UTF-8; JavaScript has a character for each byte of a header. */
function toBytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
}

function fromBytes(text) {
  return new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
}

export async function lab(request) {
  const { pathname } = new URL(request.url);
  try {
    if (pathname === '/vectors') {
      return Response.json(await runVectors(await request.json()));
    }
    return new Response('ready');
  } catch (error) {
    return new Response(`${error}\n${error.stack}`, { status: 500 });
  }
}
