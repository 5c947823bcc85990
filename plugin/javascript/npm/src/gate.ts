// The gate.
import { ControlPlaneClient } from './control-plane.js';
import { CoreHandle } from './core-handle.js';
import type { Edit, Outcome, RefusalView, SignatureView } from './core-types.js';
import { type Head, type UrlParts, applyEdit, headOf, headOfRequest, splitUrl } from './head.js';
import { CoreFailure, start } from './instance.js';
import { type Log, Refresher } from './refresher.js';
import { SignatureVerifier } from './signatures.js';
import {
  type Admitted,
  type CheckOptions,
  type Claims,
  type Decision,
  type Forwarded,
  type Gate,
  type GateOptions,
  type HeadDecision,
  type Identity,
  KeystileError,
  type LogLevel,
  type Passed,
  type Refused,
  type RequestHead,
  type SignatureCrypto,
  type Verified,
  type VerifyOptions,
} from './types.js';

/** How a platform loads the core, and whether it can keep a request to the control plane open. */
export interface Runtime {
  readonly module: WebAssembly.Module | undefined;
  readonly refresh: 'long-poll' | 'poll';
}

/** The maximum of `wait_seconds` of the policy. */
const MAX_WAIT_SECONDS = 30;

/** The key can change while its signature is verified. */
const MAX_SIGNATURES = 3;

/** The code of a token that names a key that the bundle lacks. */
const MISSING_KEY_CODE = 'token_key_unknown';

/** How often the freshness of the bundle is looked at for the log. */
const FRESHNESS_LOG_INTERVAL_MS = 1000;

/** What a host of the filter answers if it does not provide what the filter needs. */
const HOST_ERROR: Refused = {
  outcome: 'refuse',
  code: 'host_error',
  status: 503,
  message: 'the request cannot be checked',
  headers: [['cache-control', 'no-store']],
  body: '',
};

/** Creates a gate. Call it once, outside of the handler of requests. */
export function createGateOn(runtime: Runtime, options: GateOptions): Gate {
  const module = (options.module as WebAssembly.Module | undefined) ?? runtime.module;
  if (module === undefined) {
    throw new TypeError('this platform needs the option `module`: the compiled core/core_bg.wasm');
  }
  start(module);
  return new KeystileGate(runtime, options);
}

/** Asks the core again with the answer of WebCrypto to its question. The first time, there is none. */
type Ask = (question: number, answer: boolean | undefined) => string;

class KeystileGate implements Gate {
  readonly #core: CoreHandle;
  readonly #refresher: Refresher | undefined;
  readonly #signatures: SignatureVerifier | undefined;
  readonly #now: () => number;
  readonly #log: Log;
  #isPolicyBundleLoaded = false;
  #freshnessLoggedAt = Number.NEGATIVE_INFINITY;

