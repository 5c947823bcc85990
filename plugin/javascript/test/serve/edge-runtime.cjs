// Runs main.js in the emulator of Vercel's edge runtime.
const { readFileSync } = require('node:fs');
const { EdgeRuntime, runServer } = require('edge-runtime');

const { MODULE, PORT, CONTROL_PLANE_URL, EDGE_CREDENTIAL } = process.env;
const runtime = new EdgeRuntime({
  initialCode: `${readFileSync('main.js', 'utf8')}
addEventListener('fetch', (event) => {
  event.respondWith(application.default(event.request, { waitUntil: (promise) => event.waitUntil(promise) }));
});`,
  extend: (context) =>
    // The module is of this realm, so its constructors must be too.
    Object.assign(context, {
      WebAssembly,
      KEYSTILE_MODULE: new WebAssembly.Module(readFileSync(MODULE)),
      process: { env: { CONTROL_PLANE_URL, EDGE_CREDENTIAL } },
    }),
});
runServer({ runtime, port: Number(PORT), host: '127.0.0.1' });
