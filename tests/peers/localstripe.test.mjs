// Our server as a merchant of somebody else's Stripe: localstripe, a program with state that signs its notices. It was made
// after the API of 2017, so it also shows what we make of old shapes: the period stands in the subscription, a plan in the
// place of the price, and an event does not say `pending_webhooks` or `request`.
//
// It does not know checkout, portal, disputes and undelivered events, and never says `customer.subscription.updated`: those
// are left to the fake that tests/api/support/stripe keeps. It listens on every address of this machine and cannot be told
// otherwise, and it leaves /tmp/localstripe.pickle behind, which we remove.

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { Program, freePort, startServer } from '../js/server.mjs';
import { INSTALL_MS, install } from './python.mjs';

const START_MS = 30_000;
const CASE_MS = 60_000;
/** It waits for a second before it sends a notice, and does so once. */
const NOTICE_MS = 15_000;
const POLL_MS = 50;

const KEY = 'sk_test_peer3f1c9a7e5b2d';
const SECRET = 'whsec_peer8d0c4b6a1e97';
const PRICE = 'price_peer_plus';
const DAY_MS = 86_400_000;

describe('localstripe as the payment provider', () => {
  let peer;
  let server;
  let person;
  let subscription;

  before(
    async () => {
      peer = await startPeer();
      const metrics = await freePort();
      const name = 'DM__BILLING__PROVIDERS__STRIPE__';
      server = await startServer({
        [`${name}KIND`]: 'stripe',
        [`${name}MODE`]: 'test',
        [`${name}BASE_URL`]: peer.base,
        [`${name}SECRET_KEY`]: KEY,
        [`${name}WEBHOOK_SECRETS`]: SECRET,
        DM__BILLING__PLANS__PLUS__PRICES__STRIPE: PRICE,
        DM__SERVER__METRICS_LISTEN: `127.0.0.1:${metrics}`,
        DM__LOG__LEVEL: 'trace',
      });
      server.metrics = `http://127.0.0.1:${metrics}/metrics`;
      person = await server.signUp();
    },
    { timeout: INSTALL_MS + START_MS },
  );
  after(async () => {
    await server?.stop();
    await peer?.stop();
  });

  it('signs notices that are taken, and sells what they are about', { timeout: CASE_MS }, async () => {
    await peer.sendTo('server', `${server.base}/webhooks/stripe`, SECRET);
    await peer.call('POST', 'plans', { id: PRICE, amount: 900, currency: 'eur', interval: 'month', 'product[name]': 'Plus' });
    const before = await person.call(200, 'GET', '/v1/subscription');
    assert.deepEqual([before.state, before.plan], ['inactive', null]);

    const { id: user } = await person.call(200, 'GET', '/v1/me');
    subscription = await peer.subscribe(user);
    assert.equal(subscription.status, 'active');
    await peer.delivered('customer.subscription.created');
    const now = await standing(({ state }) => state === 'active');
    assert.deepEqual(
      [now.reason, now.plan, now.source, now.provider, now.will_renew],
      ['subscription', 'plus', 'provider', 'stripe', true],
    );
    // The period ends when it says, and we wait for the renewal for three days.
    const lasts = Date.parse(now.access_until) - subscription.current_period_end * 1000;
    assert.equal(lasts, 3 * DAY_MS);
  });

  it('says much that does not concern us, which is acknowledged', { timeout: CASE_MS }, async () => {
    await peer.delivered('customer.created');
    await peer.delivered('plan.created');
    assert.ok((await noticed('ignored')) >= 2);
    assert.ok((await noticed('taken')) >= 1);
    assert.equal(await noticed('rejected'), 0);
    assert.deepEqual(peer.refused(), []);
  });

  it('ends a subscription, and so ends access', { timeout: CASE_MS }, async () => {
    await peer.call('DELETE', `subscriptions/${subscription.id}`);
    await peer.delivered('customer.subscription.deleted');
    const now = await standing(({ state }) => state === 'inactive');
    assert.deepEqual([now.reason, now.plan], ['ended', null]);
  });

  it('has a card that fails: nothing is given for it', { timeout: CASE_MS }, async () => {
    const poor = await server.signUp();
    const { id: user } = await poor.call(200, 'GET', '/v1/me');
    const taken = await noticed('taken');
    const unpaid = await peer.subscribe(user, '4000000000000341');
    assert.equal(unpaid.status, 'incomplete');
    await until(async () => (await noticed('taken')) > taken, 'its notices');
    const now = await standing(({ reason }) => reason === 'pending', poor);
    assert.deepEqual([now.state, now.plan], ['inactive', null]);
  });

  it('is not believed with another secret', { timeout: CASE_MS }, async () => {
    await peer.sendTo('stranger', `${server.base}/webhooks/stripe`, `${SECRET}0`);
    await peer.call('POST', 'customers', { description: 'nobody' });
    await until(() => peer.refused().includes('customer.created 400'), 'a refusal');
    assert.ok((await noticed('rejected')) >= 1);
  });

  it('has its key and secret shown nowhere', () => {
    for (const secret of [KEY, SECRET]) {
      const line = server.output.split('\n').find((line) => line.includes(secret));
      assert.equal(line, undefined, 'a secret was shown');
    }
  });

  /** How many notices have had this outcome. */
  async function noticed(outcome) {
    const answer = await fetch(server.metrics, { signal: AbortSignal.timeout(CASE_MS) });
    const pattern = new RegExp(`^billing_notices_total\\{(?=.*outcome="${outcome}").*\\} (\\d+)$`, 'm');
    return Number(pattern.exec(await answer.text())?.[1] ?? 0);
  }

  /** What somebody has, once it is as it should be. */
  async function standing(wanted, who = person) {
    let found;
    await until(async () => wanted((found = await who.call(200, 'GET', '/v1/subscription'))), 'the subscription');
    return found;
  }

  async function until(condition, what) {
    const deadline = Date.now() + NOTICE_MS;
    while (!(await condition())) {
      if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}.\n${server.output}\n${peer.output}`);
      await pause(POLL_MS);
    }
  }
});

/** Starts it on a free port, with nothing in its store. */
async function startPeer() {
  const bin = await install('localstripe', 'localstripe-requirements.txt');
  const env = { PATH: process.env.PATH, PYTHONUNBUFFERED: '1' };
  const program = new Program(join(bin, 'localstripe'), ['--from-scratch', '--port', '0'], { cwd: bin, env });
  const port = await program.says(/Running on http:\/\/\S+:(\d+) /, START_MS);
  const base = `http://127.0.0.1:${port}`;

  async function post(method, path, fields = {}) {
    const answer = await fetch(`${base}/${path}`, {
      method,
      headers: { authorization: `Bearer ${KEY}` },
      body: method === 'POST' ? new URLSearchParams(fields) : undefined,
      signal: AbortSignal.timeout(CASE_MS),
    });
    const text = await answer.text();
    assert.equal(answer.status, 200, `${method} ${path}: ${text}`);
    return text && JSON.parse(text);
  }
  const call = (method, path, fields) => post(method, `v1/${path}`, fields);

  return {
    base,
    call,
    get output() {
      return program.output;
    },

    /** Has notices sent somewhere, instead of where they were sent under this name before. */
    sendTo: (name, url, secret) => post('POST', `_config/webhooks/${name}`, { url, secret }),

    /** A customer that is one of our users, with a card, and what they buy. */
    async subscribe(user, card = '4242424242424242') {
      const { id: customer } = await call('POST', 'customers', { 'metadata[user_id]': user });
      const { id: method } = await call('POST', 'payment_methods', {
        type: 'card',
        'card[number]': card,
        'card[exp_month]': '12',
        'card[exp_year]': String(new Date().getUTCFullYear() + 3),
        'card[cvc]': '123',
      });
      await call('POST', `payment_methods/${method}/attach`, { customer });
      await call('POST', `customers/${customer}`, { 'invoice_settings[default_payment_method]': method });
      return call('POST', 'subscriptions', { customer, 'items[0][plan]': PRICE });
    },

    /** Waits until it says that a notice of this kind was answered with a success. */
    async delivered(kind) {
      const deadline = Date.now() + NOTICE_MS;
      while (!program.output.includes(`webhook "${kind}" successfully delivered`)) {
        if (Date.now() > deadline) throw new Error(`No ${kind} was delivered.\n${program.output}`);
        await pause(POLL_MS);
      }
    },

    /** What it says was answered with something else. */
    refused: () =>
      [...program.output.matchAll(/webhook "(.*)" failed with response code (\d+)/g)].map(([, kind, code]) => `${kind} ${code}`),

    async stop() {
      await program.stop();
      await rm('/tmp/localstripe.pickle', { force: true });
    },
  };
}