  constructor(runtime: Runtime, options: GateOptions) {
    this.#now = options.now ?? Date.now;
    this.#log = options.log ?? logToConsole;
    const platform: SignatureCrypto | undefined = globalThis.crypto?.subtle;
    const subtle = options.subtle === undefined ? platform : (options.subtle ?? undefined);
    this.#signatures = subtle === undefined ? undefined : new SignatureVerifier(subtle);
    const isLongPolling = (options.refresh ?? runtime.refresh) === 'long-poll';
    const policy = policyOf(options);
    this.#core = new CoreHandle({
      policy: policy.text,
      environment: environmentBlock(options.env),
      waitSeconds: isLongPolling ? MAX_WAIT_SECONDS : 0,
      offloadsSignatures: this.#signatures !== undefined,
      now: this.#now,
    });
    if (policy.hasBundle) {
      return;
    }
    if (options.controlPlane === undefined) {
      throw new TypeError('the option `controlPlane` is required, unless the policy has a `bundle`');
    }
    const { bundle } = options;
    this.#refresher = new Refresher({
      core: this.#core,
      client: new ControlPlaneClient(options.controlPlane, options.cache),
      isLongPolling,
      initialBundle: typeof bundle === 'string' ? () => Promise.resolve(bundle) : bundle,
      now: this.#now,
      log: this.#log,
    });
  }

  get version(): number {
    return this.#core.status.version;
  }

  async check(request: Request, options?: CheckOptions): Promise<Decision> {
    try {
      const url = splitUrl(request.url);
      const head = headOfRequest(request, url);
      const pending = this.#decide(head, options ?? {}, { request, url });
      const decision = pending instanceof Promise ? await pending : pending;
      return decision.outcome === 'refuse' ? { ...decision, response: responseOf(decision) } : decision;
    } catch (error) {
      this.#reportFailure(error);
      return { ...HOST_ERROR, response: responseOf(HOST_ERROR) };
    }
  }

  async checkHead(head: RequestHead, options?: CheckOptions): Promise<HeadDecision> {
    try {
      return await this.#decide(headOf(head), options ?? {}, undefined);
    } catch (error) {
      this.#reportFailure(error);
      return HOST_ERROR;
    }
  }

  async verify(credential: string, options: VerifyOptions = {}): Promise<Verified> {
    const { username = '', apiKey = '' } = options;
    let outcome: Outcome;
    try {
      await this.#prepare(options);
      const ask: Ask = (question, answer) =>
        this.#core.call((core) => core.verify(credential, username, apiKey, this.#now(), question, answer));
      outcome = await this.#settle(ask);
    } catch (error) {
      this.#reportFailure(error);
      throw new KeystileError(HOST_ERROR.code, HOST_ERROR.status, HOST_ERROR.message);
    }
    if (outcome.outcome === 'admit') {
      return { identity: outcome.identity, claims: claimsOf(credential) };
    }
    const { code, status, message } = outcome.outcome === 'refuse' ? outcome : HOST_ERROR;
    await this.#reportMissingKey(code, options);
    throw new KeystileError(code, status, message);
  }

  async refresh(): Promise<void> {
    this.#core.seed();
    await this.#refresher?.refresh();
  }

  exportBundle(): string | undefined {
    return this.#core.exportText();
  }

  close(): void {
    this.#refresher?.close();
  }

  /** Decides without a promise if nothing has to be waited for, as for a known credential. */
  #decide(head: Head, options: CheckOptions, source: Source | undefined): Concluded | Promise<Concluded> {
    const waiting = this.#prepare(options);
    return waiting === undefined
      ? this.#decideNow(head, options, source)
      : waiting.then(() => this.#decideNow(head, options, source));
  }

  #decideNow(head: Head, options: CheckOptions, source: Source | undefined): Concluded | Promise<Concluded> {
    const peer = options.clientAddress ?? '';
    const ask: Ask = (question, answer) =>
      this.#core.call((core) => core.decide(head.text, head.count, peer, this.#now(), question, answer));
    const outcome = JSON.parse(ask(0, undefined)) as Outcome;
    return outcome.outcome === 'signature'
      ? this.#verifySignatures(outcome, ask).then((verified) => this.#conclude(verified, head, options, source))
      : this.#conclude(outcome, head, options, source);
  }

  #conclude(
    outcome: Outcome,
    head: Head,
    options: CheckOptions,
    source: Source | undefined,
  ): Concluded | Promise<Concluded> {
    switch (outcome.outcome) {
      case 'admit': {
        const { identity, code, isStale, edit } = outcome;
        return new AdmittedDecision(this.#core, head, source, edit, identity, code, isStale);
      }
      case 'pass':
        return new PassedDecision(head, source, outcome.edit, outcome.reason, outcome.code);
      case 'refuse': {
        const refused = refusedOf(outcome);
        return this.#reportMissingKey(outcome.code, options)?.then(() => refused) ?? refused;
      }
      default:
        return HOST_ERROR;
    }
  }

  /** Makes the core ready to decide. Returns a promise only if the request has to wait. */
  #prepare(options: CheckOptions): Promise<void> | undefined {
    this.#core.seed();
    if (this.#refresher !== undefined) {
      const waiting = this.#refresher.prepare(options);
      this.#logFreshness();
      return waiting;
    }
    if (!this.#isPolicyBundleLoaded) {
      this.#core.loadPolicyBundle();
      this.#isPolicyBundleLoaded = true;
    }
    this.#logFreshness();
    return undefined;
  }

  async #settle(ask: Ask): Promise<Outcome> {
    const outcome = JSON.parse(ask(0, undefined)) as Outcome;
    return outcome.outcome === 'signature' ? this.#verifySignatures(outcome, ask) : outcome;
  }

  /** Verifies what the core asks for, and asks it again. Every answer counts only for the very question. */
  async #verifySignatures(question: SignatureView, ask: Ask): Promise<Outcome> {
    let view = question;
    for (let verified = 0; verified < MAX_SIGNATURES; verified += 1) {
      // Nothing else has called the core since it asked.
      const parts = this.#core.call((core) => core.last_question()) as Uint8Array<ArrayBuffer>;
      const answer = await this.#signatures?.verify(view, parts, this.#core.generation);
      const outcome = JSON.parse(ask(view.number, answer)) as Outcome;
      if (outcome.outcome !== 'signature') {
        return outcome;
      }
      view = outcome;
    }
    return { outcome: 'host_error' };
  }

  #reportMissingKey(code: string, options: CheckOptions): Promise<void> | undefined {
    return code === MISSING_KEY_CODE ? this.#refresher?.reportMissingKey(options) : undefined;
  }

  #logFreshness(): void {
    const now = this.#now();
    if (Math.abs(now - this.#freshnessLoggedAt) < FRESHNESS_LOG_INTERVAL_MS || this.version === 0) {
      return;
    }
    this.#freshnessLoggedAt = now;
    const lines = JSON.parse(this.#core.call((core) => core.freshness_log(now))) as [LogLevel, string][];
    for (const [level, text] of lines) {
      this.#log(level, `keystile: ${text}`);
    }
  }

  /** Logs a failure of the core or of the platform. It never names a credential: the message is not of the request. */
  #reportFailure(error: unknown): void {
    const why = error instanceof CoreFailure ? error.message : error instanceof Error ? error.name : 'unknown error';
    this.#log('error', `keystile: a request is refused, because it cannot be checked: ${why}`);
  }
}

