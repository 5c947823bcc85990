// The JavaScript runtimes, and how each serves a handler.
import { execFile } from 'node:child_process';
import { cp, readdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { BIN, Served, TOOLS } from './kit.mjs';

const run = promisify(execFile);
const esbuild = createRequire(`${TOOLS}/`)('esbuild');

/** How each runtime serves `lab.mjs`, and the applications for it. */
export const RUNTIMES = {
  node: {
    applications: ['express', 'fastify'],
    checkTypes: (folder) => run(`${BIN}/tsc`, ['--project', folder]),
    serve: (folder, main, options) => {
      const script = main.endsWith('.ts') ? `dist/${main.replace(/\.ts$/, '.js')}` : main;
      return Served.start('node', [script], { ...options, cwd: folder });
    },
  },
  deno: {
    applications: ['deno'],
    checkTypes: (folder) => run(`${BIN}/deno`, ['check', 'main.ts'], { cwd: folder }),
    serve: (folder, main, options) =>
      Served.start(`${BIN}/deno`, ['run', '--no-prompt', '--allow-net=127.0.0.1', '--allow-env', '--allow-read', main], { ...options, cwd: folder }),
  },
  bun: {
    applications: ['bun'],
    checkTypes: (folder) => run(`${BIN}/tsc`, ['--project', folder]),
    serve: (folder, main, options) => Served.start(`${BIN}/bun`, ['run', main], { ...options, cwd: folder }),
  },
  workerd: {
    applications: ['workers', 'hono', 'itty-router'],
    checkTypes: (folder) => run(`${BIN}/tsc`, ['--project', folder]),
    serve: serveWorkerd,
  },
  'edge-light': {
    applications: ['vercel-edge'],
    checkTypes: (folder) => run(`${BIN}/tsc`, ['--project', folder]),
    serve: serveEdgeRuntime,
  },
};

/** Bundles an application as wrangler does, and runs it in workerd. */
async function serveWorkerd(folder, main, { port, env = {} }) {
  const out = `${folder}/out`;
  const { metafile } = await bundle(`${folder}/${main}`, out, {
    conditions: ['workerd', 'worker', 'browser'],
    external: ['cloudflare:workers'],
    loader: { '.wasm': 'copy' },
  });
  const files = Object.keys(metafile.outputs).map((file) => file.slice(file.indexOf('/out/') + 5));
  const wasm = files.find((file) => file.endsWith('.wasm'));
  const script = files.find((file) => file.endsWith('.js'));
  const bindings = Object.keys(env).map((name) => `(name = "${name}", fromEnvironment = "${name}")`);
  await writeFile(
    `${out}/config.capnp`,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "internet", network = (allow = ["local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [
    (name = "main.js", esModule = embed "${script}"),
    (name = "${wasm}", wasm = embed "${wasm}"),
  ],
  bindings = [${bindings.join(', ')}],
  compatibilityDate = "2026-11-01",
);
`,
  );
  return Served.start(`${BIN}/workerd`, ['serve', `${out}/config.capnp`], { port, env, cwd: '.' });
}

/** Bundles an application as Vercel does, and runs it in its emulator, which needs the module as a variable. */
async function serveEdgeRuntime(folder, main, { port, env = {} }) {
  const out = `${folder}/out`;
  const module = {
    name: 'module',
    setup(build) {
      build.onResolve({ filter: /\.wasm\?module$/ }, ({ path }) => ({ path, namespace: 'module' }));
      build.onLoad({ filter: /.*/, namespace: 'module' }, () => ({ contents: 'export default globalThis.KEYSTILE_MODULE;' }));
    },
  };
  await bundle(`${folder}/${main}`, out, { conditions: ['edge-light', 'worker', 'browser'], plugins: [module], format: 'iife', globalName: 'application' });
  await cp('serve/edge-runtime.cjs', `${out}/edge-runtime.cjs`);
  const [wasm] = (await readdir('node_modules/keystile/core')).filter((file) => file.endsWith('.wasm'));
  return Served.start('node', ['edge-runtime.cjs'], {
    port,
    env: { ...env, MODULE: `${process.cwd()}/node_modules/keystile/core/${wasm}` },
    cwd: out,
  });
}

function bundle(entry, outdir, options) {
  return esbuild.build({
    entryPoints: { main: entry },
    outdir,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    metafile: true,
    logLevel: 'silent',
    ...options,
  });
}

