// The gate on Node, with a control plane that misbehaves and a clock of the test.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { createGate } from 'keystile';
import { FakeControlPlane, Forge, Signer, eventually, fingerprint } from './kit.mjs';

/** The glue of the core, which the package does not export. */
const glue = await import(new URL('../core/core.js', import.meta.resolve('keystile')));

const START = Date.UTC(2027, 0, 15);
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

const ed = new Signer('EdDSA', 'ed');
const es = new Signer('ES256', 'es');
const es512 = new Signer('ES512', 'es512');
const rs = new Signer('RS256', 'rs');
const ps = new Signer('PS256', 'ps');
const hs = new Signer('HS256', 'hs');
const KEYS = [ed, es, es512, rs, ps].map(({ key }) => key);
const SECRETS = [['hs', hs.secret.toString('base64url')]];

let forge;
let control;
let now;
let log;
let gates;

beforeEach(async () => {
  forge = await Forge.start();
  control = await FakeControlPlane.start(forge);
  now = START;
  log = [];
  gates = [];
  await publish({ keys: KEYS, secrets: SECRETS });
});

afterEach(async () => {
  gates.forEach((gate) => gate.close());
  forge.stop();
  await control.stop();
});

const publish = (command = {}) => control.publish({ now, ...command });
const revoke = (...tokens) => publish({ revoke: tokens.map(fingerprint) });

/** A gate without a loop of its own: only requests make it refresh. */
function gateOf(options = {}, policy = {}) {
  const gate = createGate({
    policy: { ...forge.policy, outage_grace_seconds: 900, ...policy },
    controlPlane: { url: control.url, credential: 'edge-credential' },
    refresh: 'poll',
    now: () => now,
    log: (level, message) => log.push(`${level} ${message}`),
    ...options,
  });
  gates.push(gate);
  return gate;
}

function requestOf(token, headers = {}) {
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  return new Request('https://api.example.com/orders?x=1', { headers: { ...authorization, ...headers } });
}

/** The code of the refusal, or the subject. */
async function ask(gate, token, options) {
  const decision = await gate.check(requestOf(token), options);
  return decision.outcome === 'refuse' ? decision.code : decision.identity?.subject;
}

const SUBJECT = 'OP0000000001';

test('tokens of every algorithm are admitted, new and known, by either path of signatures', async () => {
  for (const subtle of [undefined, null]) {
    const gate = gateOf({ subtle });
    for (const signer of [ed, es, rs, ps, hs]) {
      const token = signer.token(now);
      const [head, payload, signature] = token.split('.');
      const bytes = Buffer.from(signature, 'base64url');
      bytes[bytes.length >> 1] ^= 1;
      const forged = [head, payload, bytes.toString('base64url')].join('.');
      assert.equal(await ask(gate, forged), 'token_signature_invalid', signer.alg);
      assert.equal(await ask(gate, token), SUBJECT, signer.alg);
      assert.equal(await ask(gate, token), SUBJECT, signer.alg);
      assert.equal(await ask(gate, forged), 'token_signature_invalid', signer.alg);
    }
  }
  // The core has no code for P-521.
  assert.equal(await ask(gateOf(), es512.token(now)), SUBJECT);
  assert.equal(await ask(gateOf({ subtle: null }), es512.token(now)), 'token_algorithm_unsupported');
});