/** Where a request came from, to make one with other headers. */
interface Source {
  readonly request: Request;
  readonly url: UrlParts;
}

type Concluded = AdmittedDecision | PassedDecision | Refused;

/** Makes what an upstream may receive when it is read. */
class Forwardable {
  readonly #head: Head;
  readonly #source: Source | undefined;
  readonly #edit: Edit;
  #forwarded: Forwarded | undefined;
  #request: Request | undefined;

  constructor(head: Head, source: Source | undefined, edit: Edit) {
    this.#head = head;
    this.#source = source;
    this.#edit = edit;
  }

  get forwarded(): Forwarded {
    this.#forwarded ??= applyEdit(this.#head, this.#edit);
    return this.#forwarded;
  }

  get request(): Request {
    if (this.#source === undefined) {
      throw new TypeError('checkHead has no request');
    }
    this.#request ??= this.#makeRequest(this.#source);
    return this.#request;
  }

  #makeRequest({ request, url }: Source): Request {
    const { path, headers } = this.forwarded;
    const list = headers as [string, string][];
    try {
      const target = path === url.path ? request : new Request(url.origin + path, request);
      return new Request(target, { headers: list });
    } catch {
      // A proxy, as itty-router makes one, is not a request for the platform.
      const { method, body, signal, redirect } = request;
      const init = { method, headers: list, body, signal, redirect, duplex: 'half' };
      return new Request(url.origin + path, init as RequestInit);
    }
  }
}

class AdmittedDecision extends Forwardable implements Admitted {
  readonly outcome = 'admit';
  readonly identity: Identity;
  readonly code: string | undefined;
  readonly isStale: boolean;
  readonly #credential: () => string | undefined;
  #claims: Claims | undefined;

  constructor(
    core: CoreHandle,
    head: Head,
    source: Source | undefined,
    edit: Edit,
    identity: Identity,
    code: string | undefined,
    isStale: boolean,
  ) {
    super(head, source, edit);
    this.identity = identity;
    this.code = code;
    this.isStale = isStale;
    this.#credential = () => core.call((core) => core.credential(head.text, head.count, identity.fingerprint));
  }

  get claims(): Claims | undefined {
    this.#claims ??= claimsOf(this.#credential() ?? '');
    return this.#claims;
  }
}

class PassedDecision extends Forwardable implements Passed {
  readonly outcome = 'pass';
  readonly reason: Passed['reason'];
  readonly code: string | undefined;

  constructor(
    head: Head,
    source: Source | undefined,
    edit: Edit,
    reason: Passed['reason'],
    code: string | undefined,
  ) {
    super(head, source, edit);
    this.reason = reason;
    this.code = code;
  }
}

function refusedOf(view: RefusalView): Refused {
  const { code, status, message, headers, body, identity } = view;
  return { outcome: 'refuse', code, status, message, headers, body, identity };
}

function responseOf({ status, headers, body }: Refused): Response {
  return new Response(body === '' ? null : body, { status, headers: headers as [string, string][] });
}

/** Returns the claims of a token that the core has verified, or `undefined` for an API key. */
function claimsOf(token: string): Claims | undefined {
  const payload = token.split('.')[1];
  if (payload === undefined) {
    return undefined;
  }
  const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes)) as Claims;
}

function policyOf(options: GateOptions): { text: string; hasBundle: boolean } {
  if (typeof options.policy === 'string') {
    return { text: options.policy, hasBundle: hasMember(options.policy, 'bundle') };
  }
  const hasBundle = 'bundle' in options.policy;
  const named = hasBundle || 'control_plane' in options.policy;
  // The filter needs the name of a cluster there.
  const policy = named ? options.policy : { ...options.policy, control_plane: { cluster: 'fetch' } };
  return { text: JSON.stringify(policy), hasBundle };
}

/** Returns false also for a text that is not JSON, which the core refuses. */
function hasMember(json: string, name: string): boolean {
  try {
    return name in (JSON.parse(json) as object);
  } catch {
    return false;
  }
}

/** Returns the variables as the core reads them. A value with a zero byte would end early. */
function environmentBlock(env: GateOptions['env']): string {
  const entries = Object.entries(env ?? {}).filter(([, value]) => typeof value === 'string' && !value.includes('\0'));
  return entries.map(([name, value]) => `${name}=${value}\0`).join('');
}

function logToConsole(level: LogLevel, message: string): void {
  console[level](message);
}
