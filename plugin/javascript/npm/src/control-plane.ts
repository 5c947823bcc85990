// Requests to the control plane. What to fetch, and when, is for the core to decide.
import type { ControlPlaneRequest } from './core-types.js';
import type { ControlPlane, ObjectCache } from './types.js';

/** The time for a response to arrive, in addition to the time for which the control plane may hold the request. */
const RESPONSE_TIMEOUT_MS = 5000;

/** An error response of the control plane has some hundred bytes. */
const MAX_ERROR_BYTES = 4096;

const MISSING_KEYS_HEADER = 'x-keystile-missing-keys';

const EMPTY = new Uint8Array();

export interface ControlPlaneResponse {
  /** 0 if there is none. */
  readonly status: number;
  readonly body: Uint8Array;
  /** The response is in the cache already. */
  readonly isCached: boolean;
}

const NO_RESPONSE: ControlPlaneResponse = { status: 0, body: EMPTY, isCached: false };

export class ControlPlaneClient {
  readonly #base: string;
  readonly #authorization: string | undefined;
  readonly #fetch: NonNullable<ControlPlane['fetch']>;
  readonly #cache: ObjectCache | undefined;
  readonly #open = new Set<AbortController>();

  constructor(options: ControlPlane, cache: ObjectCache | null | undefined) {
    const url = new URL(options.url);
    if (url.protocol !== 'https:' && url.protocol !== 'http:') {
      throw new TypeError('controlPlane.url must be an http or https URL');
    }
    this.#base = url.href.replace(/\/$/, '');
    this.#authorization = options.credential === undefined ? undefined : `Bearer ${options.credential}`;
    // Called without `this`, as platforms demand of the global function.
    const custom = options.fetch;
    this.#fetch = custom === undefined ? (input, init) => fetch(input, init) : (input, init) => custom(input, init);
    this.#cache = cache === undefined ? platformCache() : (cache ?? undefined);
  }

  /** Sends a request. A failure is no response. */
  async send(request: ControlPlaneRequest): Promise<ControlPlaneResponse> {
    const cached = await this.#cached(request);
    return cached ?? (await this.#send(request, {}));
  }

  /** Reports an issuer whose tokens named a key that the bundle lacks. The response is ignored. */
  async reportMissingKey(issuer: string): Promise<void> {
    const request = { path: '/edge/v1/manifest', etag: null, waitSeconds: 0, maxBytes: MAX_ERROR_BYTES };
    await this.#send(request, { [MISSING_KEYS_HEADER]: issuer });
  }

  /** Stores an object that the core accepted. */
  async store(request: ControlPlaneRequest, body: Uint8Array): Promise<void> {
    const headers = { 'cache-control': 'public, max-age=31536000, immutable' };
    try {
      await this.#cache?.put(this.#base + request.path, new Response(body as BodyInit, { headers }));
    } catch {
      // The object is fetched again next time.
    }
  }

  /** Removes an object that the core refused. */
  async drop(request: ControlPlaneRequest): Promise<void> {
    try {
      await this.#cache?.delete(this.#base + request.path);
    } catch {
      // It is refused again.
    }
  }

  /** Ends all requests. */
  close(): void {
    for (const controller of this.#open) {
      controller.abort();
    }
  }

  async #cached(request: ControlPlaneRequest): Promise<ControlPlaneResponse | undefined> {
    if (this.#cache === undefined || !request.isPublic) {
      return undefined;
    }
    try {
      const response = await this.#cache.match(this.#base + request.path);
      if (response === undefined) {
        return undefined;
      }
      return { status: 200, body: await readBody(response, request.maxBytes), isCached: true };
    } catch {
      return undefined;
    }
  }

  async #send(
    request: Pick<ControlPlaneRequest, 'path' | 'etag' | 'waitSeconds' | 'maxBytes'>,
    more: Readonly<Record<string, string>>,
  ): Promise<ControlPlaneResponse> {
    const headers: Record<string, string> = { ...more, prefer: `wait=${request.waitSeconds}` };
    if (this.#authorization !== undefined) {
      headers.authorization = this.#authorization;
    }
    if (request.etag !== null) {
      headers['if-none-match'] = request.etag;
    }
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), request.waitSeconds * 1000 + RESPONSE_TIMEOUT_MS);
    this.#open.add(controller);
    try {
      const response = await this.#fetch(this.#base + request.path, {
        headers,
        // The credential must not follow a redirect.
        redirect: 'manual',
        signal: controller.signal,
      });
      const { status } = response;
      return { status, body: await readBody(response, status === 200 ? request.maxBytes : MAX_ERROR_BYTES), isCached: false };
    } catch {
      return NO_RESPONSE;
    } finally {
      clearTimeout(timer);
      this.#open.delete(controller);
    }
  }
}

/** Reads at most `maxBytes`. The core refuses an object that was cut. */
async function readBody(response: Response, maxBytes: number): Promise<Uint8Array> {
  if (response.body === null) {
    return EMPTY;
  }
  const reader = response.body.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    chunks.push(value);
    size += value.length;
    if (size >= maxBytes) {
      // Not awaited: of a copied response, it waits for the other copy.
      reader.cancel().catch(() => {});
      break;
    }
  }
  const body = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body.length > maxBytes ? body.slice(0, maxBytes) : body;
}

/** Returns `caches.default`, which Cloudflare's Workers have. */
function platformCache(): ObjectCache | undefined {
  const { caches } = globalThis as { caches?: { default?: ObjectCache } };
  return caches?.default;
}
