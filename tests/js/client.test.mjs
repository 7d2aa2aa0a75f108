// The AI SDK's own client, as `useChat` uses it, against the real server: a frontend needs no adapter.
//
// Every case runs with each major version, with the default transport, its request body and the ids that it makes.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';

import { startServer, within, withResolvers } from './server.mjs';

const CASE_MS = 30_000;
const WAIT_MS = 15_000;
const MAJORS = ['5', '6', '7'];
/** `ai` 7 asks for Node 22; what this test uses of it runs on 20. */
const NODE_FOR_7 = 20;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const REQUEST_ID = /^[A-Za-z0-9._-]{8,64}$/;

const cases = {
  async 'a reply arrives, is stored as it was shown, and the conversation goes on'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: 'Good evening! I had a long day at work.' });

    assert.deepEqual(chat.statuses, ['submitted', 'streaming', 'ready']);
    assert.equal(chat.error, undefined);
    assert.notEqual(chat.reply.text, '');

    const [{ message, finishReason, isAbort, isDisconnect, isError }] = chat.finished;
    assert.deepEqual([finishReason, isAbort, isDisconnect, isError], ['stop', false, false, false]);
    const { usage, quota, model, ai_generated, generation_id } = message.metadata;
    assert.match(generation_id, UUID);
    assert.deepEqual([model, ai_generated], ['demo', true]);
    assert.ok(usage.input_tokens > 0 && usage.output_tokens > 0, JSON.stringify(usage));
    assert.equal(usage.estimated, false);
    assert.equal(quota.used, 1);
    assert.equal(quota.limit, 20);
    assert.ok(Date.parse(quota.resets_at) > Date.now(), quota.resets_at);
    await agreesWithHistory(chat, person, ['complete', 'complete']);

    // The client posts the whole history now, with parts and metadata that only it knows.
    await chat.sendMessage({ text: 'And what did you do?' });
    assert.equal(chat.status, 'ready');
    assert.equal(chat.finished[1].message.metadata.quota.used, 2);
    await agreesWithHistory(chat, person, ['complete', 'complete', 'complete', 'complete']);
  },

  async 'an error in the middle keeps the text so far, and the next message works'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: '!error Tell me about your day.' });

    assert.deepEqual(chat.statuses, ['submitted', 'streaming', 'error']);
    const problem = JSON.parse(chat.error.message);
    assert.equal(problem.code, 'provider_failed');
    assert.equal(problem.type, '/problems/provider_failed');
    assert.match(problem.request_id, REQUEST_ID);
    assert.equal(words(chat.reply.text), 12);
    assert.equal(chat.finished[0].isError, true);
    await agreesWithHistory(chat, person, ['complete', 'interrupted']);

    await chat.sendMessage({ text: 'Are you still there?' });
    assert.equal(chat.status, 'ready');
    assert.equal(chat.error, undefined);
    await agreesWithHistory(chat, person, ['complete', 'interrupted', 'complete', 'complete']);
  },

  async 'an error before the first word has a code and costs nothing'(ai) {
    const person = await server.signUp();
    for (const [trigger, code, retryAfter] of [
      ['!refuse', 'provider_failed', undefined],
      ['!busy', 'provider_unavailable', 30],
    ]) {
      const chat = open(ai, person);
      await chat.sendMessage({ text: `${trigger} Hello.` });

      assert.equal(chat.status, 'error', trigger);
      const problem = JSON.parse(chat.error.message);
      assert.deepEqual([problem.code, problem.retry_after_s], [code, retryAfter]);
      assert.match(problem.request_id, REQUEST_ID);
      assert.equal(chat.reply.text, '');
      const history = await person.history(chat.id);
      assert.deepEqual(statuses(history), ['complete', 'failed']);
    }
    const { quota } = await person.call(200, 'GET', '/v1/session');
    assert.equal(quota.used, 0);
  },

  async 'a refusal before the stream is a problem that a paywall can be made of'(ai) {
    const person = await frugalServer.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: 'Hello!' });
    assert.equal(chat.status, 'ready');
    await chat.sendMessage({ text: 'One more?' });

    assert.deepEqual(chat.statuses.slice(-2), ['submitted', 'error']);
    const problem = JSON.parse(chat.error.message);
    assert.deepEqual(
      [problem.status, problem.code, problem.used, problem.limit],
      [402, 'quota_exhausted', 1, 1],
    );
    assert.equal(new URL(problem.upgrade_url).pathname, '/subscribe');
    assert.ok(Date.parse(problem.resets_at) > Date.now(), problem.resets_at);
    assert.match(problem.request_id, REQUEST_ID);
    assert.deepEqual(statuses(await person.history(chat.id)), ['complete', 'complete']);
  },

  async 'a notice that older messages were left out is a part of the reply, and the next message works'(ai) {
    const person = await forgetfulServer.signUp();
    const chat = open(ai, person);
    const long = 'words '.repeat(500);
    await chat.sendMessage({ text: long });
    assert.deepEqual(dataOf(chat.reply.message), []);
    await chat.sendMessage({ text: long });
    assert.equal(chat.status, 'ready');
    assert.deepEqual(dataOf(chat.reply.message), [['data-context', { truncated: true, messages_used: 1 }]]);

    // Posts the notice along with the whole history.
    await chat.sendMessage({ text: 'Are you still there?' });
    assert.equal(chat.status, 'ready');
    assert.equal(dataOf(chat.reply.message).length, 1);
    await agreesWithHistory(chat, person, Array(6).fill('complete'));
  },

  async 'a stop ends the stream and keeps the text so far'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    const sending = chat.sendMessage({ text: '!long Tell me everything.' });
    await chat.until('some words', () => words(chat.reply?.text) >= 5);
    const { generation_id } = chat.reply.message.metadata;
    await person.call(204, 'POST', `/v1/chat/${chat.id}/stop`, { generation_id });
    await sending;

    assert.deepEqual(chat.statuses, ['submitted', 'streaming', 'ready']);
    assert.equal(chat.error, undefined);
    assert.ok(words(chat.reply.text) >= 5, chat.reply.text);
    await agreesWithHistory(chat, person, ['complete', 'stopped']);
  },

  async 'a reply goes on without its reader and is resumed from its first word, once'(ai) {
    const person = await server.signUp();
    const left = open(ai, person);
    const sending = left.sendMessage({ text: '!long Tell me everything.' });
    await left.until('some words', () => words(left.reply?.text) >= 5);
    await left.stop(); // Closes the connection; our stop endpoint is not called.
    await sending;
    const seen = left.reply;

    // A page that is opened anew: it knows the conversation's id and what is stored.
    const stored = await person.history(left.id);
    assert.deepEqual(statuses(stored), ['complete'], 'the reply is still being made');
    const back = open(ai, person, { id: left.id, messages: stored });
    await back.resumeStream();

    assert.deepEqual(back.statuses, ['submitted', 'streaming', 'ready']);
    assert.equal(back.error, undefined);
    assert.equal(back.reply.message.id, seen.message.id);
    assert.equal(back.reply.message.metadata.generation_id, seen.message.metadata.generation_id);
    assert.ok(back.reply.text.startsWith(seen.text), 'from its first word');
    assert.ok(words(back.reply.text) > 300, 'to its last');
    await agreesWithHistory(back, person, ['complete', 'complete']);

    await person.call(204, 'GET', `/v1/chat/${back.id}/stream`);
    const before = structuredClone(back.messages);
    await back.resumeStream();
    assert.equal(back.status, 'ready');
    assert.equal(back.error, undefined);
    assert.deepEqual(back.messages, before);
  },

  async 'a message that is sent again gets the same reply and is charged once'(ai) {
    const person = await server.signUp();
    const text = 'Good morning! Did you sleep well?';
    const first = open(ai, person);
    await first.sendMessage({ text });
    const { id } = first.messages[0];

    const again = open(ai, person, { id: first.id });
    await again.sendMessage({ id, role: 'user', parts: [{ type: 'text', text }] });

    assert.deepEqual(again.statuses, ['submitted', 'streaming', 'ready']);
    assert.equal(again.reply.message.id, first.reply.message.id);
    assert.equal(again.reply.text, first.reply.text);
    assert.equal(again.finished[0].message.metadata.quota.used, 1);
    await agreesWithHistory(again, person, ['complete', 'complete']);
    const { quota } = await person.call(200, 'GET', '/v1/session');
    assert.equal(quota.used, 1);
  },

  async 'another reply takes the place of the last one, under its own id'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: 'Good evening!' });
    await chat.sendMessage({ text: 'Tell me something.' });
    const ids = [chat.reply.message.id];
    for (const options of [undefined, {}, 'by id']) {
      await chat.regenerate(options === 'by id' ? { messageId: chat.reply.message.id } : options);
      assert.equal(chat.status, 'ready');
      assert.equal(chat.error, undefined);
      assert.notEqual(chat.reply.text, '');
      ids.push(chat.reply.message.id);
      await agreesWithHistory(chat, person, ['complete', 'complete', 'complete', 'complete']);
    }
    assert.equal(new Set(ids).size, 4);
    assert.equal(chat.finished.at(-1).message.metadata.quota.used, 5);

    await chat.sendMessage({ text: 'And then?' });
    await agreesWithHistory(chat, person, Array(6).fill('complete'));
    await chat.regenerate({ messageId: chat.messages[4].id }); // By the message that is answered.
    assert.equal(chat.status, 'ready');
    await agreesWithHistory(chat, person, Array(6).fill('complete'));
    // The client cuts its list whatever the server says; the history tells what is there.
    await chat.regenerate({ messageId: chat.messages[1].id });
    assert.equal(chat.status, 'error');
    assert.equal(JSON.parse(chat.error.message).code, 'conflict');
    assert.equal((await person.history(chat.id)).length, 6);
  },

  async 'an edited message is answered anew, and what came after it is gone'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    for (const text of ['Good evening!', 'Tell me something.', 'And then?']) await chat.sendMessage({ text });
    const [, , { id: messageId }] = chat.messages;
    await chat.sendMessage({ messageId, text: 'Tell me something else.' });
    assert.equal(chat.status, 'ready');
    assert.equal(chat.messages.length, 4);
    await agreesWithHistory(chat, person, Array(4).fill('complete'));
    assert.equal(chat.finished.at(-1).message.metadata.quota.used, 4);

    // The same edit again is the same reply; another one is not.
    const { id } = chat.reply.message;
    await chat.sendMessage({ messageId, text: 'Tell me something else.' });
    assert.equal(chat.reply.message.id, id);
    await chat.sendMessage({ messageId, text: 'Tell me nothing.' });
    assert.notEqual(chat.reply.message.id, id);
    await agreesWithHistory(chat, person, Array(4).fill('complete'));
    assert.equal(chat.finished.at(-1).message.metadata.quota.used, 5);
  },

  async 'another reply goes on without its reader, is joined, and is resumed'(ai) {
    const person = await server.signUp();
    const left = open(ai, person);
    await left.sendMessage({ text: '!long Tell me everything.' });
    const old = left.reply;
    const regenerating = left.regenerate();
    await left.until('some new words', () => isAnother(left.reply, old) && words(left.reply.text) >= 5);
    const { id } = left.reply.message;
    await left.stop(); // Closes the connection; our stop endpoint is not called.
    await regenerating;

    // Until it is there, the old one is what the history has.
    const stored = await person.history(left.id);
    assert.deepEqual(
      stored.map((message) => textOf(message)),
      [textOf(left.messages[0]), old.text],
    );
    const joined = left.regenerate({ messageId: id }); // It is the reply that is being made.
    const back = open(ai, person, { id: left.id, messages: stored.slice(0, -1) });
    await back.resumeStream();
    await joined;
    assert.deepEqual([left.status, back.status], ['ready', 'ready']);
    for (const chat of [left, back]) {
      assert.equal(chat.reply.message.id, id);
      await agreesWithHistory(chat, person, ['complete', 'complete']);
    }
    const { quota } = await person.call(200, 'GET', '/v1/session');
    assert.equal(quota.used, 2);
  },

  async 'a stop keeps what there is of another reply'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: '!long Tell me everything.' });
    const old = chat.reply;
    const regenerating = chat.regenerate();
    await chat.until('some new words', () => isAnother(chat.reply, old) && words(chat.reply.text) >= 5);
    await person.call(204, 'POST', `/v1/chat/${chat.id}/stop`, {});
    await regenerating;
    assert.equal(chat.status, 'ready');
    assert.equal(chat.error, undefined);
    await agreesWithHistory(chat, person, ['complete', 'stopped']);
  },

  async 'another reply that breaks off replaces, a failed one is tried again'(ai) {
    const person = await server.signUp();
    const chat = open(ai, person);
    await chat.sendMessage({ text: '!error Tell me about your day.' });
    const broken = chat.reply.message.id;
    await chat.regenerate();
    assert.equal(chat.status, 'error');
    assert.equal(JSON.parse(chat.error.message).code, 'provider_failed');
    assert.notEqual(chat.reply.message.id, broken);
    await agreesWithHistory(chat, person, ['complete', 'interrupted']);

    const { id: messageId } = chat.messages[0];
    await chat.sendMessage({ messageId, text: '!busy Hello.' });
    assert.equal(JSON.parse(chat.error.message).code, 'provider_unavailable');
    await chat.regenerate({ messageId: chat.reply.message.id });
    assert.equal(JSON.parse(chat.error.message).code, 'provider_unavailable');
    await agreesWithHistory(chat, person, ['complete', 'failed']);
    await chat.sendMessage({ messageId, text: 'Hello.' });
    await agreesWithHistory(chat, person, ['complete', 'complete']);
  },

  async 'a message that never arrived is sent by "try again", however the client words it'(ai) {
    const person = await server.signUp();
    const { token } = person;
    const chat = open(ai, person);
    for (const retry of [
      () => chat.regenerate(),
      () => chat.sendMessage({ messageId: chat.messages.at(-1).id, text: textOf(chat.messages.at(-1)) }),
    ]) {
      person.token = 'not one of ours';
      await chat.sendMessage({ text: 'Is anybody there?' });
      assert.equal(JSON.parse(chat.error.message).code, 'unauthenticated');
      person.token = token;
      await retry();
      assert.equal(chat.status, 'ready');
      assert.equal(chat.error, undefined);
    }
    await agreesWithHistory(chat, person, Array(4).fill('complete'));
  },
};

