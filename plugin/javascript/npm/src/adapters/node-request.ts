// What Express and Fastify have in common: Node's requests.
import type { Forwarded, HeadDecision, RequestHead } from '../types.js';

/** A decision about a request that may pass. */
export type Passing = Exclude<HeadDecision, { outcome: 'refuse' }>;

/** The parts of Node's `IncomingMessage` that are used. */
export interface NodeRequest {
  method?: string | undefined;
  rawHeaders: string[];
  headers: Record<string, string | string[] | undefined>;
}

/** Returns the head of a request as it was received. `path` is its target. */
export function headOf(request: NodeRequest, path: string): RequestHead {
  const headers: [string, string][] = [];
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2) {
    headers.push([request.rawHeaders[at] as string, request.rawHeaders[at + 1] as string]);
  }
  const hosts = headers.filter(isHost);
  // Several hosts stay in the list, so that the core refuses them.
  const only = hosts.length === 1 ? hosts[0] : undefined;
  return {
    method: request.method ?? '',
    path,
    authority: only?.[1],
    headers: only === undefined ? headers : headers.filter((header) => !isHost(header)),
  };
}

/** Makes a request have exactly the headers that an upstream may receive, and its host. */
export function replaceHeaders(request: NodeRequest, forwarded: Forwarded): void {
  const raw = request.rawHeaders.filter((_, at, all) => /^host$/i.test(all[at - (at % 2)] as string));
  const values = new Map<string, string[]>();
  for (const [name, value] of forwarded.headers) {
    raw.push(name, value);
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  const { headers } = request;
  for (const name of Object.keys(headers)) {
    if (name !== 'host' && !values.has(name)) {
      delete headers[name];
    }
  }
  for (const [name, list] of values) {
    // Node has already chosen among repeated values of the headers that it knows.
    if (headers[name] === undefined || list.length === 1) {
      headers[name] = list.length === 1 && name !== 'set-cookie' ? list[0] : join(name, list);
    } else if (!Array.isArray(headers[name])) {
      headers[name] = join(name, list);
    }
  }
  request.rawHeaders.splice(0, request.rawHeaders.length, ...raw);
}

function join(name: string, values: string[]): string | string[] {
  return name === 'set-cookie' ? values : values.join(name === 'cookie' ? '; ' : ', ');
}

function isHost([name]: readonly [string, string]): boolean {
  return name.toLowerCase() === 'host';
}
