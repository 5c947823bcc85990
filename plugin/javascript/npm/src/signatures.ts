// Verification of signatures by WebCrypto.
import type { SignatureView } from './core-types.js';
import type { SignatureCrypto } from './types.js';

/** More keys than any deployment has. */
const MAX_KEYS = 1000;

const LENGTH_BYTES = 4;

interface Scheme {
  readonly key: RsaHashedImportParams | EcKeyImportParams;
  readonly signature: AlgorithmIdentifier | EcdsaParams | RsaPssParams;
}

const SCHEMES: Readonly<Record<string, Scheme>> = {
  ES256: ecdsa('P-256', 256),
  ES384: ecdsa('P-384', 384),
  ES512: ecdsa('P-521', 512),
  RS256: pkcs1(256),
  RS384: pkcs1(384),
  RS512: pkcs1(512),
  PS256: pss(256),
  PS384: pss(384),
  PS512: pss(512),
};

export class SignatureVerifier {
  readonly #subtle: SignatureCrypto;
  /** The imported keys. `null`: the platform does not accept the key. Promises must not be shared between requests. */
  readonly #keys = new Map<number, CryptoKey | null>();
  #generation = 0;

  constructor(subtle: SignatureCrypto) {
    this.#subtle = subtle;
  }

  /** Returns whether a signature is valid, or `undefined` if the platform cannot verify it: then the core does. */
  async verify(
    view: SignatureView,
    parts: Uint8Array<ArrayBuffer>,
    generation: number,
  ): Promise<boolean | undefined> {
    if (this.#generation !== generation) {
      // Another instance of the core counts the keys from the beginning.
      this.#keys.clear();
      this.#generation = generation;
    }
    const scheme = SCHEMES[view.algorithm];
    if (scheme === undefined) {
      return undefined;
    }
    const [key, signature, message] = split(parts);
    let imported = this.#keys.get(view.key);
    if (imported === undefined) {
      imported = await this.#import(scheme, key);
      if (this.#generation === generation && this.#keys.size < MAX_KEYS) {
        this.#keys.set(view.key, imported);
      }
    }
    if (imported === null) {
      return undefined;
    }
    try {
      return await this.#subtle.verify(scheme.signature, imported, signature, message);
    } catch {
      return undefined;
    }
  }

  async #import(scheme: Scheme, key: Uint8Array<ArrayBuffer>): Promise<CryptoKey | null> {
    try {
      return (await this.#subtle.importKey('spki', key, scheme.key, false, ['verify'])) as CryptoKey;
    } catch {
      return null;
    }
  }
}

/** Splits the parts that the core wrote: key, signature, message. */
function split(parts: Uint8Array<ArrayBuffer>): [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>] {
  const view = new DataView(parts.buffer, parts.byteOffset, parts.byteLength);
  let at = 0;
  const next = (): Uint8Array<ArrayBuffer> => {
    const start = at + LENGTH_BYTES;
    at = start + view.getUint32(at);
    return parts.subarray(start, at);
  };
  return [next(), next(), next()];
}

function ecdsa(namedCurve: string, bits: number): Scheme {
  return { key: { name: 'ECDSA', namedCurve }, signature: { name: 'ECDSA', hash: `SHA-${bits}` } };
}

function pkcs1(bits: number): Scheme {
  return { key: { name: 'RSASSA-PKCS1-v1_5', hash: `SHA-${bits}` }, signature: { name: 'RSASSA-PKCS1-v1_5' } };
}

/** RFC 7518 section 3.5: the salt is as long as the hash. */
function pss(bits: number): Scheme {
  return { key: { name: 'RSA-PSS', hash: `SHA-${bits}` }, signature: { name: 'RSA-PSS', saltLength: bits / 8 } };
}