test('a platform that cannot verify leaves it to the core, and its answer counts only for the very signature', async () => {
  const broken = { importKey: () => Promise.reject(new Error('no such algorithm')), verify: () => assert.fail() };
  const failing = { importKey: async () => ({}), verify: () => Promise.reject(new Error('failed')) };
  for (const subtle of [broken, failing]) {
    const gate = gateOf({ subtle });
    assert.equal(await ask(gate, es.token(now)), SUBJECT);
    const [head, payload] = es.token(now).split('.');
    assert.equal(await ask(gate, `${head}.${payload}.${'A'.repeat(86)}`), 'token_signature_invalid');
  }
  // While one signature is verified, another request with another one is decided.
  const answers = [];
  const slow = {
    importKey: async () => ({}),
    verify: (_algorithm, _key, signature) => new Promise((resolve) => answers.push({ signature, resolve })),
  };
  const gate = gateOf({ subtle: slow });
  const [good, bad] = [ask(gate, es.token(now)), ask(gate, es.token(now))];
  await eventually('both signatures are asked for', () => answers.length === 2);
  answers[1].resolve(false);
  answers[0].resolve(true);
  assert.deepEqual(await Promise.all([good, bad]), [SUBJECT, 'token_signature_invalid']);
});

test('a decision carries the ready response, or the request without credential and with identity', async () => {
  const gate = gateOf();
  const refused = await gate.check(requestOf(undefined, { 'x-request-id': 'r-1' }));
  assert.equal(refused.outcome, 'refuse');
  assert.equal(refused.response.status, 401);
  assert.equal(refused.response.headers.get('content-type'), 'application/problem+json');
  assert.equal(refused.response.headers.get('x-request-id'), 'r-1');
  assert.match(refused.response.headers.get('www-authenticate'), /^Bearer realm=/);
  assert.equal((await refused.response.json()).code, 'credential_missing');
  assert.equal(refused.request, undefined);

  const token = ed.token(now, { akid: 'key-7' });
  const request = new Request('https://api.example.com/orders?x=1', {
    method: 'POST',
    body: 'text',
    headers: { authorization: `Bearer ${token}`, 'x-keystile-subject': 'root', 'x-other': 'caf\u00e9' },
  });
  const admitted = await gate.check(request);
  assert.equal(admitted.outcome, 'admit');
  assert.deepEqual(admitted.identity, {
    subject: SUBJECT,
    operator: SUBJECT,
    keyId: 'key-7',
    issuedAt: Math.floor(now / 1000) - 10,
    expiresAt: Math.floor(now / 1000) + 3600,
    fingerprint: fingerprint(token),
  });
  assert.equal(admitted.claims.akid, 'key-7');
  assert.equal(admitted.request.method, 'POST');
  assert.equal(await admitted.request.text(), 'text');
  const headers = Object.fromEntries(admitted.request.headers);
  assert.equal(headers.authorization, undefined);
  assert.equal(headers['x-keystile-subject'], SUBJECT);
  assert.equal(headers['x-other'], 'caf\u00e9');
  assert.equal(admitted.response, undefined);
  // What is printed has no credential in it.
  assert.ok(!JSON.stringify(admitted).includes(token));
});

test('a credential in the query is removed from the URL', async () => {
  const gate = gateOf({}, { credentials: [{ query: 'access_token' }] });
  const decision = await gate.check(new Request(`https://api.example.com/p?a=1&access_token=${ed.token(now)}#x`));
  assert.equal(decision.request.url, 'https://api.example.com/p?a=1');
});

test('public and optional rules pass without an identity', async () => {
  const rules = [
    { path: '/public', access: 'public' },
    { path: '/optional', access: 'optional' },
  ];
  const gate = gateOf({}, { rules });
  for (const [path, outcome, reason] of [
    ['/public', 'pass', 'public'],
    ['/optional', 'pass', 'anonymous'],
    ['/other', 'refuse', undefined],
  ]) {
    const decision = await gate.check(new Request(`https://api.example.com${path}`));
    assert.deepEqual([decision.outcome, decision.reason], [outcome, reason], path);
    assert.equal(decision.identity, undefined);
  }
  const reported = await gateOf({}, { mode: 'report' }).check(requestOf(undefined));
  assert.deepEqual([reported.outcome, reported.reason, reported.code], ['pass', 'reported', 'credential_missing']);
  assert.equal(reported.request.headers.get('x-keystile-report'), 'credential_missing');
});

