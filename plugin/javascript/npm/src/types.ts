/** What an authentic credential proves. */
export interface Identity {
  /** `OPERATOR/NAME`, or `ISSUER#SUBJECT` for a token of another issuer. */
  readonly subject: string;
  /** The operator that the subject belongs to. */
  readonly operator?: string;
  /** The id of the AuthKey that a token was exchanged for, or of an API key. */
  readonly keyId?: string;
  /** The id of the API key that the token was issued together with. */
  readonly session?: string;
  /** The issuer, if it is another one than this deployment. */
  readonly issuer?: string;
  /** In seconds since the Unix epoch; 0 if a token of another issuer has no `iat`. */
  readonly issuedAt: number;
  /** In seconds since the Unix epoch. */
  readonly expiresAt?: number;
  /** The SHA-256 of the credential as it was presented, in hexadecimal. */
  readonly fingerprint: string;
}

/** The claims of a token. The core has verified them. */
export type Claims = Readonly<Record<string, unknown>>;

/** The head of a request, for frameworks that do not use `Request`. */
export interface RequestHead {
  readonly method: string;
  /** The path with the query, as received. */
  readonly path: string;
  /** The host with the port, as received. */
  readonly authority?: string | undefined;
  /** All headers in the order received; a header that was sent twice is in the list twice. */
  readonly headers: Iterable<readonly [name: string, value: string]>;
}

/** What belongs to one request. `ctx` of a Worker or of Hono is one too. */
export interface CheckOptions {
  /** Lets the platform finish a refresh after the response. Without it, a request in which a refresh is due waits for it. */
  readonly waitUntil?: ((promise: Promise<unknown>) => void) | undefined;
  /** The IP address of the client, for conditions of permissions. */
  readonly clientAddress?: string | undefined;
}

