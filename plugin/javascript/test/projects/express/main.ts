import { readFileSync } from 'node:fs';
import express from 'express';
import { createGate } from 'keystile';
import { keystile } from 'keystile/express';

const gate = createGate({
  policy: readFileSync('policy.json', 'utf8'),
  controlPlane: { url: process.env.CONTROL_PLANE_URL!, credential: process.env.EDGE_CREDENTIAL },
});

const app = express();

app.use(keystile(gate));
app.use(express.text());

app.all('/*path', (req, res) => {
  res.json({
    subject: req.auth?.identity?.subject,
    issuer: req.auth?.claims?.iss,
    headers: Object.entries(req.headers),
    path: req.originalUrl,
    body: req.body ?? '',
  });
});

app.listen(Number(process.env.PORT), '127.0.0.1');
