// What the tests share: a control plane that can misbehave, tokens, and the JavaScript runtimes.
import { execFile, spawn } from 'node:child_process';
import { createHash, createHmac, createPrivateKey, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

/** The folder of the workspace. */
export const ROOT = process.env.KEYSTILE_ROOT;
export const TOOLS = `${ROOT}/target/tools/npm-test`;
export const BIN = `${TOOLS}/node_modules/.bin`;
export const ISSUER = 'https://keystile.test';

/** Nothing in the tests takes as long, so a test that waits for longer has failed. */
const DEADLINE_MS = 60_000;

/** PKCS #8 of an Ed25519 key, up to its seed (RFC 8410 section 7). */
const ED25519_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');

export const base64url = (bytes) => Buffer.from(bytes).toString('base64url');
export const fingerprint = (credential) => createHash('sha256').update(credential).digest('hex');

/** Waits until `condition` returns a value, and returns it. */
export async function eventually(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  let last;
  while (Date.now() < deadline) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) {
        return value;
      }
    } catch (error) {
      last = error;
    }
    await sleep(20);
  }
  throw new Error(`${what}: not within ${DEADLINE_MS} ms`, { cause: last });
}

/** A key that signs tokens. `local` keys are those of the deployment. */
export class Signer {
  constructor(alg, kid, issuer = undefined) {
    this.alg = alg;
    this.kid = kid;
    this.issuer = issuer;
    switch (alg) {
      case 'HS256':
        this.secret = Buffer.alloc(32, kid);
        break;
      case 'EdDSA': {
        const seed = createHash('sha256').update(kid).digest();
        this.private = createPrivateKey({ key: Buffer.concat([ED25519_PREFIX, seed]), format: 'der', type: 'pkcs8' });
        break;
      }
      case 'ES256':
        this.private = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
        break;
      case 'ES512':
        this.private = generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
        break;
      default:
        this.private = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    }
  }

  /** The key as the forge takes it. */
  get key() {
    const jwk = this.private.export({ format: 'jwk' });
    const bytes = (text) => Buffer.from(text, 'base64url');
    const material = { OKP: () => bytes(jwk.x), EC: () => Buffer.concat([bytes(jwk.x), bytes(jwk.y)]), RSA: () => Buffer.concat([Buffer.from([0, 1, 0, 1]), bytes(jwk.n)]) };
    return { issuer: this.issuer, kid: this.kid, alg: this.alg, bytes: base64url(material[jwk.kty]()) };
  }

  signature(message) {
    const hash = `sha${this.alg.slice(2)}`;
    switch (this.alg.slice(0, 2)) {
      case 'HS':
        return createHmac(hash, this.secret).update(message).digest();
      case 'Ed':
        return sign(null, message, this.private);
      case 'ES':
        return sign(hash, message, { key: this.private, dsaEncoding: 'ieee-p1363' });
      case 'PS':
        return sign(hash, message, { key: this.private, padding: 6, saltLength: Number(this.alg.slice(2)) / 8 });
      default:
        return sign(hash, message, this.private);
    }
  }

  /** Returns a token that is valid for an hour, another one at each call. `now` is in milliseconds. */
  token(now = Date.now(), claims = {}) {
    const seconds = Math.floor(now / 1000);
    const all = {
      iss: this.issuer ?? ISSUER,
      sub: 'OP0000000001',
      aud: 'api',
      iat: seconds - 10,
      exp: seconds + 3600,
      jti: randomUUID().replaceAll('-', ''),
      operator: { operatorId: 'OP0000000001' },
      ...claims,
    };
    const header = { alg: this.alg, kid: this.kid, typ: 'JWT' };
    const message = [header, all].map((part) => base64url(JSON.stringify(part))).join('.');
    return `${message}.${base64url(this.signature(Buffer.from(message)))}`;
  }
}

/** Signs bundles, by target/debug/forge. */
export class Forge {
  static async start() {
    const forge = new Forge();
    forge.process = spawn(`${ROOT}/target/debug/forge`, { stdio: ['pipe', 'pipe', 'inherit'] });
    forge.lines = createInterface({ input: forge.process.stdout })[Symbol.asyncIterator]();
    forge.policy = JSON.parse(await forge.#line());
    return forge;
  }

  async #line() {
    const { value, done } = await this.lines.next();
    if (done) {
      throw new Error('the forge has ended');
    }
    return value;
  }

  async sign(command) {
    this.process.stdin.write(`${JSON.stringify({ now: Date.now(), lifetime_ms: 60_000, ...command })}\n`);
    return JSON.parse(await this.#line());
  }

  stop() {
    this.process.stdin.end();
  }
}

/** A control plane that serves what the forge signed, and can misbehave. */
export class FakeControlPlane {
  /** The requests since the start, by kind. */
  asked = { manifest: 0, object: 0, keys: 0, missingKeys: [] };
  /** What it serves. */
  signed;
  /** Changes a response: `(kind, body) => body | undefined`; `undefined`: the connection ends without a response. */
  fault = (_kind, body) => body;
  #waiting = new Set();

