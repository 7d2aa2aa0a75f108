// The server under test: the real binary in its development form, and people who use it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
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
  if (!process.env.DM_BIN) throw new Error('Set DM_BIN to the digitalmistress binary that is to be tested.');
  const binary = resolve(process.env.DM_BIN);
  const dataDir = await mkdtemp(join(tmpdir(), 'dm-test-'));
  atExit.add(() => rmSync(dataDir, { recursive: true, force: true }));
  // What the developer has set for a server of their own must not decide over a test.
  const inherited = Object.entries(process.env).filter(([name]) => !/^DM_/.test(name));
  const env = {
    ...Object.fromEntries(inherited),
    DM__SERVER__LISTEN: '127.0.0.1:0',
    DM__SERVER__DATA_DIR: dataDir,
    ...settings,
  };
  const program = new Program(binary, ['dev'], { cwd: dataDir, env });
  const base = await program.says(/^ {2}API +(http:\S+\/v1)$/, START_MS);
  return new Server(program, base, dataDir);
}

/** The server, as its callers and its operator see it. */
export class Server {
  #program;
  #dataDir;
  #emails = 0;

  constructor(program, base, dataDir) {
    this.#program = program;
    this.#dataDir = dataDir;
    /** Such as `http://localhost:1234/v1`. */
    this.base = base;
  }

  /** All that it has printed, logs included. */
  get output() {
    return this.#program.output;
  }

  /** Ends the server and removes its data. */
  async stop() {
    await this.#program.stop();
    await rm(this.#dataDir, { recursive: true, force: true });
  }

  /** One JSON call that must be answered with `status`; the parsed body, or undefined if there is none. */
  async call(status, method, path, { token, body } = {}) {
    const answer = await fetch(new URL(path, this.base), {
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

/** A program that runs beside the test, and not longer. */
export class Program {
  /** What it has printed so far, on both its streams. */
  output = '';
  #name;
  #child;
  #ended;
  #lines = new Set();

  constructor(command, args, { cwd, env }) {
    this.#name = command;
    this.#child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', resolve);
      this.#child.once('error', (error) => {
        this.#hear(String(error));
        resolve();
      });
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => this.#hear(line));
    }
    atExit.add(() => this.#child.kill('SIGKILL'));
  }

  #hear(line) {
    this.output += `${line}\n`;
    for (const listener of this.#lines) listener(line);
  }

  /** Waits for it to print a line and returns the pattern's group. If it does not, it is stopped. */
  async says(pattern, ms) {
    const { promise, resolve, reject } = withResolvers();
    this.#lines.add((line) => {
      const found = pattern.exec(line);
      if (found) resolve(found[1]);
    });
    this.#ended.then(() => reject(new Error('It ended.')));
    try {
      return await within(ms, pattern, promise);
    } catch (cause) {
      await this.stop().catch(() => {}); // The first error says more.
      throw new Error(`${this.#name} did not start. ${cause.message}\n${this.output}`);
    }
  }

  /** Asks it to end. That it does so in time is part of every test. */
  async stop() {
    this.#child.kill('SIGTERM');
    let forced = false;
    const force = setTimeout(() => (forced = this.#child.kill('SIGKILL')), STOP_MS);
    await this.#ended;
    clearTimeout(force);
    if (forced) throw new Error(`${this.#name} did not end within ${STOP_MS} ms.\n${this.output}`);
  }
}

/** A port of this machine that nobody has just now. */
export async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

/** What is done when a test run ends, also when it is interrupted: nothing of it stays behind. */
const atExit = new Set();
process.once('exit', () => atExit.forEach((end) => end()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

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
