// The core of one gate. After a trap, it is made again with the bundle that it had.
import { BundleStore, decodeBundle } from './bundle-store.js';
import type { ControlPlaneRequest, Status, Step } from './core-types.js';
import { Core, callCore, currentGeneration } from './instance.js';

const SEED_BYTES = 32;

const NO_BUNDLE: Status = { version: 0, freshUntil: 0, refreshDueAt: 0 };

export interface CoreSettings {
  readonly policy: string;
  readonly environment: string;
  readonly waitSeconds: number;
  readonly offloadsSignatures: boolean;
  readonly now: () => number;
}

export class CoreHandle {
  readonly #settings: CoreSettings;
  readonly #store = new BundleStore();
  #core: Core;
  #generation: number;
  #isSeeded = false;
  #status = NO_BUNDLE;

  /** @throws {Error} with what is wrong with the policy */
  constructor(settings: CoreSettings) {
    this.#settings = settings;
    this.#core = this.#create();
    this.#generation = currentGeneration();
  }

  /** The version and the times of the bundle. */
  get status(): Status {
    return this.#status;
  }

  /** Changes when the core was made again. */
  get generation(): number {
    return currentGeneration();
  }

  call<T>(call: (core: Core) => T): T {
    if (this.#generation !== currentGeneration()) {
      this.#recreate();
    }
    return callCore(() => call(this.#core));
  }

  /** Creates the cache. Platforms give randomness only within a request. */
  seed(): void {
    if (!this.#isSeeded) {
      const seed = crypto.getRandomValues(new Uint8Array(SEED_BYTES));
      this.call((core) => core.seed(seed));
      this.#isSeeded = true;
    }
  }

  respond(request: ControlPlaneRequest, status: number, body: Uint8Array, now: number): Step {
    const json = this.call((core) => core.respond(request.number, status, body, now, Math.random()));
    const step = JSON.parse(json) as Step;
    if (request.object !== null && (step.step === 'stored' || step.step === 'ready' || step.step === 'pending') && status === 200) {
      this.#store.add(request.object, body);
    }
    if (step.step === 'ready') {
      this.#installed();
    }
    return step;
  }

  /** Loads a bundle that {@link exportText} wrote. */
  loadText(text: string, now: number): void {
    this.#load(decodeBundle(text), now);
  }

  /** Loads the bundle in the policy, if there is one. */
  loadPolicyBundle(): void {
    if (this.call((core) => core.load_policy_bundle(this.#settings.now()))) {
      this.#installed();
    }
  }

  exportText(): string | undefined {
    return this.#store.toText();
  }

  #load(bytes: Uint8Array, now: number): void {
    this.call((core) => core.load(bytes, now));
    this.#store.addAll(bytes);
    this.#installed();
  }

  #installed(): void {
    this.#status = JSON.parse(this.call((core) => core.status())) as Status;
    const manifest = this.call((core) => core.manifest());
    if (manifest !== undefined) {
      this.#store.install(manifest, this.call((core) => core.objects()));
    }
  }

  #create(): Core {
    const { policy, environment, waitSeconds, offloadsSignatures } = this.#settings;
    return callCore(() => new Core(policy, environment, waitSeconds, offloadsSignatures));
  }

  /** Until the bundle is loaded again, there is none: the gate refuses. */
  #recreate(): void {
    this.#status = NO_BUNDLE;
    this.#isSeeded = false;
    this.#core = this.#create();
    this.#generation = currentGeneration();
    this.seed();
    const bytes = this.#store.toBytes();
    if (bytes === undefined) {
      this.loadPolicyBundle();
    } else {
      this.#load(bytes, this.#settings.now());
    }
  }
}
