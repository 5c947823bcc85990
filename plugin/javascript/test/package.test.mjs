// The package as it is published: its files, its types and its size.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, readdir, stat } from 'node:fs/promises';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { BIN, ROOT } from './kit.mjs';

const run = promisify(execFile);

test('the package has the files of files.txt', async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json'], { cwd: `${ROOT}/target/npm` });
  const files = JSON.parse(stdout)[0].files.map(({ path }) => path).sort();
  const expected = (await readFile('files.txt', 'utf8')).trim().split('\n');
  assert.deepEqual(files, expected);
});

test('the pages of the documentation have the code that the tests run', async () => {
  const projects = await readdir('projects');
  assert.ok(projects.length > 0);
  for (const project of projects) {
    const page = await readFile(`${ROOT}/docs/javascript/${project}.md`, 'utf8');
    const [, code] = /```ts\n(.*?)```/s.exec(page);
    assert.equal(code, await readFile(`projects/${project}/main.ts`, 'utf8'), project);
  }
});

test('publint and attw find nothing', async () => {
  await run(`${BIN}/publint`, ['run', '--strict', `${ROOT}/target/npm`]);
  const [tarball] = (await readdir('.')).filter((name) => name.endsWith('.tgz'));
  await run(`${BIN}/attw`, [tarball, '--profile', 'esm-only', '--no-color']);
});

test('the package needs no other', async () => {
  const { dependencies } = JSON.parse(await readFile(`${ROOT}/target/npm/package.json`, 'utf8'));
  assert.equal(dependencies, undefined);
  assert.equal((await readdir('node_modules')).filter((name) => !name.startsWith('.')).join(), 'keystile');
});

test('the package has at most 300 KB', async () => {
  const [tarball] = (await readdir('.')).filter((name) => name.endsWith('.tgz'));
  const { size } = await stat(tarball);
  assert.ok(size <= 300_000, `${size} bytes`);
});
