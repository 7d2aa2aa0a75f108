// Stripe's Python library as a judge of our client and of the fake that the tests keep: tests/api/stripe/sdk.rs lets it.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { INSTALL_MS, install } from './python.mjs';

const RUN_MS = 15 * 60_000;

it("Stripe's library asks, reads and signs as we do", { timeout: INSTALL_MS + RUN_MS }, async () => {
  const bin = await install('stripe', 'stripe-requirements.txt');
  const test = ['--ignored', '--exact', 'stripe::sdk::the_python_sdk_agrees'];
  await promisify(execFile)('cargo', ['test', '--locked', '--quiet', '--test', 'api', '--', ...test], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    env: { ...process.env, DM_STRIPE_PYTHON: join(bin, 'python') },
    timeout: RUN_MS,
  });
});
