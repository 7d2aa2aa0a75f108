// Our mails to somebody else's mail server: aiosmtpd, with the moods of real ones. It answers by itself; nothing leaves
// this machine, but for the first installation.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Program, startServer } from '../js/server.mjs';
import { INSTALL_MS, install } from './python.mjs';

const START_MS = 30_000;
/** A job is tried again after 5 seconds, then after 10. */
const RETRY_MS = 25_000;
const CASE_MS = 60_000;
const POLL_MS = 50;

const PASSWORD = 'seven quiet lanterns at dusk';

describe('aiosmtpd as the mail server', () => {
  let bin;
  let peer;
  let server;

  before(
    async () => {
      bin = await install('aiosmtpd', 'smtp-requirements.txt');
      peer = await startPeer(bin, 0);
      server = await startServer({
        DM__MAIL__TRANSPORT: 'smtp',
        DM__MAIL__SMTP_URL: `smtp://127.0.0.1:${peer.port}`,
        DM__MAIL__FROM: 'Lanterns <no-reply@lanterns.example>',
        DM__LOG__LEVEL: 'trace',
      });
    },
    { timeout: INSTALL_MS + START_MS },
  );
  after(async () => {
    await server?.stop();
    await peer?.stop();
  });

  it('gets a mail that it can read, as text and as HTML', { timeout: CASE_MS }, async () => {
    const person = await signUp('ann@example.com');
    const [mail] = peer.delivered('ann@example.com');
    assert.equal(mail.subject, 'Your code');
    assert.equal(mail.sender, 'no-reply@lanterns.example');
    assert.match(mail.id, /^<[0-9a-f-]{36}@lanterns\.example>$/);
    assert.ok(mail.html.includes(codeIn(mail.text)));
    await server.call(200, 'GET', '/v1/me', { token: person });

    await server.call(202, 'POST', '/v1/auth/password/forgot', { body: { email: 'ann@example.com' } });
    await server.call(202, 'POST', '/v1/auth/password/forgot', { body: { email: 'nobody@example.com' } });
    const link = /^http:\/\/localhost:5173\/reset#token=(dm_pr_\S+)$/m;
    const { text } = await newest('ann@example.com', link);
    const token = link.exec(text.replaceAll('\r', ''))[1];
    await server.call(204, 'POST', '/v1/auth/password/reset', { body: { token, password: `${PASSWORD} again` } });
    await newest('ann@example.com', /password was changed/);
    assert.deepEqual(peer.delivered('nobody@example.com'), []);
  });

  for (const mood of ['grey', 'late']) {
    it(`refuses a mail for now (${mood}) and gets it again, once`, { timeout: CASE_MS }, async () => {
      const email = `${mood}@example.com`;
      await signUp(email);
      assert.equal(peer.asked(email), 2);
      assert.equal(peer.delivered(email).length, 1);
    });
  }

  it('refuses a mail for good and is not asked again', { timeout: CASE_MS }, async () => {
    await begin('refused@example.com');
    await until(() => /put aside/.test(server.output), 'the job to be put aside');
    assert.equal(peer.asked('refused@example.com'), 1);
    await signUp('after-refusal@example.com');
  });

  it('is away: sign-ups go on, and their mails come when it is back', { timeout: CASE_MS }, async () => {
    const { port } = peer;
    await peer.stop();
    const away = ['away1@example.com', 'away2@example.com'];
    const tokens = [];
    for (const email of away) tokens.push(await begin(email));
    await until(() => /a job failed/.test(server.output.split('put aside').at(-1)), 'a mail to fail');
    const earlier = peer;
    peer = await startPeer(bin, port, earlier.events);
    for (const [n, email] of away.entries()) {
      const { text } = await newest(email, /\d{8}/);
      await finish(tokens[n], text);
    }
  });

  it('has got no mail twice', { timeout: CASE_MS }, async () => {
    await pause(12_000); // Longer than the pause after a second attempt.
    const ids = peer.events.filter(({ what }) => what === 'delivered').map(({ id }) => id);
    assert.ok(ids.length >= 8, `${ids.length}`);
    assert.equal(new Set(ids).size, ids.length);
    for (const email of ['grey@example.com', 'late@example.com', 'away1@example.com', 'away2@example.com']) {
      assert.equal(peer.delivered(email).length, 1, email);
    }
    assert.equal(peer.asked('refused@example.com'), 1);
  });

  it('is quoted nowhere: no log shows an address, a code or a token', () => {
    const addresses = new Set(peer.events.map(({ to }) => to));
    for (const secret of [...addresses, '#token=', 'dm_pr_', ...codes()]) {
      const line = server.output.split('\n').find((line) => line.includes(secret));
      assert.equal(line, undefined, 'something private was shown');
    }
  });

  async function begin(email) {
    const policies = await server.call(200, 'GET', '/v1/policies');
    const { signup_token } = await server.call(202, 'POST', '/v1/auth/signup', {
      body: {
        email,
        password: PASSWORD,
        birth_date: '1990-12-31',
        consents: policies.data.map(({ document, version }) => ({ document, version })),
      },
    });
    return signup_token;
  }

  async function finish(signup_token, text) {
    const body = { signup_token, code: codeIn(text) };
    const { access_token } = await server.call(201, 'POST', '/v1/auth/signup/verify', { body });
    return access_token;
  }

  async function signUp(email) {
    const token = await begin(email);
    const { text } = await newest(email, /\d{8}/);
    return finish(token, text);
  }

  /** The newest mail to an address, once it has what is wanted. */
  async function newest(email, wanted) {
    let mail;
    await until(() => {
      mail = peer.delivered(email).at(-1);
      return mail && wanted.test(mail.text.replaceAll('\r', ''));
    }, `a mail to ${email}`);
    return mail;
  }

  function codes() {
    const mails = peer.events.filter(({ what, subject }) => what === 'delivered' && subject === 'Your code');
    return mails.map(({ text }) => codeIn(text));
  }

  async function until(condition, what) {
    const deadline = Date.now() + RETRY_MS;
    while (!condition()) {
      if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}.\n${server.output}`);
      await pause(POLL_MS);
    }
  }
});

/** The eight digits that stand on a line of their own. */
function codeIn(text) {
  return /^(\d{8})\r?$/m.exec(text)[1];
}

/** Starts the mail server on a port (0: a free one), with what an earlier one has seen. */
async function startPeer(bin, port, before = []) {
  const script = fileURLToPath(new URL('smtp.py', import.meta.url));
  const program = new Program(join(bin, 'python'), [script, String(port)], { cwd: bin, env: { PATH: process.env.PATH } });
  const listening = await program.says(/^listening on (\d+)$/, START_MS);
  const happened = () => {
    const lines = program.output.split('\n').filter((line) => line.startsWith('{'));
    return [...before, ...lines.map((line) => JSON.parse(line))];
  };
  return {
    port: Number(listening),
    get events() {
      return happened();
    },
    delivered: (to) => happened().filter((event) => event.what === 'delivered' && event.to === to),
    asked: (to) => happened().filter((event) => event.what === 'recipient' && event.to === to).length,
    stop: () => program.stop(),
  };
}
