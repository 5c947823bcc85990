// The head of a request, as the core reads it.
import type { Edit } from './core-types.js';
import type { Forwarded, RequestHead } from './types.js';

/** A head in the form that the core reads: see plugin/javascript/src/head.rs. */
export interface Head {
  readonly text: string;
  readonly count: number;
}

export function headOf(request: RequestHead): Head {
  let text = `:method\n${request.method}\n:path\n${request.path}\n`;
  let count = 2;
  if (request.authority !== undefined) {
    text += `:authority\n${request.authority}\n`;
    count += 1;
  }
  for (const [name, value] of request.headers) {
    text += `${name.toLowerCase()}\n${value}\n`;
    count += 1;
  }
  return { text, count };
}

/** The parts of an absolute URL. `Request` has normalized it, so that the upstream gets exactly this path. */
export interface UrlParts {
  readonly origin: string;
  readonly authority: string;
  readonly path: string;
}

export function splitUrl(url: string): UrlParts {
  const start = url.indexOf('://') + 3;
  const hash = url.indexOf('#', start);
  const end = hash < 0 ? url.length : hash;
  const slash = url.indexOf('/', start);
  const path = slash < 0 || slash > end ? end : slash;
  return {
    origin: url.slice(0, path),
    authority: url.slice(url.lastIndexOf('@', path) < start ? start : url.lastIndexOf('@', path) + 1, path),
    path: path === end ? '/' : url.slice(path, end),
  };
}

export function headOfRequest(request: Request, url: UrlParts): Head {
  let text = `:method\n${request.method}\n:path\n${url.path}\n:authority\n${url.authority}\n`;
  let count = 3;
  // Fetch has the names in lower case. The URL has the host.
  request.headers.forEach((value, name) => {
    if (name !== 'host') {
      text += `${name}\n${value}\n`;
      count += 1;
    }
  });
  return { text, count };
}

/** Applies the edit of the core to a head. */
export function applyEdit(head: Head, edit: Edit): Forwarded {
  let path = '';
  const headers: (readonly [string, string])[] = [];
  const add = (name: string, value: string): void => {
    if (name === ':path') {
      path = value;
    } else if (!name.startsWith(':')) {
      headers.push([name, value]);
    }
  };
  if (edit.replace !== undefined) {
    for (const [name, value] of edit.replace) {
      add(name, value);
    }
    return { path, headers };
  }
  const lines = head.text.split('\n');
  for (let at = 0; at < head.count * 2; at += 2) {
    const name = lines[at] as string;
    if (edit.remove === undefined || !edit.remove.includes(name)) {
      add(name, lines[at + 1] as string);
    }
  }
  if (edit.remove !== undefined) {
    for (const [name, value] of edit.add) {
      add(name, value);
    }
  }
  return { path, headers };
}
