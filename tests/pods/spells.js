#!/usr/bin/env node
// A pod in JavaScript by docs/pod-protocol.md, of one lane: it answers `shout`, streams `spell` and ends at `crash`.
'use strict';
const net = require('net');

const lane = new net.Socket({ fd: 0, readable: true, writable: true });
let incarnation;

function send(ask, message) {
  const json = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(16);
  head.writeUInt32BE(json.length, 0);
  head.writeBigUInt64BE(ask, 8);
  lane.write(Buffer.concat([head, json]));
}

function work(ask, { operation, input }) {
  if (operation === 'crash') {
    console.error('about to crash');
    process.abort();
  }
  const text = input.text.toUpperCase();
  if (operation === 'spell') {
    for (const letter of text) send(ask, { type: 'chunk', data: { letter } });
  }
  send(ask, { type: 'answer', incarnation, output: { text }, blobs: [] });
}

const takes = {
  start: (ask, message) => {
    incarnation = message.incarnation;
    send(0n, { type: 'started' });
  },
  load: () => send(0n, { type: 'ready' }),
  ping: (ask, { seq }) => send(0n, { type: 'pong', seq, asks: 0 }),
  ask: work,
  drain: () => process.exit(0),
  exit: () => process.exit(0),
};

let held = Buffer.alloc(0);
lane.on('data', (data) => {
  held = Buffer.concat([held, data]);
  while (held.length >= 16) {
    const tail = 16 + held.readUInt32BE(0);
    const end = tail + held.readUInt32BE(4);
    if (held.length < end) return;
    const ask = held.readBigUInt64BE(8);
    const message = JSON.parse(held.subarray(16, tail).toString());
    held = held.subarray(end);
    takes[message.type]?.(ask, message);
  }
});
lane.on('end', () => process.exit(0));
send(0n, { type: 'hello', protocol: [1, 1], features: [], pid: process.pid, runtime: `node ${process.version}` });
