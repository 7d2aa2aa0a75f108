// The server under test: the real binary in its development form, and people who use it.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const START_MS = 20_000;
const STOP_MS = 10_000;
const MAIL_MS = 10_000;
const CALL_MS = 30_000;
const POLL_MS = 20;

const PASSWORD = 'seven quiet lanterns at dusk';

/** Starts the binary that DM_BIN names, on a free port and with an empty data directory. */
export async function startServer(settings = {}) {
  const binary = process.env.DM_BIN;
  if (!binary) throw new Error('Set DM_BIN to the digitalmistress binary that is to be tested.');
  const dataDir = await mkdtemp(join(tmpdir(), 'dm-js-'));
  // Whatever the developer has set for a server of their own must not decide over a test.
  const inherited = Object.entries(process.env).filter(([name]) => !/^DM_(?!BIN$)/.test(name));
  const child = spawn(resolve(binary), ['dev'], {
    cwd: dataDir,
    env: {
      ...Object.fromEntries(inherited),
      DM__SERVER__LISTEN: '127.0.0.1:0',
      DM__SERVER__DATA_DIR: dataDir,
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const server = new Server(child, dataDir);
  try {
    await server.ready;
  } catch (error) {
    await server.stop().catch(() => {}); // The first error says more.
    throw error;
  }
  return server;
}

export class Server {
  /** All that it prints, logs included. */
  output = '';
  /** Its base, such as `http://localhost:1234/v1`. */
  base;

  #child;
  #dataDir;
  #ended;
  #emails = 0;

  constructor(child, dataDir) {
    this.#child = child;
    this.#dataDir = dataDir;
    this.#ended = new Promise((resolve) => {
      child.once('close', resolve);
      child.once('error', (error) => {
        this.output += `${error}\n`;
        resolve();
      });
    });
    // A test run that is interrupted leaves no server behind.
    process.once('exit', () => child.kill('SIGKILL'));
    this.ready = this.#readOutput();
  }

  /** Resolves when the banner says where the API is. */
  #readOutput() {
    const { promise: found, resolve, reject } = withResolvers();
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.output += `${line}\n`;
        const base = /^ {2}API +(http:\S+\/v1)$/.exec(line)?.[1];
        if (base && stream === this.#child.stdout) resolve((this.base = base));
      });
    }
    this.#ended.then(() => reject(new Error(`The server did not start:\n${this.output}`)));
    return within(START_MS, 'the server to print its address', found);
  }

  /** Asks the process to end, and removes its data. That it ends by itself and in time is part of every test. */
  async stop() {
    this.#child.kill('SIGTERM');
    let forced = false;
    const force = setTimeout(() => (forced = this.#child.kill('SIGKILL')), STOP_MS);
    await this.#ended;
    clearTimeout(force);
    await rm(this.#dataDir, { recursive: true, force: true });
    if (forced) throw new Error(`The server did not end within ${STOP_MS} ms:\n${this.output}`);
  }

  /** One JSON call that must be answered with `status`; the parsed body, or undefined if there is none. */
  async call(status, method, path, { token, body } = {}) {
    const url = new URL(path, this.base);
    const answer = await fetch(url, {
      method,
      headers: {
        ...(token && { authorization: `Bearer ${token}` }),
        ...(body && { 'content-type': 'application/json' }),
        accept: 'application/json',
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_MS),
    });
    const text = await answer.text();
    if (answer.status !== status) {
      throw new Error(`${method} ${path} answered ${answer.status} instead of ${status}: ${text}`);
    }
    return text ? JSON.parse(text) : undefined;
  }

  /** Signs up somebody new, the way a frontend does. */
  async signUp() {
    const email = `person${++this.#emails}@example.com`;
    const policies = await this.call(200, 'GET', '/v1/policies');
    const { signup_token } = await this.call(202, 'POST', '/v1/auth/signup', {
      body: {
        email,
        password: PASSWORD,
        birth_date: '1990-12-31',
        consents: policies.data.map(({ document, version }) => ({ document, version })),
      },
    });
    const code = await this.#mailedCode(email);
    const { access_token } = await this.call(201, 'POST', '/v1/auth/signup/verify', {
      body: { signup_token, code },
    });
    return new Person(this, access_token);
  }

  /** Mails are sent by a job after the answer, so this one looks until it is there. */
  async #mailedCode(email) {
    const deadline = Date.now() + MAIL_MS;
    const path = `/dev/mailbox/messages?to=${encodeURIComponent(email)}`;
    for (;;) {
      const { data } = await this.call(200, 'GET', path);
      const code = /^\s*(\d{8})\s*$/m.exec(data[0]?.text ?? '')?.[1];
      if (code) return code;
      if (Date.now() > deadline) throw new Error(`No code was mailed to ${email}:\n${this.output}`);
      await pause(POLL_MS);
    }
  }
}

/** Somebody who is signed in. */
export class Person {
  constructor(server, token) {
    this.server = server;
    this.token = token;
  }

  /** One call of theirs; see `Server.call`. */
  call(status, method, path, body) {
    return this.server.call(status, method, path, { token: this.token, body });
  }

  /** The messages of a conversation, oldest first, as a page that is opened anew shows them. */
  async history(conversation) {
    const page = await this.call(200, 'GET', `/v1/conversations/${conversation}/messages`);
    return page.data;
  }
}

/** Gives up on a promise after a while, naming what it was waited for. */
export async function within(ms, what, promise) {
  const { promise: late, reject } = withResolvers();
  const timer = setTimeout(() => reject(new Error(`Waited ${ms} ms for ${what}.`)), ms);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** `Promise.withResolvers` came with Node 22. */
export function withResolvers() {
  const resolvers = {};
  resolvers.promise = new Promise((resolve, reject) => Object.assign(resolvers, { resolve, reject }));
  return resolvers;
}
