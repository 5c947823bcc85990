import { createServer } from 'node:http';
import { lab } from '../lab.mjs';

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const body = request.method === 'POST' ? Buffer.concat(chunks) : undefined;
  const answer = await lab(new Request(`http://127.0.0.1${request.url}`, { method: request.method, body }));
  response.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer()));
}).listen(Number(process.env.PORT), '127.0.0.1');