test('verify throws the codes of the edge', async () => {
  const gate = gateOf();
  const { identity, claims } = await gate.verify(es.token(now));
  assert.deepEqual([identity.subject, claims.sub], [SUBJECT, SUBJECT]);
  const revoked = ed.token(now);
  await revoke(revoked);
  now += 3 * SECOND;
  for (const [credential, code, status] of [
    ['', 'credential_missing', 401],
    ['abc', 'token_malformed', 401],
    [ed.token(now - 2 * HOUR), 'token_expired', 401],
    [revoked, 'revoked', 401],
    [ed.token(now, { aud: 'other' }), 'token_audience_mismatch', 403],
  ]) {
    await assert.rejects(gate.verify(credential), { name: 'KeystileError', code, status });
  }
});

test('an invalid policy is refused when the gate is created, and the error quotes no value', () => {
  assert.throws(() => gateOf({}, { mode: 'hidden-value' }), ({ message }) => /invalid policy at `mode`/.test(message) && !message.includes('hidden-value'));
  assert.throws(() => gateOf({}, { identity: { assertion: { header: 'x-a', audience: 'b', secret_env: 'ABSENT' } } }), /ABSENT/);
  assert.throws(() => createGate({ policy: forge.policy }), /controlPlane/);
  assert.throws(() => createGate({ policy: 'no JSON', controlPlane: { url: control.url } }), /invalid policy/);
});

test('a secret of the policy comes from the environment', async () => {
  const identity = { assertion: { header: 'x-assertion', audience: 'orders', secret_env: 'ASSERTION' } };
  const gate = gateOf({ env: { ASSERTION: 'A'.repeat(43) } }, { identity });
  const decision = await gate.check(requestOf(ed.token(now)));
  assert.equal(decision.request.headers.get('x-assertion').split('.').length, 3);
});

test('a head that the core cannot read is refused', async () => {
  const gate = gateOf();
  const token = ed.token(now);
  for (const headers of [
    [['authorization', `Bearer ${token}\nx-other: a`]],
    [['authorization\n', `Bearer ${token}`]],
    [['x-other', '\u20ac'], ['authorization', `Bearer ${token}`]],
    [['x-\u00e9', 'a'], ['authorization', `Bearer ${token}`]],
    [['', 'a'], ['authorization', `Bearer ${token}`]],
  ]) {
    const { outcome, code, status } = await gate.checkHead({ method: 'GET', path: '/', headers });
    assert.deepEqual([outcome, code, status], ['refuse', 'host_error', 503]);
  }
  const { code } = await gate.check({ url: 'https://a', get headers() { throw new Error('broken'); } });
  assert.equal(code, 'host_error');
});

test('a revocation is enforced by the second request that comes two seconds later', async () => {
  const gate = gateOf();
  const token = ed.token(now);
  const background = [];
  const options = { waitUntil: (promise) => background.push(promise) };
  assert.equal(await ask(gate, token, options), SUBJECT);
  await revoke(token);
  now += 1999;
  assert.equal(await ask(gate, token, options), SUBJECT);
  assert.equal(background.length, 0, 'nothing is fetched within two seconds');
  now += 1;
  assert.equal(await ask(gate, token, options), SUBJECT, 'no request waits for the refresh');
  await Promise.all(background);
  assert.equal(await ask(gate, token, options), 'revoked');
  // Without `waitUntil`, the request waits for the refresh that it triggers.
  const other = ed.token(now);
  await revoke(other);
  now += 2 * SECOND;
  assert.equal(await ask(gate, other), 'revoked');
});

test('a refresh that the platform dropped does not keep the gate from refreshing', async () => {
  const gate = gateOf();
  const token = ed.token(now);
  assert.equal(await ask(gate, token), SUBJECT);
  await revoke(token);
  now += 2 * SECOND;
  // It never arrives.
  const { fetch } = globalThis;
  globalThis.fetch = () => new Promise(() => {});
  const realNow = Date.now;
  try {
    assert.equal(await ask(gate, token, { waitUntil: () => {} }), SUBJECT);
    globalThis.fetch = fetch;
    assert.equal(await ask(gate, token), SUBJECT, 'the driver may be alive');
    Date.now = () => realNow() + 10 * SECOND;
    now += 2 * SECOND;
    assert.equal(await ask(gate, token), 'revoked');
  } finally {
    globalThis.fetch = fetch;
    Date.now = realNow;
  }
});

