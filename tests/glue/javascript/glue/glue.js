// Glue in JavaScript: finds the words of a text and lets the pod count them.
import { forward } from 'hob:glue/output@0.1.0';
import { start } from 'hob:glue/pod@0.1.0';
import { write } from 'hob:glue/log@0.1.0';
import { split } from './split.js';

const deeds = {
  print: () => null,
  throw: () => {
    throw new Error('it went wrong');
  },
  refuse: () => {
    throw { code: 'too_many_words', message: 'more words than there may be', hint: 'send fewer', detail: '{"most": 3}' };
  },
  spin: () => {
    for (;;);
  },
  fill: () => {
    const all = [];
    for (;;) all.push(new Uint8Array(1 << 20).fill(1));
  },
  clock: () => [Date.now(), Date.now()],
  random: () => Math.random(),
  environment: () => typeof process + typeof fetch + typeof console,
};

export function run(request) {
  const input = JSON.parse(request.input);
  if (request.operation === 'run') {
    return { output: JSON.stringify(deeds[input]()), blobs: [] };
  }
  const words = split(input.text);
  write('info', `${words.length} words`);
  const call = start(request.operation, JSON.stringify({ words }), []);
  const event = request.operation === 'kinds' ? forward(call) : call.next();
  return { output: event.data, blobs: event.blobs };
}
