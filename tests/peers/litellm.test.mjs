// Our codecs against somebody else's server: LiteLLM's proxy, which is what many people have in front of their models. It
// speaks OpenAI's wire and Anthropic's; nothing leaves this machine, but for the first installation.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Program, startServer } from '../js/server.mjs';
import { CASE_MS, QUESTION, chunksOf, send } from './chat.mjs';
import { startCompletions } from './completions.mjs';
import { INSTALL_MS, install } from './python.mjs';

const START_MS = 60_000;

const KEY = 'sk-peer-3f1c9a7e5b2d';
const WRONG_KEY = 'sk-peer-00f00f00f00f';
/** The models are those of litellm.yaml. In Anthropic's wire it streams only what it translates. */
const WIRES = [
  { kind: 'openai', model: 'lighthouse' },
  { kind: 'anthropic', model: 'lighthouse-translated' },
];
/** The same as in litellm.yaml. */
const REPLY = 'The tide comes in slowly, and nobody is in a hurry.';

describe('LiteLLM as the provider', () => {
  let completions;
  let proxy;

  before(
    async () => {
      const bin = await install('litellm', 'requirements.txt');
      completions = await startCompletions(REPLY);
      proxy = await startProxy(bin, completions.base);
    },
    { timeout: INSTALL_MS + START_MS },
  );
  after(async () => {
    await proxy?.stop();
    await completions?.stop();
  });

  for (const wire of WIRES) describe(`in the wire of ${wire.kind}`, () => speaks(wire, () => proxy.base));
});

/** What holds in every wire that the proxy speaks. */
function speaks({ kind, model }, base) {
  describe('with its key', () => {
    let server;
    let person;
    before(async () => {
      server = await startServer(provider(KEY));
      person = await server.signUp();
    });
    after(() => server?.stop());

    it('streams its words, finish reason and token counts', { timeout: CASE_MS }, async () => {
      const { status, text } = await send(person, { accept: 'text/event-stream' });
      assert.equal(status, 200, text);
      const chunks = chunksOf(text);
      const deltas = chunks.filter(({ type }) => type === 'text-delta');
      assert.equal(deltas.map(({ delta }) => delta).join(''), REPLY);

      const order = chunks.map(({ type }) => type).filter((type) => type !== 'text-delta');
      const expected = ['start', 'start-step', 'data-quota', 'text-start', 'text-end', 'finish-step', 'finish'];
      assert.deepEqual(order, expected);
      const finish = chunks.at(-1);
      assert.equal(finish.finishReason, 'stop');
      isCounted(finish.messageMetadata.usage);
      assert.equal(finish.messageMetadata.model, model);
    });

    it('answers as JSON', { timeout: CASE_MS }, async () => {
      const { status, text } = await send(person, { accept: 'application/json' });
      assert.equal(status, 200, text);
      const { message, usage } = JSON.parse(text);
      assert.deepEqual(message.parts.map((part) => part.text), [REPLY]);
      assert.equal(message.metadata.status, 'complete');
      assert.equal(message.metadata.model, model);
      isCounted(usage);
    });

    it('logs neither key nor message, whatever the level', () => {
      for (const secret of [KEY, QUESTION, REPLY]) hides(server.output, secret);
    });
  });

  // LiteLLM without a database answers 400 to a key that it does not know, where others say 401.
  describe('with a wrong key', () => {
    let server;
    let person;
    before(async () => {
      server = await startServer(provider(WRONG_KEY));
      person = await server.signUp();
    });
    after(() => server?.stop());

    it('is a failure of the provider, and the key is nowhere', { timeout: CASE_MS }, async () => {
      const json = await send(person, { accept: 'application/json' });
      assert.equal(json.status, 502, json.text);
      assert.equal(JSON.parse(json.text).code, 'provider_failed');

      const stream = await send(person, { accept: 'text/event-stream' });
      assert.equal(stream.status, 200, stream.text);
      const last = chunksOf(stream.text).at(-1);
      assert.equal(last.type, 'error');
      assert.equal(JSON.parse(last.errorText).code, 'provider_failed');

      for (const output of [json.all, stream.all, server.output]) hides(output, WRONG_KEY);
    });
  });

  function provider(key) {
    const name = 'DM__CHAT__PROVIDERS__PEER__';
    return {
      DM__CHAT__ROUTE: 'peer',
      [`${name}KIND`]: kind,
      [`${name}BASE_URL`]: base(),
      [`${name}API_KEY`]: key,
      [`${name}MODEL`]: model,
      [`${name}CONTEXT_TOKENS`]: '8192',
      [`${name}MAX_OUTPUT_TOKENS`]: '500',
      DM__LOG__LEVEL: 'trace',
    };
  }
}

/** The proxy counts tokens when it is asked to, so nothing needs to be estimated. */
function isCounted(usage) {
  assert.equal(usage.estimated, false);
  assert.ok(usage.input_tokens > 0 && usage.output_tokens > 0, JSON.stringify(usage));
}

function hides(output, secret) {
  const line = output.split('\n').find((line) => line.includes(secret));
  assert.equal(line, undefined, 'a secret was shown');
}

/** Starts the proxy on a free port of this machine; resolves when it is healthy. */
async function startProxy(bin, completions) {
  const config = fileURLToPath(new URL('litellm.yaml', import.meta.url));
  const args = ['--config', config, '--host', '127.0.0.1', '--port', '0', '--telemetry', 'False'];
  const env = {
    PATH: process.env.PATH,
    LITELLM_MASTER_KEY: KEY,
    PEER_COMPLETIONS: completions,
    // Its lists come with the package; it would fetch newer ones.
    LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS: 'True',
    LITELLM_LOCAL_AUTOROUTER_PRESETS: 'True',
    LITELLM_LOCAL_BLOG_POSTS: 'True',
    LITELLM_LOCAL_POLICY_TEMPLATES: 'True',
  };
  // Not the rest of our environment: it would act on keys and databases that it finds there.
  const program = new Program(join(bin, 'litellm'), args, { cwd: bin, env });
  const origin = await program.says(/Uvicorn running on (http:\/\/127\.0\.0\.1:\d+)/, START_MS);
  const health = await fetch(`${origin}/health/readiness`, { signal: AbortSignal.timeout(START_MS) });
  assert.equal(health.status, 200, await health.text());
  return { base: `${origin}/v1`, stop: () => program.stop() };
}
