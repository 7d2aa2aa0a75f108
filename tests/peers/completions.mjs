// A model that says one thing, in OpenAI's words: what a peer translates needs to come from somewhere.

import { createServer } from 'node:http';

/** Starts it on a free port of this machine. */
export async function startCompletions(reply) {
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const chunk of chunksOf(reply)) response.write(`data: ${JSON.stringify(chunk)}\n\n`);
      response.end('data: [DONE]\n\n');
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { base: `http://127.0.0.1:${server.address().port}/v1`, stop };
}

function* chunksOf(reply) {
  const chunk = (delta, finish_reason = null) => ({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 0,
    model: 'lighthouse',
    choices: [{ index: 0, delta, finish_reason }],
  });
  yield chunk({ role: 'assistant', content: '' });
  yield chunk({ reasoning_content: 'What does the sea do in the evening?' });
  for (const word of reply.match(/\S+\s*/g)) yield chunk({ content: word });
  yield chunk({}, 'stop');
  const usage = { prompt_tokens: 31, completion_tokens: 12, total_tokens: 43 };
  yield { ...chunk({}), choices: [], usage };
}
