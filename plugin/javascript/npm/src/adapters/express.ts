// Middleware for Express, and for every other framework with `(req, res, next)`.
import type { Request, RequestHandler } from 'express';
import type { Gate } from '../types.js';
import { type Passing, headOf, replaceHeaders } from './node-request.js';

export type { Passing };

declare global {
  // eslint-disable-next-line @typescript-eslint/no-namespace
  namespace Express {
    interface Request {
      /** The decision about this request: an identity, or the reason why there is none. */
      auth?: Passing;
    }
  }
}

export interface KeystileOptions {
  /** Returns the address of the client; by default `req.ip`, which follows the setting `trust proxy`. */
  readonly clientAddress?: ((req: Request) => string | null | undefined) | undefined;
}

/**
 * Refuses what the gate refuses. Handlers get the decision as `req.auth`, and headers without the credential and with the
 * identity.
 */
export function keystile(gate: Gate, options: KeystileOptions = {}): RequestHandler {
  const clientAddress = options.clientAddress ?? ((req) => req.ip);
  return async (req, res, next) => {
    try {
      const path = req.originalUrl;
      const decision = await gate.checkHead(headOf(req, path), { clientAddress: clientAddress(req) ?? undefined });
      if (decision.outcome === 'refuse') {
        res.statusCode = decision.status;
        for (const [name, value] of decision.headers) {
          res.appendHeader(name, value);
        }
        res.end(decision.body);
        return;
      }
      req.auth = decision;
      replaceHeaders(req, decision.forwarded);
      if (decision.forwarded.path !== path) {
        // Only a credential in the query changes the target.
        const query = queryOf(decision.forwarded.path);
        req.originalUrl = decision.forwarded.path;
        req.url = req.url.replace(/\?.*$/s, '') + query;
      }
    } catch (error) {
      next(error);
      return;
    }
    next();
  };
}

function queryOf(path: string): string {
  const at = path.indexOf('?');
  return at < 0 ? '' : path.slice(at);
}
