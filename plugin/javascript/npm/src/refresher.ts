// Keeps the bundle current.
//
// Nothing here is a promise that two requests share: a platform such as Workers ends the input and output of a request
// together with it, and a promise that waits for them never settles then. One request drives a refresh and marks it so; the
// mark expires, because the platform may drop the driver. Other requests look at the settled state.
import type { ControlPlaneRequest, Status, Step } from './core-types.js';
import type { ControlPlaneClient } from './control-plane.js';
import type { CoreHandle } from './core-handle.js';
import type { CheckOptions, LogLevel } from './types.js';

/** How often the requests of clients trigger a refresh. */
const POLL_INTERVAL_MS = 2000;

/** Longer than any step of a driver that is alive, in addition to the time for which the control plane holds a request. */
const MARK_MS = 6000;

/** How often a request that needs a bundle looks whether another one has loaded it. */
const WATCH_INTERVAL_MS = 20;

/** For how long a request waits for a refresh. Then the policy for stale bundles decides, or the lack of a bundle. */
const MAX_WATCH_MS = 10_000;

/** The pause of the loop for long polling between two looks at the core, which decides when a request is due. */
const LOOP_PAUSE_MS = 250;

/** The minimum time between two reports of missing keys. Clients can cause them. */
const MISSING_KEYS_INTERVAL_MS = 5000;

/** The minimum time between two lines about failures. */
const LOG_INTERVAL_MS = 60_000;

export type Log = (level: LogLevel, message: string) => void;

export interface RefresherOptions {
  readonly core: CoreHandle;
  readonly client: ControlPlaneClient;
  readonly isLongPolling: boolean;
  readonly initialBundle: (() => Promise<string | null | undefined>) | undefined;
  readonly now: () => number;
  readonly log: Log;
}

export class Refresher {
  readonly #core: CoreHandle;
  readonly #client: ControlPlaneClient;
  readonly #isLongPolling: boolean;
  readonly #now: () => number;
  readonly #log: Log;
  #initialBundle: (() => Promise<string | null | undefined>) | undefined;
  /** Distinguishes the current driver from one that was taken for dropped. */
  #driver = 0;
  /** Whether a driver has begun and not ended. */
  #isDriving = false;
  /** Until when the driver counts as alive, by the real clock; 0 if there is none. */
  #markedUntil = 0;
  /** The number of refreshes that have failed, brought a bundle, or found nothing newer. */
  #attempts = 0;
  /** When the last refresh began, by the clock of the gate. */
  #polledAt = Number.NEGATIVE_INFINITY;
  #missingKeysAt = Number.NEGATIVE_INFINITY;
  #loggedAt = Number.NEGATIVE_INFINITY;
  #failure: string | undefined;
  #isClosed = false;

  constructor(options: RefresherOptions) {
    this.#core = options.core;
    this.#client = options.client;
    this.#isLongPolling = options.isLongPolling;
    this.#initialBundle = options.initialBundle;
    this.#now = options.now;
    this.#log = options.log;
    if (this.#isLongPolling) {
      void this.#loop();
    }
  }

  /** Makes the bundle as current as a decision needs it. Returns a promise only if the request has to wait. */
  prepare(options: CheckOptions): Promise<void> | undefined {
    const { version, freshUntil }: Status = this.#core.status;
    const now = this.#now();
    if (version === 0) {
      return this.#await();
    }
    if (this.#isLongPolling) {
      // The loop may have been suspended together with the process.
      return now >= freshUntil && !this.#isMarked() ? this.#await() : undefined;
    }
    if (now >= freshUntil) {
      return this.#await();
    }
    const age = now - this.#polledAt;
    if ((age >= POLL_INTERVAL_MS || age < 0) && !this.#isMarked()) {
      return this.#runBeside(this.#drive(), options);
    }
    return undefined;
  }

  /** Refreshes now. */
  async refresh(): Promise<void> {
    await this.#await();
  }

  /** Reports an issuer whose tokens name a key that the bundle lacks, if there is one. */
  reportMissingKey(options: CheckOptions): Promise<void> | undefined {
    const now = this.#now();
    if (Math.abs(now - this.#missingKeysAt) < MISSING_KEYS_INTERVAL_MS) {
      return undefined;
    }
    const issuer = this.#core.call((core) => core.take_issuer_with_missing_key());
    if (issuer === undefined) {
      return undefined;
    }
    this.#missingKeysAt = now;
    return this.#runBeside(this.#client.reportMissingKey(issuer), options);
  }

  /** Lets the platform finish `work` after the response. If it does not offer that, the request waits for it. */
  #runBeside(work: Promise<void>, options: CheckOptions): Promise<void> | undefined {
    if (this.#isLongPolling) {
      return undefined;
    }
    if (typeof options.waitUntil !== 'function') {
      return work;
    }
    try {
      options.waitUntil(work);
      return undefined;
    } catch {
      return work;
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#client.close();
  }

  #isMarked(): boolean {
    return Date.now() < this.#markedUntil;
  }