/** The request as the upstream may receive it: without credential, with identity headers. */
export interface Forwarded {
  /** The path with the query. */
  readonly path: string;
  /** All headers, with names in lower case. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

/** The request has a valid credential. */
export interface Admitted {
  readonly outcome: 'admit';
  readonly identity: Identity;
  /** The claims of the token; `undefined` for an API key. Parsed when they are first read. */
  readonly claims: Claims | undefined;
  /** In report mode: why the request would be refused. */
  readonly code: string | undefined;
  /** Whether the bundle is stale, and the policy admits the credential all the same. */
  readonly isStale: boolean;
  readonly forwarded: Forwarded;
}

/** The request passes without an identity, because its rule is public or optional, or because of report mode. */
export interface Passed {
  readonly outcome: 'pass';
  readonly reason: 'public' | 'anonymous' | 'preflight' | 'reported';
  readonly identity?: undefined;
  readonly claims?: undefined;
  /** In report mode: why the request would be refused. */
  readonly code: string | undefined;
  readonly forwarded: Forwarded;
}

/** The request must not pass. */
export interface Refused {
  readonly outcome: 'refuse';
  /** The stable code, the same as at every other edge. */
  readonly code: string;
  readonly status: number;
  readonly message: string;
  /** The identity, if the credential is authentic. For logs only. */
  readonly identity?: Identity | undefined;
  /** The headers and the body of the response. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

/** The decision about a request head. */
export type HeadDecision = Admitted | Passed | Refused;

/** The decision about a `Request`: only a request that may pass has a `request`, and only a refused one a `response`. */
export type Decision =
  | (Admitted & { readonly request: Request })
  | (Passed & { readonly request: Request })
  | (Refused & { readonly response: Response });

/** What {@link Gate.verify} returns. */
export interface Verified {
  readonly identity: Identity;
  /** The claims of the token; `undefined` for an API key. */
  readonly claims: Claims | undefined;
}

/** What accompanies a credential. */
export interface VerifyOptions extends CheckOptions {
  /** The user that an API key belongs to. */
  readonly username?: string;
  /** The API key that a token was issued together with, for a policy that demands the pair. */
  readonly apiKey?: string;
}

/** A part of the Cache API. */
export interface ObjectCache {
  match(url: string): Promise<Response | undefined>;
  put(url: string, response: Response): Promise<void>;
  delete(url: string): Promise<boolean>;
}

/** A part of `SubtleCrypto`, whose type not every platform declares. */
export interface SignatureCrypto {
  importKey(format: 'spki', key: Uint8Array<ArrayBuffer>, algorithm: any, extractable: false, usages: ['verify']): Promise<any>;
  verify(algorithm: any, key: any, signature: Uint8Array<ArrayBuffer>, message: Uint8Array<ArrayBuffer>): Promise<boolean>;
}

/** The control plane from which the bundle comes. */
export interface ControlPlane {
  /** Its URL, such as `https://keystile.example.com`. */
  readonly url: string;
  /** The credential of this edge, as `keystile edge enroll` prints it. Leave it out if `fetch` adds it. */
  readonly credential?: string | undefined;
  /** Replaces the global `fetch`, for example by that of a service binding. */
  readonly fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
}

export type LogLevel = 'info' | 'warn' | 'error';

export interface GateOptions {
  /** The policy, the same as for the filter. `control_plane` may be left out of an object. */
  readonly policy: string | object;
  /** Where the bundle comes from, unless the policy has a `bundle`. */
  readonly controlPlane?: ControlPlane | undefined;
  /**
   * A bundle to begin with, as `exportBundle` and `keystile bundle export` write it. An isolate then downloads only what is
   * newer, and can decide while the control plane is unreachable.
   */
  readonly bundle?: string | (() => Promise<string | null | undefined>) | undefined;
  /**
   * `long-poll` (Node, Deno, Bun): one request to the control plane is always open. `poll` (elsewhere): requests of clients
   * trigger a refresh when the bundle was last looked for two seconds ago.
   */
  readonly refresh?: 'long-poll' | 'poll' | undefined;
  /** Where objects of the bundle are cached, by default `caches.default` if the platform has it. `null`: nowhere. */
  readonly cache?: ObjectCache | null | undefined;
  /** The variables that `*_env` members of the policy name. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Verifies ECDSA and RSA signatures, by default the WebCrypto of the platform. `null`: the core does. */
  readonly subtle?: SignatureCrypto | null | undefined;
  /** The clock in milliseconds since the Unix epoch, for tests. */
  readonly now?: (() => number) | undefined;
  /** Receives what an operator should know, by default `console`. It never receives a credential. */
  readonly log?: ((level: LogLevel, message: string) => void) | undefined;
  /** The `WebAssembly.Module` made from `core/core_bg.wasm`, for a platform whose way of loading it the package does not know. */
  readonly module?: object | undefined;
}

/** Decides about requests. */
export interface Gate {
  /** The version of the bundle in use; 0 without one. */
  readonly version: number;
  /** Decides about a request. It never rejects: any failure refuses the request. */
  check(request: Request, options?: CheckOptions): Promise<Decision>;
  /** Decides about the head of a request, for frameworks without `Request`. */
  checkHead(head: RequestHead, options?: CheckOptions): Promise<HeadDecision>;
  /**
   * Verifies a credential without a request and without rules.
   *
   * @throws {KeystileError} with the code of the refusal
   */
  verify(credential: string, options?: VerifyOptions): Promise<Verified>;
  /** Fetches what is newer now, for a cron trigger. */
  refresh(): Promise<void>;
  /** Returns the bundle in use, for the option `bundle`. It contains symmetric keys, if the deployment has any. */
  exportBundle(): string | undefined;
  /** Ends the requests to the control plane. The gate decides on, by the bundle that it has. */
  close(): void;
}

/** Why a credential was refused. */
export class KeystileError extends Error {
  override readonly name = 'KeystileError';
  /** The stable code, the same as at every other edge. */
  readonly code: string;
  /** The HTTP status that belongs to the code. */
  readonly status: number;

  constructor(code: string, status: number, message: string) {
    super(message);
    this.code = code;
    this.status = status;
  }
}
