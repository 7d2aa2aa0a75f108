// Our Chat Completions codec against a real model server: llama.cpp, on a tiny model with random weights. It speaks
// nonsense, but it cuts, counts and stops as a real one does. Nothing leaves this machine, but for the first installation.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Program, startServer } from '../js/server.mjs';
import { CASE_MS, ask, chunksOf, send } from './chat.mjs';
import { INSTALL_MS, install } from './python.mjs';

const START_MS = 60_000;

/** As in tiny_model.py. */
const WINDOW = 4096;
/** Its tokens are bytes as a rule, where three are expected: the window is described as a third of what it is. */
const CONTEXT_TOKENS = 1300;

describe('llama.cpp as the provider', () => {
  let model;
  let server;
  let person;

  before(
    async () => {
      model = await startModel(await install('llama', 'llama-requirements.txt'));
      const name = 'DM__CHAT__PROVIDERS__LLAMA__';
      server = await startServer({
        DM__CHAT__ROUTE: 'llama',
        [`${name}KIND`]: 'openai',
        [`${name}BASE_URL`]: model.base,
        [`${name}MODEL`]: 'tiny',
        [`${name}CONTEXT_TOKENS`]: String(CONTEXT_TOKENS),
        [`${name}MAX_OUTPUT_TOKENS`]: '64',
      });
      person = await server.signUp();
    },
    { timeout: INSTALL_MS + START_MS },
  );
  after(async () => {
    await server?.stop();
    await model?.stop();
  });

  it('streams what it says, with a finish reason', { timeout: CASE_MS }, async () => {
    const chunks = chunksOf((await send(person, { accept: 'text/event-stream' })).text);
    const words = chunks.filter(({ type }) => type === 'text-delta');
    assert.ok(words.length > 1, 'the words came one by one');
    const finish = chunks.at(-1);
    assert.equal(finish.type, 'finish');
    assert.ok(['stop', 'length'].includes(finish.finishReason), finish.finishReason);
    // This server counts no tokens in a stream, so they are estimated.
    assert.equal(finish.messageMetadata.usage.estimated, true);
    assert.ok(finish.messageMetadata.usage.output_tokens > 0);
  });

  it('answers however long the conversation gets', { timeout: CASE_MS }, async () => {
    const id = crypto.randomUUID();
    for (let n = 0; n < 16; n++) {
      const { status, text } = await send(person, { accept: 'application/json', id, message: `m${n}` });
      assert.equal(status, 200, text);
      assert.equal(JSON.parse(text).message.metadata.status, 'complete');
    }
    // In a stream this server breaks the connection when its window is too small, so nothing could be mended then.
    assert.doesNotMatch(model.output(), /exceed context window/);
  });

  it('stops when it is told to, and is free for the next one', { timeout: CASE_MS }, async () => {
    const id = crypto.randomUUID();
    const answer = await ask(person, { accept: 'text/event-stream', id });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let heard = '';
    while (!heard.includes('"text-delta"')) {
      const { value, done } = await reader.read();
      assert.ok(!done, heard);
      heard += value;
    }
    await server.call(204, 'POST', `/v1/chat/${id}/stop`, { token: person.token });
    for (let next = await reader.read(); !next.done; next = await reader.read()) heard += next.value;
    assert.ok(['abort', 'finish'].includes(chunksOf(heard).at(-1).type), heard);

    const { status } = await send(person, { accept: 'application/json' });
    assert.equal(status, 200);
  });
});

/** Makes the model and serves it on a free port of this machine. */
async function startModel(bin) {
  const directory = await mkdtemp(join(tmpdir(), 'dm-model-'));
  const file = join(directory, 'tiny.gguf');
  const maker = fileURLToPath(new URL('tiny_model.py', import.meta.url));
  await promisify(execFile)(join(bin, 'python'), [maker, file]);
  const args = ['-m', 'llama_cpp.server', '--model', file, '--model_alias', 'tiny', '--n_ctx', String(WINDOW)];
  // Else a new request cuts the one before it off.
  args.push('--interrupt_requests', 'False', '--host', '127.0.0.1', '--port', '0');
  const program = new Program(join(bin, 'python'), args, { cwd: directory, env: { PATH: process.env.PATH } });
  const origin = await program.says(/Uvicorn running on (http:\/\/127\.0\.0\.1:\d+)/, START_MS);
  const stop = async () => {
    await program.stop();
    await rm(directory, { recursive: true, force: true });
  };
  return { base: `${origin}/v1`, output: () => program.output, stop };
}
