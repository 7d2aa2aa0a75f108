// Foreign programs in Python, each in an environment of its own that outlives the test run.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** How long an installation may take. */
export const INSTALL_MS = 15 * 60_000;

/** Installs what a file beside this one lists, unless an earlier run did, and returns the directory of the programs. */
export async function install(name, list) {
  const cache = resolve(process.env.DM_PEERS_DIR ?? join(tmpdir(), 'dm-peers'));
  await mkdir(cache, { recursive: true, mode: 0o700 });
  // We run what lies there, and the system's temporary directory is everybody's.
  if ((await stat(cache)).uid !== process.getuid()) throw new Error(`${cache} belongs to somebody else.`);

  const requirements = fileURLToPath(new URL(list, import.meta.url));
  const wanted = createHash('sha256').update(await readFile(requirements)).digest('hex');
  const venv = join(cache, name);
  const bin = join(venv, 'bin');
  const mark = join(venv, 'installed');
  if ((await readFile(mark, 'utf8').catch(() => '')) === wanted) return bin;

  console.log(`Installing ${name} into ${venv} (once; a minute or two)`);
  const run = promisify(execFile);
  const limits = { timeout: INSTALL_MS, maxBuffer: 2 ** 26 };
  await run(process.env.PYTHON ?? 'python3', ['-m', 'venv', '--clear', venv], limits);
  await run(join(bin, 'pip'), ['install', '--quiet', '--requirement', requirements], limits);
  await writeFile(mark, wanted);
  return bin;
}