test('parallel requests on a cold gate fetch the bundle once, and none is refused', async () => {
  const gate = gateOf();
  const tokens = Array.from({ length: 100 }, () => ed.token(now));
  const answers = await Promise.all(tokens.map((token) => ask(gate, token)));
  assert.deepEqual(new Set(answers), new Set([SUBJECT]));
  assert.equal(control.asked.manifest, 1);
});

test('without a bundle every request is refused, and the first bundle opens the gate', async () => {
  const { signed } = control;
  control.fault = () => undefined;
  const gate = gateOf();
  assert.deepEqual(await Promise.all(Array.from({ length: 10 }, () => ask(gate, ed.token(now)))), Array(10).fill('bundle_missing'));
  assert.match(log.join('\n'), /control_plane_unreachable/);
  control.fault = (_kind, body) => body;
  control.signed = signed;
  now += SECOND;
  assert.equal(await ask(gate, ed.token(now)), SUBJECT);
});

test('forged, truncated, foreign, older and malformed responses never replace the bundle', async () => {
  const gate = gateOf();
  const token = ed.token(now);
  const revoked = ed.token(now);
  const older = control.signed;
  await revoke(revoked);
  assert.equal(await ask(gate, revoked), 'revoked');
  const { version } = gate;
  const newest = control.signed;
  const faults = {
    'a flipped bit': (kind, body) => (kind === 'manifest' ? flipped(body) : body),
    'a cut manifest': (kind, body) => (kind === 'manifest' ? body.subarray(0, body.length >> 1) : body),
    'a cut object': (kind, body) => (kind === 'object' ? body.subarray(0, body.length - 1) : body),
    'a flipped bit in an object': (kind, body) => (kind === 'object' ? flipped(body) : body),
    'an object that is too long': (kind, body) => (kind === 'object' ? Buffer.concat([body, Buffer.alloc(100_000)]) : body),
    'no manifest': (kind, body) => (kind === 'manifest' ? Buffer.from('<html>') : body),
    'an empty body': () => Buffer.alloc(0),
    'an error': () => 500,
    'no response': () => undefined,
  };
  for (const [name, fault] of Object.entries(faults)) {
    await publish({ keys: KEYS, secrets: SECRETS, fill: 10 });
    control.fault = fault;
    now += 11 * SECOND;
    assert.equal(await ask(gate, token), SUBJECT, name);
    assert.equal(await ask(gate, revoked), 'revoked', name);
    assert.equal(gate.version, version, name);
  }
  control.fault = (_kind, body) => body;
  for (const [name, served] of [
    ['an older version', older],
    ['a foreign root', await forge.sign({ now, foreign: true })],
    ['a manifest of the future', await forge.sign({ now: now + 10 * MINUTE })],
  ]) {
    control.signed = served;
    now += 11 * SECOND;
    assert.equal(await ask(gate, revoked), 'revoked', name);
    assert.equal(gate.version, version, name);
  }
  control.signed = newest;
  await publish();
  now += 11 * SECOND;
  assert.equal(await ask(gate, token), SUBJECT);
  assert.ok(gate.version > version, log.join('\n'));
  assert.match(log.join('\n'), /the refresh works again/);
});