let server;
/** A server where a free user has one message a day. */
let frugalServer;
/** A server with a model that little fits. */
let forgetfulServer;
/** Then the servers' logs are worth reading. */
let hasFailed = false;

before(async () => {
  const pace = { DM__CHAT__PROVIDERS__DEMO__PACE: '5ms' };
  [server, frugalServer, forgetfulServer] = await Promise.all([
    startServer(pace),
    startServer({ ...pace, DM__CHAT__FREE_MESSAGES_PER_DAY: '1' }),
    startServer({
      ...pace,
      DM__CHAT__PROVIDERS__DEMO__CONTEXT_TOKENS: '2200',
      DM__CHAT__PROVIDERS__DEMO__MAX_OUTPUT_TOKENS: '100',
    }),
  ]);
});

after(async () => {
  const servers = [server, frugalServer, forgetfulServer].filter(Boolean);
  await Promise.all(servers.map((server) => server.stop()));
  if (hasFailed) console.error(servers.map(({ output }) => output).join('\n'));
});

// Everybody in these tests is somebody of their own, so the majors need not wait for each other. Cases do: sign-ups all
// at once are more than a small machine accepts.
describe('the AI SDK client', { concurrency: true }, () => {
  for (const major of MAJORS) {
    const tooOld = major === '7' && Number(process.versions.node.split('.')[0]) < NODE_FOR_7;
    const skip = tooOld && `ai 7 needs Node ${NODE_FOR_7} or newer; this is ${process.version}`;
    describe(`ai ${major}`, { concurrency: 1 }, () => {
      for (const [name, run] of Object.entries(cases)) {
        it(name, { skip, timeout: CASE_MS }, async () => {
          try {
            await run(await import(`ai${major}`));
          } catch (error) {
            hasFailed = true;
            throw error;
          }
        });
      }
    });
  }
});

