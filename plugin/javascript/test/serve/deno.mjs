import { lab } from '../lab.mjs';

Deno.serve({ port: Number(Deno.env.get('PORT')), hostname: '127.0.0.1' }, lab);