  static async start(forge) {
    const control = new FakeControlPlane();
    control.forge = forge;
    control.server = createServer((request, response) => control.#serve(request, response));
    control.server.listen(0, '127.0.0.1');
    await once(control.server, 'listening');
    control.url = `http://127.0.0.1:${control.server.address().port}`;
    return control;
  }

  /** Signs and serves a newer version. */
  async publish(command = {}) {
    this.signed = await this.forge.sign(command);
    for (const wake of this.#waiting) {
      wake();
    }
    return this.signed;
  }

  /** Publishes the revocation of credentials. */
  revoke(...credentials) {
    return this.publish({ revoke: credentials.map(fingerprint) });
  }

  async stop() {
    this.server.close();
    this.server.closeAllConnections();
  }

  async #serve(request, response) {
    const url = new URL(request.url, this.url);
    const send = (kind, status, body, headers = {}) => {
      const changed = this.fault(kind, body);
      if (changed === undefined) {
        request.socket.destroy();
        return;
      }
      response.writeHead(changed === 500 ? 500 : status, headers).end(changed === 500 ? '' : changed);
    };
    if (request.headers.authorization !== 'Bearer edge-credential' && !url.pathname.startsWith('/edge/v1/objects/')) {
      response.writeHead(401).end();
      return;
    }
    if (url.pathname === '/edge/v1/manifest') {
      this.asked.manifest += 1;
      if (request.headers['x-keystile-missing-keys'] !== undefined) {
        this.asked.missingKeys.push(request.headers['x-keystile-missing-keys']);
      }
      const wait = Number(/wait=(\d+)/.exec(request.headers.prefer ?? '')?.[1] ?? 0) * 1000;
      const tag = () => this.signed && manifestTag(Buffer.from(this.signed.manifest, 'base64url'));
      const until = Date.now() + wait;
      while (tag() === request.headers['if-none-match'] && Date.now() < until) {
        await Promise.race([sleep(until - Date.now()), new Promise((wake) => this.#waiting.add(wake))]);
        this.#waiting.clear();
      }
      const served = this.signed;
      if (served === undefined || tag() === request.headers['if-none-match']) {
        send('unchanged', 304, '');
      } else {
        send('manifest', 200, Buffer.from(served.manifest, 'base64url'), { etag: tag() });
      }
      return;
    }
    const hash = url.searchParams.get('sha256') ?? url.pathname.slice('/edge/v1/objects/'.length);
    this.asked[url.searchParams.has('sha256') ? 'keys' : 'object'] += 1;
    const object = this.signed?.objects[hash];
    if (object === undefined) {
      response.writeHead(404).end();
      return;
    }
    send('object', 200, Buffer.from(object, 'base64url'), { 'cache-control': 'public, max-age=31536000, immutable' });
  }
}

/** `"VERSION-ISSUEDMS"`, from their positions in a manifest. */
function manifestTag(manifest) {
  return `"${manifest.readBigUInt64BE(12)}-${manifest.readBigUInt64BE(20)}"`;
}

/** Returns the port that a new server may use. */
export async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true));
    socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
  });
}

/** A control plane as it ships, with one edge and its own data folder. */
export class RealControlPlane {
  static async start() {
    const control = new RealControlPlane();
    control.folder = await mkdtemp(`${tmpdir()}/keystile-js-`);
    const port = await freePort();
    control.url = `http://127.0.0.1:${port}`;
    control.env = { KEYSTILE_SERVER__LISTEN: `127.0.0.1:${port}` };
    control.root = await control.cli(['init']);
    control.served = await Served.start(`${ROOT}/target/debug/keystile`, ['--data', control.folder, 'serve'], { port, env: control.env });
    await eventually('the control plane is ready', async () => (await fetch(`${control.url}/healthz`)).ok);
    const { credential, plugin_configuration: policy } = await control.cli(['edge', 'enroll', 'edge-1']);
    return Object.assign(control, { credential, policy });
  }

  async cli(args) {
    const { stdout } = await promisify(execFile)(`${ROOT}/target/debug/keystile`, ['--data', this.folder, '--json', ...args], {
      env: { ...process.env, ...this.env },
    });
    return JSON.parse(stdout);
  }

  /** Exchanges the AuthKey of the root user for another token. */
  async token() {
    const { auth_key_id: authKeyId, auth_key: authKey } = this.root;
    return (await (await this.#post('/v1/auth', { authKeyId, authKey })).json()).token;
  }

  /** Returns when the revocation is durable and published. */
  async revoke(token, admin) {
    await this.#post('/revocations', { token }, { authorization: `Bearer ${admin}` });
  }

  async #post(path, body, headers = {}) {
    const response = await fetch(this.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
    if (!response.ok) {
      throw new Error(`${path}: ${response.status} ${await response.text()}`);
    }
    return response;
  }

  async stop() {
    this.served.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A process that serves HTTP on a port. */
export class Served {
  static async start(command, args, { port, env = {}, cwd = TOOLS }) {
    const served = new Served();
    served.output = '';
    served.process = spawn(command, args, { cwd, env: { ...process.env, ...env, PORT: String(port) }, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [served.process.stdout, served.process.stderr]) {
      stream.on('data', (chunk) => (served.output += chunk));
    }
    let ended;
    served.process.on('exit', (code) => (ended = code ?? 'a signal'));
    served.url = `http://127.0.0.1:${port}`;
    try {
      // Without a request, which would have the application load the bundle.
      await eventually(`${command} serves`, () => ended ?? accepts(port));
    } catch (error) {
      served.stop();
      throw new Error(`${error.message}\n${served.output}`);
    }
    if (ended !== undefined) {
      throw new Error(`${command} ${args.join(' ')} has ended with ${ended}:\n${served.output}`);
    }
    return served;
  }

  stop() {
    this.process.kill('SIGKILL');
  }
}
