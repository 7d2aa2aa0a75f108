// A real nginx in front of the server, with the file that deploy/ has for it. Changed are only its ports, its name, and where
// certificate and logs are. Without nginx on this machine nothing is run, and a note says so.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Program, freePort, startServer, within } from '../js/server.mjs';
import { CASE_MS } from './chat.mjs';

const START_MS = 30_000;
const POLL_MS = 50;
const PATH = `${process.env.PATH}:/usr/sbin:/usr/local/sbin`;
const FILE = fileURLToPath(new URL('../../deploy/nginx.conf', import.meta.url));

/** More words in one piece than this, and they were held back. A buffer of nginx has room for about sixty. */
const AT_ONCE = 12;
/** What must not be in a log. */
const CANARY = 'canary5f2b9d';

const found = spawnSync('nginx', ['-v'], { env: { PATH } }).status === 0;
const skip = found ? false : 'NOTE: nginx is not installed (Debian: apt-get install nginx-light); its file was not tested.';

describe('nginx in front, with deploy/nginx.conf', { skip }, () => {
  let server;
  let nginx;
  let person;

  before(
    async () => {
      server = await startServer({
        DM__SERVER__TRUSTED_PROXIES: '127.0.0.1',
        DM__AUTH__THROTTLE__LOGIN_ADDRESS__BURST: '3',
        DM__AUTH__THROTTLE__LOGIN_ADDRESS__EVERY: '1h',
      });
      nginx = await startNginx(new URL(server.base).port);
      person = await server.signUp();
    },
    { timeout: START_MS },
  );
  after(async () => {
    await nginx?.stop();
    await server?.stop();
  });

  it('passes calls on', { timeout: CASE_MS }, async () => {
    const { status, headers, text } = await nginx.call('GET', '/v1/me', { token: person.token });
    assert.equal(status, 200, text);
    assert.match(headers['x-request-id'], /^[0-9a-f-]{36}$/);
    assert.equal(headers.server, 'nginx');
    assert.equal(headers['x-content-type-options'], 'nosniff');
  });

  for (const version of ['1.1', '2']) {
    it(`passes words on one by one, over HTTP/${version}`, { timeout: CASE_MS }, async () => {
      const id = `words-${version.replace('.', '-')}`;
      const stream = await nginx.stream(version, 'POST', '/v1/chat', {
        token: person.token,
        body: { id, message: { id: `m-${id}`, role: 'user', parts: [{ type: 'text', text: '!long' }] } },
      });
      await stream.words(10);
      // Whoever comes back is told what was said so far at once; what follows is as before.
      const again = await nginx.stream(version, 'GET', `/v1/chat/${id}/stream`, { token: person.token });
      await again.words(10);
      await stream.words(40);
      await nginx.call('POST', `/v1/chat/${id}/stop`, { token: person.token });
      await stream.end();
      await again.end();
      for (const pieces of [stream.pieces, again.pieces.slice(1)]) {
        assert.ok(Math.max(...pieces) <= AT_ONCE, `words came in lots: ${pieces}`);
      }
    });
  }

  it('says who calls, whatever callers say themselves', { timeout: CASE_MS, skip: notLinux() }, async () => {
    // All of 127.0.0.0/8 is this machine. One address has three tries.
    const tries = async (from, said) => {
      const headers = { 'x-forwarded-for': said, forwarded: `for=${said}`, 'x-real-ip': said };
      const body = { email: 'nobody@example.com', password: 'not the right one at all' };
      return (await nginx.call('POST', '/v1/auth/login', { from, headers, body })).status;
    };
    const mallory = [];
    for (let n = 1; n <= 4; n++) mallory.push(await tries('127.0.0.2', `198.51.100.${n}`));
    assert.deepEqual(mallory, [401, 401, 401, 429]);
    // Somebody else has tries of their own, and nobody can use them up by naming them.
    assert.equal(await tries('127.0.0.3', '127.0.0.2'), 401);
    assert.doesNotMatch(server.output, /not in server.trusted_proxies/);
  });

  it('has the limits on bodies answered by who set them', { timeout: CASE_MS }, async () => {
    const body = (bytes) => ({ token: person.token, body: { id: 'x'.repeat(bytes) } });
    const ours = await nginx.call('POST', '/v1/auth/login', body(70 * 1024));
    assert.equal(ours.status, 413);
    assert.equal(JSON.parse(ours.text).code, 'payload_too_large');
    assert.ok(JSON.parse(ours.text).request_id);
    const largest = await nginx.call('POST', '/v1/chat', body(250 * 1024));
    assert.notEqual(largest.status, 413);
    const its = await nginx.call('POST', '/v1/chat', body(400 * 1024));
    assert.equal(its.status, 413);
    assert.equal(its.headers['content-type'], 'application/problem+json');
    assert.equal(JSON.parse(its.text).code, 'payload_too_large');
  });

  it('has the limits on heads kept', { timeout: CASE_MS }, async () => {
    const headers = (count, bytes) =>
      Object.fromEntries(Array.from({ length: count }, (_, n) => [`x-filler-${n}`, 'x'.repeat(bytes)]));
    for (const [count, bytes, status] of [[20, 10, 200], [1, 12_000, 200], [101, 1, 431], [1, 20_000, 431], [8, 12_000, 431]]) {
      const answer = await nginx.call('GET', '/v1/policies', { headers: headers(count, bytes) });
      assert.equal(answer.status, status, `${count} headers of ${bytes} bytes`);
    }
  });

  it('shows neither metrics nor the helpers of development', { timeout: CASE_MS }, async () => {
    for (const path of ['/metrics', '/dev/mailbox', '/%64ev/mailbox', '//dev/mailbox']) {
      assert.equal((await nginx.call('GET', path)).status, 404, path);
    }
  });

  it('answers to its name only, and over TLS only', { timeout: CASE_MS }, async () => {
    const plain = await nginx.call('GET', '/v1/policies', { plain: true });
    assert.deepEqual([plain.status, plain.headers.location], [403, undefined]);
    await assert.rejects(nginx.call('GET', '/v1/policies', { name: 'other.example' }));
  });

  it('logs neither queries nor what stands in paths', { timeout: CASE_MS }, async () => {
    const calls = [
      ['POST', `/v1/webhooks/dev?signature=${CANARY}`],
      ['POST', `/v1/webhooks/dev/${CANARY}?signature=${CANARY}`],
      ['GET', `/v1//webhooks/%64ev/${CANARY}`],
      ['GET', `/v1/conversations/${CANARY}/messages?cursor=${CANARY}`],
      ['GET', `/${CANARY}`],
      ['GET', `/v1/webhooks/${CANARY.repeat(3000)}`],
    ];
    const all = async () => {
      const answers = [];
      for (const [method, path] of calls) {
        const body = method === 'POST' ? { secret: CANARY } : undefined;
        const headers = { 'user-agent': CANARY, referer: `https://${CANARY}.example/`, 'x-request-id': 'seen-by-nginx' };
        answers.push(await nginx.call(method, path, { token: person.token, headers, body }));
      }
      return answers;
    };
    await all();
    await server.stop();
    const [away] = await all();
    assert.equal(away.status, 503);
    assert.equal(JSON.parse(away.text).code, 'unavailable');
    assert.equal(away.headers['retry-after'], '5');

    const log = await nginx.logged(/POST \/v1\/webhooks 503 .*$/m);
    assert.match(log, /^\S+ POST \/v1\/webhooks 4\d\d \d+ \S+ 4\d\d \S+ seen-by-nginx$/m);
    assert.match(log, /^\S+ GET \/v1\/conversations 4\d\d /m);
    const line = log.split('\n').find((line) => line.includes(CANARY) || line.includes('127.0.0.'));
    assert.equal(line, undefined, 'something private was logged');
  });
});