  async #loop(): Promise<void> {
    while (!this.#isClosed) {
      if (!this.#isMarked()) {
        await this.#drive();
      }
      await sleep(LOOP_PAUSE_MS, 'background');
    }
  }

  /** Drives a refresh, or waits until that of another request has come to a result. */
  async #await(): Promise<void> {
    const attempts = this.#attempts;
    for (let waited = 0; waited < MAX_WATCH_MS; waited += WATCH_INTERVAL_MS) {
      if (this.#attempts !== attempts || this.#isClosed) {
        return;
      }
      if (!this.#isMarked()) {
        const drive = this.#drive();
        if (!this.#isLongPolling) {
          return drive;
        }
        // It keeps the next request open for as long as the gate is.
      }
      await sleep(WATCH_INTERVAL_MS, 'request');
    }
  }

  /** Sends the requests that are due until none is. It never rejects. */
  async #drive(): Promise<void> {
    const driver = ++this.#driver;
    const mark = (waitSeconds: number): void => {
      this.#markedUntil = Date.now() + waitSeconds * 1000 + MARK_MS;
    };
    mark(0);
    this.#polledAt = this.#now();
    const isPreviousDropped = this.#isDriving;
    this.#isDriving = true;
    try {
      if (isPreviousDropped) {
        // What it left in flight never arrives.
        this.#core.call((core) => core.abort());
      }
      await this.#loadInitialBundle();
      const open = new Set<Promise<void>>();
      // After a bundle, the core asks for the next one at once, which is for long polling.
      let isDone = false;
      while (this.#driver === driver && !this.#isClosed) {
        let request = isDone ? undefined : this.#next();
        while (request !== undefined) {
          mark(request.waitSeconds);
          const answered: Promise<void> = this.#handle(request, driver).then((step) => {
            open.delete(answered);
            isDone ||= step === 'ready' && !this.#isLongPolling;
          });
          open.add(answered);
          request = this.#next();
        }
        if (open.size === 0) {
          break;
        }
        await Promise.race(open);
        if (this.#driver === driver) {
          mark(0);
        }
      }
    } catch (error) {
      this.#report('the refresh failed', error);
    } finally {
      if (this.#driver === driver) {
        this.#isDriving = false;
        this.#markedUntil = 0;
        this.#attempts += 1;
      }
    }
  }

  #next(): ControlPlaneRequest | undefined {
    const json = this.#core.call((core) => core.poll(this.#now()));
    return json === undefined ? undefined : (JSON.parse(json) as ControlPlaneRequest);
  }

  /** Sends one request and gives the response to the core. It never rejects. */
  async #handle(request: ControlPlaneRequest, driver: number): Promise<Step['step']> {
    const generation = this.#core.generation;
    const { status, body, isCached } = await this.#client.send(request);
    // After a trap, the number belongs to another request.
    if (this.#driver !== driver || this.#core.generation !== generation) {
      return 'pending';
    }
    let step: Step;
    try {
      step = this.#core.respond(request, status, body, this.#now());
    } catch (error) {
      this.#report('the refresh failed', error);
      return 'failed';
    }
    this.#attempts += step.step === 'ready' || step.step === 'failed' ? 1 : 0;
    if (step.step === 'failed') {
      if (!this.#isClosed) {
        this.#report(`the refresh failed, the current bundle stays in use: ${step.message} (${step.code})`);
      }
      if (isCached) {
        await this.#client.drop(request);
      }
    } else {
      this.#recover(step);
      if (status === 200 && request.isPublic && !isCached) {
        await this.#client.store(request, body);
      }
    }
    return step.step;
  }

  async #loadInitialBundle(): Promise<void> {
    const load = this.#initialBundle;
    if (load === undefined || this.#core.status.version !== 0) {
      return;
    }
    try {
      const text = await load();
      if (typeof text === 'string' && text !== '') {
        this.#core.loadText(text, this.#now());
      }
      this.#initialBundle = undefined;
    } catch (error) {
      this.#report('the initial bundle is refused', error);
    }
  }

  #recover(step: Step): void {
    if (step.step === 'ready' && this.#failure !== undefined) {
      this.#failure = undefined;
      this.#loggedAt = Number.NEGATIVE_INFINITY;
      this.#log('info', `keystile: the refresh works again, version ${this.#core.status.version}`);
    }
  }

  /** Logs a failure: at once if it is another one than the last, else once a minute. */
  #report(message: string, error?: unknown): void {
    const line = error === undefined ? message : `${message}: ${error instanceof Error ? error.message : 'unknown error'}`;
    const now = this.#now();
    if (line !== this.#failure || Math.abs(now - this.#loggedAt) >= LOG_INTERVAL_MS) {
      this.#failure = line;
      this.#loggedAt = now;
      this.#log('warn', `keystile: ${line}`);
    }
  }
}

/** Waits. A timer in the background does not keep a process from ending. */
function sleep(milliseconds: number, purpose: 'background' | 'request'): Promise<void> {
  return new Promise((resolve) => {
    const timer: unknown = setTimeout(resolve, milliseconds);
    if (purpose === 'background' && typeof timer === 'object' && timer !== null && 'unref' in timer) {
      (timer as { unref(): void }).unref();
    }
  });
}