test('a stale bundle is used for the outage grace, refuses what it names, and then everything', async () => {
  const gate = gateOf();
  const revoked = ed.token(now);
  await revoke(revoked);
  assert.equal(await ask(gate, revoked), 'revoked');
  control.fault = () => undefined;
  now += 61 * SECOND;
  const decision = await gate.check(requestOf(ed.token(now)));
  assert.deepEqual([decision.outcome, decision.isStale], ['admit', true]);
  assert.equal(await ask(gate, revoked), 'revoked');
  now += 15 * MINUTE;
  assert.equal(await ask(gate, ed.token(now)), 'bundle_stale');
  assert.equal(await ask(gate, revoked), 'revoked');
  assert.match(log.join('\n'), /no fresh bundle for/);
  // Requests do not make the gate try more often than the core permits.
  const before = control.asked.manifest;
  await Promise.all(Array.from({ length: 20 }, () => ask(gate, ed.token(now))));
  for (let sent = 0; sent < 20; sent += 1) {
    await ask(gate, ed.token(now));
  }
  assert.ok(control.asked.manifest - before <= 1, `${control.asked.manifest - before} requests`);
  control.fault = (_kind, body) => body;
  await publish();
  now += 11 * SECOND;
  assert.equal(await ask(gate, ed.token(now)), SUBJECT);
});

test('a long poll brings a revocation without a request, and close ends it', async () => {
  const gate = gateOf({ refresh: 'long-poll' });
  const token = ed.token(now);
  assert.equal(await ask(gate, token), SUBJECT);
  await revoke(token);
  const { version } = control.signed;
  await eventually('the revocation arrives', () => gate.version === version);
  assert.equal(await ask(gate, token), 'revoked');
  gate.close();
  await publish();
  assert.equal(await ask(gate, token), 'revoked');
  assert.equal(gate.version, version);
});

test('a trap discards the instance, refuses the request, and keeps the bundle', async () => {
  const gates = [gateOf(), gateOf()];
  const [good, revoked] = [es.token(now), ed.token(now)];
  await revoke(revoked);
  for (const gate of gates) {
    assert.equal(await ask(gate, good), SUBJECT);
    assert.equal(await ask(gate, revoked), 'revoked');
  }
  control.fault = () => undefined;
  const versions = gates.map(({ version }) => version);
  for (let round = 0; round < 5; round += 1) {
    // A real trap: the memory of the instance cannot grow for this head.
    const { code, status, body } = await exhaustMemory(gates[round % 2], good);
    assert.deepEqual([code, status, body], ['host_error', 503, '']);
    for (const gate of gates) {
      assert.equal(await ask(gate, revoked), 'revoked');
      assert.equal(await ask(gate, good), SUBJECT);
      assert.equal(await ask(gate, undefined), 'credential_missing');
    }
  }
  assert.deepEqual(gates.map(({ version }) => version), versions);
  assert.match(log.join('\n'), /cannot be checked/);
});

test('a bundle is exported and loaded, and does not undo what came later', async () => {
  const [first, later] = [ed.token(now), ed.token(now)];
  await revoke(first);
  const gate = gateOf();
  assert.equal(await ask(gate, first), 'revoked');
  const bundle = gate.exportBundle();
  assert.equal(gateOf().exportBundle(), undefined);
  await revoke(later);
  // The control plane is there: what is newer is fetched before the first decision, and only that.
  const before = control.asked.object;
  const warm = gateOf({ bundle });
  assert.equal(await ask(warm, later), 'revoked');
  assert.equal(await ask(warm, first), 'revoked');
  assert.ok(control.asked.object - before < Object.keys(control.signed.objects).length);
  // It is not: the bundle decides, as long as the policy permits.
  control.fault = () => undefined;
  const alone = gateOf({ bundle: async () => bundle });
  assert.equal(await ask(alone, first), 'revoked');
  assert.equal(await ask(alone, ed.token(now)), SUBJECT);
  for (const bad of ['', '!', bundle.slice(0, -4), `${bundle.slice(0, 50)}AAAA${bundle.slice(54)}`]) {
    assert.equal(await ask(gateOf({ bundle: bad }), ed.token(now)), 'bundle_missing');
  }
  // In the policy.
  const { control_plane: _, ...policy } = forge.policy;
  const inline = createGate({ policy: { ...policy, bundle }, now: () => now });
  assert.equal(await ask(inline, first), 'revoked');
  assert.equal(await ask(inline, ed.token(now)), SUBJECT);
});

