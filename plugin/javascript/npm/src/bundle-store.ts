// The bytes of the bundle in use. They outlive the instance of the core, which has only what it parsed.
import { decode, encode, sha256 } from './core/core.js';
import { callCore } from './instance.js';

const LENGTH_BYTES = 4;
const HASH_LETTERS = 64;

export class BundleStore {
  #manifest: Uint8Array | undefined;
  /** By the SHA-256 in hexadecimal. */
  #objects = new Map<string, Uint8Array>();

  /** Keeps an object that the core accepted. */
  add(hash: string, object: Uint8Array): void {
    this.#objects.set(hash, object);
  }

  /** Makes `manifest` the current one, and drops all objects but these: their hashes, one after the other. */
  install(manifest: Uint8Array, hashes: string): void {
    this.#manifest = manifest;
    const kept = new Map<string, Uint8Array>();
    for (let at = 0; at < hashes.length; at += HASH_LETTERS) {
      const hash = hashes.slice(at, at + HASH_LETTERS);
      const object = this.#objects.get(hash);
      if (object !== undefined) {
        kept.set(hash, object);
      }
    }
    this.#objects = kept;
  }

  /** Returns the manifest and its objects, each with its length in front, or `undefined` without a bundle. */
  toBytes(): Uint8Array | undefined {
    if (this.#manifest === undefined) {
      return undefined;
    }
    const parts = [this.#manifest, ...this.#objects.values()];
    const bytes = new Uint8Array(parts.reduce((size, part) => size + LENGTH_BYTES + part.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const part of parts) {
      view.setUint32(at, part.length);
      bytes.set(part, at + LENGTH_BYTES);
      at += LENGTH_BYTES + part.length;
    }
    return bytes;
  }

  /** Returns the bundle as `keystile bundle export` writes it. */
  toText(): string | undefined {
    const bytes = this.toBytes();
    return bytes === undefined ? undefined : callCore(() => encode(bytes));
  }

  /** Adds the objects of a bundle that {@link toBytes} wrote. The core has accepted it, so its lengths are right. */
  addAll(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = LENGTH_BYTES + view.getUint32(0); at < bytes.length; ) {
      const end = at + LENGTH_BYTES + view.getUint32(at);
      const object = bytes.slice(at + LENGTH_BYTES, end);
      this.add(callCore(() => sha256(object)), object);
      at = end;
    }
  }
}

/** Decodes what {@link BundleStore.toText} wrote. */
export function decodeBundle(text: string): Uint8Array {
  const bytes = callCore(() => decode(text.trim()));
  if (bytes === undefined) {
    throw new Error('the bundle is not base64url');
  }
  return bytes;
}
