// The JSON that the core returns: see plugin/javascript/src/outcome.rs and requests.rs.
import type { Identity } from './types.js';

export type HeaderList = readonly (readonly [name: string, value: string])[];

/** How the headers of a forwarded request change. */
export type Edit =
  | { readonly remove?: undefined; readonly replace?: undefined }
  | { readonly remove: readonly string[]; readonly add: HeaderList; readonly replace?: undefined }
  | { readonly replace: HeaderList; readonly remove?: undefined };

export interface RefusalView {
  readonly code: string;
  readonly status: number;
  readonly message: string;
  readonly headers: HeaderList;
  readonly body: string;
  readonly identity?: Identity;
}

/** A signature that WebCrypto has to verify before the decision counts. */
export interface SignatureView {
  readonly algorithm: string;
  readonly key: number;
  readonly number: number;
}

export type Outcome =
  | {
      readonly outcome: 'admit';
      readonly identity: Identity;
      readonly code?: string;
      readonly isStale: boolean;
      readonly edit: Edit;
    }
  | {
      readonly outcome: 'pass';
      readonly reason: 'public' | 'anonymous' | 'preflight' | 'reported';
      readonly code?: string;
      readonly edit: Edit;
    }
  | ({ readonly outcome: 'refuse' } & RefusalView)
  | ({ readonly outcome: 'signature' } & SignatureView)
  | { readonly outcome: 'host_error' };

export interface ControlPlaneRequest {
  readonly number: number;
  readonly path: string;
  readonly etag: string | null;
  readonly waitSeconds: number;
  readonly maxBytes: number;
  readonly object: string | null;
  readonly isPublic: boolean;
}

export type Step =
  | { readonly step: 'pending' | 'stored' | 'ready' }
  | { readonly step: 'failed'; readonly code: string; readonly message: string };

export interface Status {
  readonly version: number;
  readonly freshUntil: number;
  readonly refreshDueAt: number;
}