function notLinux() {
  return process.platform === 'linux' ? false : 'only on Linux all of 127.0.0.0/8 is this machine';
}

/** Starts nginx with the project's file in front of a port of this machine. */
async function startNginx(upstream) {
  const dir = await mkdtemp(join(tmpdir(), 'dm-nginx-'));
  const [secure, plain] = [await freePort(), await freePort()];
  const certificate = join(dir, 'certificate.pem');
  const key = join(dir, 'key.pem');
  const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost';
  const more = ['-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate];
  execFileSync('openssl', [...request.split(' '), ...more], { stdio: 'pipe' });

  let site = await readFile(FILE, 'utf8');
  const change = (from, to) => {
    assert.notEqual(site.replaceAll(from, to), site, `deploy/nginx.conf has no ${from}`);
    site = site.replaceAll(from, to);
  };
  change(/^ *listen \[::\].*\n/gm, '');
  change(/listen 443\b/g, `listen 127.0.0.1:${secure}`);
  change(/listen 80\b/g, `listen 127.0.0.1:${plain}`);
  change('server 127.0.0.1:8080;', `server 127.0.0.1:${upstream};`);
  change('/etc/letsencrypt/live/api.example.com/fullchain.pem', certificate);
  change('/etc/letsencrypt/live/api.example.com/privkey.pem', key);
  change('server_name api.example.com;', 'server_name localhost;');
  change('/var/log/nginx/', `${dir}/`);
  const directories = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((of) => `  ${of}_temp_path ${dir}/${of};`);
  const main = [
    'daemon off;',
    'error_log stderr notice;',
    `pid ${dir}/pid;`,
    'worker_processes 1;',
    // As root it would work as somebody who may not look into our directory.
    ...(process.getuid() === 0 ? ['user root;'] : []),
    'events {}',
    'http {',
    // What the file does not say of itself must not be kept by what stands around it.
    `  access_log ${dir}/access.log;`,
    ...directories,
    site,
    '}',
  ];
  await writeFile(join(dir, 'nginx.conf'), main.join('\n'));
  const program = new Program('nginx', ['-p', dir, '-e', 'stderr', '-c', join(dir, 'nginx.conf')], { cwd: dir, env: { PATH } });
  await program.says(/start worker process (\d+)/, START_MS);
  const ca = await readFile(certificate);

  function send(method, path, { token, headers, body, from, name = 'localhost', plain: unencrypted } = {}) {
    const text = body && JSON.stringify(body);
    const options = {
      method,
      path,
      host: '127.0.0.1',
      port: unencrypted ? plain : secure,
      servername: name,
      ca,
      localAddress: from,
      agent: false,
      headers: {
        host: name,
        accept: 'application/json',
        ...(token && { authorization: `Bearer ${token}` }),
        ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        ...headers,
      },
    };
    const call = (unencrypted ? http : https).request(options);
    call.end(text);
    return call;
  }

  return {
    /** One call; status, headers and the whole text of its answer. */
    async call(method, path, options) {
      const sent = send(method, path, options);
      const [answer] = await once(sent, 'response');
      sent.on('error', () => {}); // Whoever refuses a body may close before it is sent.
      let text = '';
      for await (const piece of answer.setEncoding('utf8')) text += piece;
      return { status: answer.statusCode, headers: answer.headers, text };
    },

    /** One stream, and how many words each piece of it had. */
    async stream(version, method, path, { token, body }) {
      const headers = { accept: 'text/event-stream' };
      if (version === '1.1') {
        const [answer] = await once(send(method, path, { token, headers, body }), 'response');
        assert.equal(answer.statusCode, 200);
        return new Words(answer);
      }
      const session = http2.connect(`https://localhost:${secure}`, { ca, lookup: (_, options, done) => done(null, ...local(options)) });
      const call = session.request({
        ':method': method,
        ':path': path,
        ...headers,
        authorization: `Bearer ${token}`,
        ...(body && { 'content-type': 'application/json' }),
      });
      call.end(body && JSON.stringify(body));
      const [answer] = await once(call, 'response');
      assert.equal(answer[':status'], 200);
      call.once('close', () => session.close());
      return new Words(call);
    },

    /** All logs together, once they have what is wanted. */
    async logged(wanted) {
      const deadline = Date.now() + START_MS;
      for (;;) {
        const names = ['digitalmistress.log', 'digitalmistress-error.log', 'access.log'];
        const texts = await Promise.all(names.map((name) => readFile(join(dir, name), 'utf8').catch(() => '')));
        const all = texts.join('\n') + program.output;
        if (wanted.test(all)) return all;
        if (Date.now() > deadline) throw new Error(`No ${wanted} was logged:\n${all}`);
        await pause(POLL_MS);
      }
    },

    async stop() {
      await program.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** The address of this machine, in the form in which it was asked for. */
function local({ all }) {
  return all ? [[{ address: '127.0.0.1', family: 4 }]] : ['127.0.0.1', 4];
}

/** A stream as it arrives. */
class Words {
  /** How many words each piece had. */
  pieces = [];
  #readable;
  #ended;

  constructor(readable) {
    this.#readable = readable;
    this.#ended = once(readable, 'end');
    readable.setEncoding('utf8').on('data', (piece) => this.pieces.push(piece.split('"text-delta"').length - 1));
  }

  /** Waits for so many of them. */
  async words(count) {
    while (this.pieces.reduce((sum, words) => sum + words, 0) < count) {
      await within(CASE_MS, `${count} words`, once(this.#readable, 'data'));
    }
  }

  /** Waits for the end. */
  async end() {
    await within(CASE_MS, 'the end of the stream', this.#ended);
  }
}
