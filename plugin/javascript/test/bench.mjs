// Measures the gate beside jose, on Node and workerd: `bench.mjs [--quick]` prints JSON.
//
// Both verify the same tokens, taken from the same requests, with the same requirements on issuer and audience. jose does
// nothing else; the gate also looks up revocations, decides by rules, and prepares the headers for the upstream. The figures
// are CPU time of the whole process, without that of a run that only makes the requests.
import { readFile, readdir } from 'node:fs/promises';
import { createPublicKey } from 'node:crypto';
import { Forge, ISSUER, Signer, freePort } from './kit.mjs';
import { RUNTIMES } from './runtimes.mjs';

const isQuick = process.argv.includes('--quick');
const ROUNDS = isQuick ? 2 : 15;
const TOKENS = isQuick ? 50 : 300;
/** A known credential takes so little time that it is checked more often. */
const KNOWN_TIMES = isQuick ? 2 : 20;
const HOUR_MS = 3_600_000;
const NS_PER_US = 1000;

const signers = ['HS256', 'EdDSA', 'ES256', 'RS256'].map((alg) => new Signer(alg, alg.toLowerCase()));

/** Returns the CPU time of all threads of a process, in nanoseconds. */
async function cpuOf(pid) {
  const tasks = await readdir(`/proc/${pid}/task`);
  const times = await Promise.all(tasks.map((task) => readFile(`/proc/${pid}/task/${task}/schedstat`, 'utf8').catch(() => '0')));
  return times.reduce((sum, time) => sum + Number(time.split(' ')[0]), 0);
}

/** Returns the resident memory of a process, in bytes. */
async function memoryOf(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)[1]) * 1024;
}

async function policyOf(forge) {
  const keys = signers.filter(({ secret }) => secret === undefined).map(({ key }) => key);
  const secrets = signers.filter(({ secret }) => secret !== undefined).map(({ kid, secret }) => [kid, secret.toString('base64url')]);
  const signed = await forge.sign({ lifetime_ms: 24 * HOUR_MS, keys, secrets });
  const parts = [signed.manifest, ...Object.values(signed.objects)].map((text) => Buffer.from(text, 'base64url'));
  const framed = parts.flatMap((part) => [Buffer.from([part.length >> 24, part.length >> 16, part.length >> 8, part.length]), part]);
  const { control_plane: _, ...policy } = forge.policy;
  return { ...policy, max_manifest_lifetime_seconds: 86_400, bundle: Buffer.concat(framed).toString('base64url') };
}

function jwkOf({ secret, private: key }) {
  return secret === undefined ? createPublicKey(key).export({ format: 'jwk' }) : { kty: 'oct', k: secret.toString('base64url') };
}

async function post(served, work) {
  const response = await fetch(`${served.url}/bench`, { method: 'POST', body: JSON.stringify(work) });
  const text = await response.text();
  const expected = work.tokens.length * work.times;
  if (!response.ok || JSON.parse(text).admitted !== expected) {
    throw new Error(`${work.what} ${work.alg}: ${text}\n${served.output}`);
  }
}

/** Returns the CPU time for each token, in microseconds. */
async function cost(served, work) {
  const before = await cpuOf(served.process.pid);
  await post(served, work);
  const after = await cpuOf(served.process.pid);
  return (after - before) / (work.tokens.length * work.times) / NS_PER_US;
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function measure(name, policy) {
  const start = async () => RUNTIMES[name].serve('.', `serve/${name}.mjs`, { port: await freePort() });
  const figures = {};
  const served = await start();
  try {
    for (const signer of signers) {
      const { alg } = signer;
      const costs = { new: [], known: [], jose: [], ratioNew: [], ratioKnown: [] };
      for (let round = -1; round < ROUNDS; round += 1) {
        const tokens = Array.from({ length: TOKENS }, () => signer.token());
        const work = { policy, jwk: jwkOf(signer), alg, issuer: ISSUER, tokens, times: 1 };
        const nothing = await cost(served, { ...work, what: 'nothing' });
        const jose = (await cost(served, { ...work, what: 'jose' })) - nothing;
        const first = (await cost(served, { ...work, what: 'keystile' })) - nothing;
        const known = (await cost(served, { ...work, what: 'keystile', times: KNOWN_TIMES })) - nothing / KNOWN_TIMES;
        if (round >= 0) {
          costs.jose.push(jose);
          costs.new.push(first);
          costs.known.push(known);
          costs.ratioNew.push(first / jose);
          costs.ratioKnown.push(jose / known);
        }
      }
      figures[alg] = Object.fromEntries(Object.entries(costs).map(([what, values]) => [what, median(values)]));
    }
  } finally {
    served.stop();
  }
  const memory = {};
  for (const what of ['nothing', 'jose', 'keystile']) {
    const fresh = await start();
    try {
      for (const signer of signers) {
        const tokens = Array.from({ length: TOKENS }, () => signer.token());
        await post(fresh, { policy, jwk: jwkOf(signer), alg: signer.alg, issuer: ISSUER, tokens, times: 5, what });
      }
      memory[what] = await memoryOf(fresh.process.pid);
    } finally {
      fresh.stop();
    }
  }
  return { microseconds: figures, memory };
}

const forge = await Forge.start();
try {
  const policy = await policyOf(forge);
  const result = {};
  for (const name of ['node', 'workerd']) {
    result[name] = await measure(name, policy);
  }
  console.log(JSON.stringify(result));
} finally {
  forge.stop();
}