test('objects come from the cache, and one that was changed there is fetched again', async () => {
  const stored = new Map();
  const cache = {
    match: async (url) => stored.get(url)?.clone(),
    put: async (url, response) => void stored.set(url, response),
    delete: async (url) => stored.delete(url),
  };
  assert.equal(await ask(gateOf({ cache }), ed.token(now)), SUBJECT);
  assert.ok(stored.size > 0);
  assert.ok([...stored.keys()].every((url) => url.includes('/edge/v1/objects/')), 'symmetric keys are never cached');
  const before = control.asked.object;
  assert.equal(await ask(gateOf({ cache }), hs.token(now)), SUBJECT);
  assert.equal(control.asked.object, before);
  for (const url of stored.keys()) {
    stored.set(url, new Response('changed'));
  }
  const gate = gateOf({ cache });
  await eventually('the objects are fetched again', async () => {
    now += SECOND;
    return (await ask(gate, ed.token(now))) === SUBJECT;
  });
});

test('a token that names a key that the bundle lacks is reported, at most once in five seconds', async () => {
  const issuers = [{ issuer: 'https://idp.example.com', audiences: ['api'] }];
  const gate = gateOf({}, { issuers });
  const foreign = new Signer('EdDSA', 'new', 'https://idp.example.com');
  for (let sent = 0; sent < 3; sent += 1) {
    assert.equal(await ask(gate, foreign.token(now)), 'token_key_unknown');
  }
  assert.deepEqual(control.asked.missingKeys, [fingerprint('https://idp.example.com')]);
  await publish({ keys: [...KEYS, foreign.key], secrets: SECRETS });
  now += 2 * SECOND;
  assert.equal(await ask(gate, foreign.token(now)), `https://idp.example.com#${SUBJECT}`);
});

test('a day of refreshes with revocations does not make the gate grow', async () => {
  await publish({ lifetime_ms: 5 * MINUTE });
  const gate = gateOf();
  const kept = ed.token(now, { exp: now / 1000 + 200_000 });
  const sizes = [];
  for (let minute = 1; minute <= 24 * 60; minute += 1) {
    const revoked = minute % 5 === 0 ? [ed.token(now)] : [];
    await publish({ lifetime_ms: 5 * MINUTE, revoke: revoked.map(fingerprint), renew: revoked.length === 0 });
    now += MINUTE;
    assert.equal(await ask(gate, kept), SUBJECT);
    for (const token of revoked) {
      assert.equal(await ask(gate, token), 'revoked');
    }
    if (minute % 240 === 0) {
      sizes.push([glue.initSync().memory.buffer.byteLength, gate.exportBundle().length]);
    }
  }
  const [[firstMemory, firstBundle], [lastMemory, lastBundle]] = [sizes[0], sizes.at(-1)];
  // 240 more revocations take some bytes each.
  assert.ok(lastMemory - firstMemory <= 2 * 65_536 && lastBundle - firstBundle < 10_000, JSON.stringify(sizes));
  assert.deepEqual(log, []);
});

function flipped(bytes) {
  const changed = Buffer.from(bytes);
  changed[changed.length >> 1] ^= 1;
  return changed;
}

/** Makes the memory of the instance as large as it can be, and sends a head for which it is too small. */
function exhaustMemory(gate, token) {
  const { memory } = glue.initSync();
  for (const pages of [4096, 256, 16, 1]) {
    try {
      for (;;) {
        memory.grow(pages);
      }
    } catch {
      // The maximum is less than `pages` away.
    }
  }
  const headers = [['authorization', `Bearer ${token}`], ['x-large', 'a'.repeat(16 << 20)]];
  return gate.checkHead({ method: 'GET', path: '/', headers });
}