/** What React, Vue or Svelte keep for the SDK, without any of them: its state, and a way to hear of changes. */
class State {
  statuses = [];
  #status = 'ready';
  #error;
  #messages;
  #listeners = new Set();

  constructor(messages) {
    this.#messages = messages;
  }

  get status() {
    return this.#status;
  }
  set status(status) {
    this.#status = status;
    this.statuses.push(status);
    this.#changed();
  }

  get error() {
    return this.#error;
  }
  set error(error) {
    this.#error = error;
    this.#changed();
  }

  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = [...messages];
    this.#changed();
  }

  pushMessage = (message) => {
    this.messages = [...this.#messages, message];
  };
  popMessage = () => {
    this.messages = this.#messages.slice(0, -1);
  };
  // The SDK goes on writing into its message, so what is kept is a copy, as in its React binding.
  replaceMessage = (index, message) => {
    this.messages = this.#messages.with(index, this.snapshot(message));
  };
  snapshot = (thing) => structuredClone(thing);

  /** Resolves as soon as `holds` is true. */
  async until(holds) {
    const { promise, resolve } = withResolvers();
    const listener = () => holds() && resolve();
    this.#listeners.add(listener);
    listener();
    await promise.finally(() => this.#listeners.delete(listener));
  }

  #changed() {
    for (const listener of this.#listeners) listener();
  }
}

/** Opens a conversation with the real client: its default transport, and its own ids unless one is given. */
function open(ai, person, { id, messages = [] } = {}) {
  class Chat extends ai.AbstractChat {
    /** What `onFinish` was called with. */
    finished = [];

    constructor() {
      super({
        ...(id && { id }),
        state: new State(messages),
        transport: new ai.DefaultChatTransport({
          api: `${person.server.base}/chat`,
          headers: () => ({ authorization: `Bearer ${person.token}` }),
        }),
        onFinish: (event) => this.finished.push(structuredClone(event)),
      });
    }

    /** The statuses that it went through. */
    get statuses() {
      return this.state.statuses;
    }

    /** The last message, if it is the companion's. */
    get reply() {
      const message = this.messages.at(-1);
      return message?.role === 'assistant' ? { message, text: textOf(message) } : undefined;
    }

    until(what, holds) {
      return within(WAIT_MS, what, this.state.until(holds));
    }
  }
  return new Chat();
}

/** What the client shows is what the server has stored, with its ids. */
async function agreesWithHistory(chat, person, expected) {
  const history = await person.history(chat.id);
  const shown = ({ id, role, parts }) => ({ id, role, text: textOf({ parts }) });
  assert.deepEqual(chat.messages.map(shown), history.map(shown));
  assert.deepEqual(statuses(history), expected);
}

/** Some majors keep the old reply in the list for a moment. */
function isAnother(reply, old) {
  return reply !== undefined && reply.message.id !== old.message.id;
}

function statuses(history) {
  return history.map(({ metadata }) => metadata.status);
}

function textOf({ parts }) {
  return parts.map(({ type, text }) => (type === 'text' ? text : '')).join('');
}

/** The notices in a message. */
function dataOf({ parts }) {
  return parts.filter(({ type }) => type.startsWith('data-')).map(({ type, data }) => [type, data]);
}

function words(text = '') {
  return text.split(/\s+/).filter(Boolean).length;
}
