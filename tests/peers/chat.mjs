// Somebody who talks with the program whose provider is a foreign one.

import assert from 'node:assert/strict';

/** How long one call may take. */
export const CASE_MS = 60_000;
export const QUESTION = 'How is the sea this evening?';

/** Sends a message, in a conversation of its own if none is named, and leaves the answer to be read. */
export function ask(person, { accept, id = crypto.randomUUID(), message = 'm1' }) {
  return fetch(`${person.server.base}/chat`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${person.token}`,
      'content-type': 'application/json',
      accept,
    },
    body: JSON.stringify({
      id,
      message: { id: message, role: 'user', parts: [{ type: 'text', text: QUESTION }] },
    }),
    signal: AbortSignal.timeout(CASE_MS),
  });
}

/** Sends a message; all that was answered, headers included. */
export async function send(person, question) {
  const answer = await ask(person, question);
  const text = await answer.text();
  const all = `${JSON.stringify([...answer.headers])}\n${text}`;
  return { status: answer.status, text, all };
}

/** The chunks of a UI message stream, which must have come to its end. */
export function chunksOf(stream) {
  const events = stream.split('\n\n').filter((event) => event && !event.startsWith(':'));
  assert.equal(events.pop(), 'data: [DONE]');
  return events.map((event) => JSON.parse(event.replace(/^data: /, '')));
}
