// What runs inside each JavaScript runtime: the vectors, and signatures by WebCrypto. One handler of `fetch` for all of them.
import { importJWK, jwtVerify } from 'jose';
import { createGate } from 'keystile';
// Not exported: only the core decides what is verified.
import { SignatureVerifier } from './node_modules/keystile/signatures.js';

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

/** Verifies signatures as the gate has them verified. Returns whether each is valid, or null if the platform cannot. */
async function runSignatures({ groups }) {
  const verifier = new SignatureVerifier(crypto.subtle);
  const results = [];
  for (const [number, { algorithm, key, cases }] of groups.entries()) {
    for (const { message, signature } of cases) {
      const parts = framed([key, signature, message].map(fromHex));
      results.push((await verifier.verify({ algorithm, key: number, number: 1 }, parts, 0)) ?? null);
    }
  }
  return results;
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** Puts the length in front of each part, as the core does. */
function framed(parts) {
  const bytes = new Uint8Array(parts.reduce((size, part) => size + 4 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    new DataView(bytes.buffer).setUint32(at, part.length);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}

const benchGates = new Map();

/**
 * Verifies tokens `times` times: by the gate, by jose, or not at all. The caller measures the CPU of the process, because
 * clocks of some runtimes do not advance meanwhile. Returns the number of admitted ones.
 */
async function runBench({ what, policy, jwk, alg, issuer, tokens, times }) {
  const requests = tokens.map((token) => {
    const headers = { authorization: `Bearer ${token}`, accept: '*/*', 'accept-language': 'en', 'user-agent': 'bench' };
    return new Request('https://api.example.com/orders?x=1', { headers });
  });
  let verify = async () => true;
  if (what === 'keystile') {
    const name = JSON.stringify(policy);
    if (!benchGates.has(name)) {
      benchGates.set(name, createGate({ policy, log: silent }));
    }
    const gate = benchGates.get(name);
    verify = async (request) => (await gate.check(request)).outcome === 'admit';
  } else if (what === 'jose') {
    const key = await importJWK(jwk, alg);
    const options = { issuer, audience: 'api', algorithms: [alg] };
    verify = async (request) => {
      const { payload } = await jwtVerify(request.headers.get('authorization').slice('Bearer '.length), key, options);
      return payload.sub !== undefined;
    };
  }
  let admitted = 0;
  for (let round = 0; round < times; round += 1) {
    for (const request of requests) {
      admitted += (await verify(request)) ? 1 : 0;
    }
  }
  return { admitted };
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
    if (pathname === '/signatures') {
      return Response.json(await runSignatures(await request.json()));
    }
    if (pathname === '/bench') {
      return Response.json(await runBench(await request.json()));
    }
    return new Response('ready');
  } catch (error) {
    return new Response(`${error}\n${error.stack}`, { status: 500 });
  }
}
