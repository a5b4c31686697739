// The JavaScript client's times and repetitions, with a clock and sockets that do as they are told. Run by Node's own tests.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { AgentClient } from "../../npm/client/index.mjs";

const MINUTE = 60000;
const realNow = Date.now;
let clock, timers, sockets;

beforeEach(() => {
  clock = 1;
  timers = new Set();
  sockets = [];
  Date.now = realNow;
});

globalThis.setTimeout = (act, delay) => {
  assert.equal(typeof delay, "number");
  const timer = { act, at: clock + delay };
  timers.add(timer);
  return timer;
};
globalThis.clearTimeout = (timer) => timers.delete(timer);
performance.now = () => clock;
Math.random = () => 1;

// Let everything happen that waits for no timer.
const settle = () => new Promise((resolve) => setImmediate(resolve));

// Let time pass.
async function pass(time) {
  const end = clock + time;
  for (;;) {
    await settle();
    const next = [...timers].filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
    if (!next) break;
    timers.delete(next);
    clock = next.at;
    next.act();
  }
  clock = end;
}

class Socket {
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, sent: [], reactions: {} });
    sockets.push(this);
  }
  on(name, react) {
    this.reactions[name] = react;
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.closedWith = code;
  }
  says(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }
  greets() {
    const greeting = { ws_id: "ws-001", agent: "octavia", resumed: true, pending: 0, seq: 0, heartbeat: 15 };
    this.says({ type: "connected", ...greeting });
  }
  brings(seq, msg_id = `m${seq}`) {
    this.says({ type: "message", seq, msg_id, content: seq });
  }
  fails() {
    this.onerror({ message: "connection refused" });
  }
  answers({ ref }, result) {
    this.says({ type: "result", ref, ...result });
  }
  ends(code = 1006) {
    this.onclose({ code, reason: "" });
  }
}

// What a browser has: Pings are answered unseen.
class BrowserSocket extends Socket {
  on = undefined;
}

const last = () => sockets.at(-1);

function made(options) {
  const lost = [];
  const onLost = ({ code }, delay) => lost.push([code, delay]);
  const client = new AgentClient("octavia", { url: "http://gateway", wsId: "ws-001", WebSocket: Socket, onLost, ...options });
  return { client, lost };
}

async function connected(options) {
  const { client, lost } = made(options);
  client.connect();
  await settle();
  last().greets();
  return { client, lost, messages: client[Symbol.asyncIterator]() };
}

function token(seconds) {
  const claims = Buffer.from(JSON.stringify({ name: "ÿ>?", exp: realNow() / 1000 + seconds })).toString("base64url");
  return `e30.${claims}.x`;
}

test("the delays grow to 30 seconds, and start over only after a minute of health", async () => {
  const { lost } = await connected();
  const delays = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000];
  for (const delay of delays) {
    last().ends();
    await pass(delay - 1);
    const before = sockets.length;
    await pass(1);
    assert.equal(sockets.length, before + 1);
  }
  assert.deepEqual(lost.map(([, delay]) => delay), delays);
  last().greets();
  last().reactions.ping();
  await pass(30000);
  last().reactions.ping();
  await pass(29999);
  last().ends();
  assert.equal(lost.at(-1)[1], 30000);
  await pass(30000);
  last().greets();
  for (let minute = 0; minute < 2; minute += 1) {
    await pass(30000);
    last().reactions.ping();
  }
  last().ends();
  assert.equal(lost.at(-1)[1], 500);
});

test("half of a delay is chance", async () => {
  const { lost } = await connected();
  Math.random = () => 0;
  try {
    last().ends();
  } finally {
    Math.random = () => 1;
  }
  assert.deepEqual(lost, [[1006, 250]]);
});

for (const code of [1000, 1009, 4000, 4003, 4009, 4010]) {
  test(`${code} is final`, async () => {
    const { messages, lost } = await connected();
    last().ends(code);
    await assert.rejects(messages.next(), { name: "AgentError", code });
    assert.deepEqual([lost, timers.size], [[], 0]);
  });
}

for (const code of [1001, 1002, 1005, 1006, 1007, 1011, 1012, 4001, 4008, 4029]) {
  test(`after ${code} it comes back`, async () => {
    const { lost } = await connected({ token: () => "t" });
    last().ends(code);
    await pass(500);
    assert.deepEqual(lost, [[code, 500]]);
    assert.equal(sockets.length, 2);
  });
}

test("a gateway that does not answer the first time is an error, and later not", async () => {
  const { client } = made();
  const first = client.connect();
  await settle();
  last().ends();
  await assert.rejects(first, { code: "unavailable" });
  await assert.rejects(client.send("ws-002", 1), { code: "unavailable" });
  await assert.rejects(client.connect(), { code: "unavailable" });
  assert.deepEqual([sockets.length, timers.size], [1, 0]);
});

test("an attempt that ends with an error alone is tried again, and a close after the error changes nothing", async () => {
  const { client, lost } = made({ waitForGateway: true });
  client.connect();
  await settle();
  last().fails();
  last().ends();
  await pass(500);
  last().fails();
  assert.deepEqual(lost, [[1006, 500], [1006, 1000]]);
  await pass(1000);
  const closed = client.close();
  last().fails();
  await closed;
  assert.deepEqual([sockets.length, timers.size], [3, 0]);
});

test("an error of a socket that was greeted leaves the verdict to the close after it", async () => {
  const { lost, messages } = await connected();
  last().fails();
  last().ends(4009);
  await assert.rejects(messages.next(), { code: 4009 });
  assert.deepEqual(lost, []);
});

test("a gateway that takes connections and says nothing is lost after ten seconds", async () => {
  const { client, lost } = made({ waitForGateway: true });
  client.connect();
  await pass(9999);
  assert.deepEqual(lost, []);
  await pass(1);
  assert.deepEqual([lost, last().closedWith], [[[1006, 500]], 4008]);
});

test("what is no gateway ends it", async () => {
  const { client } = made({ waitForGateway: true });
  const first = client.connect();
  await settle();
  last().onmessage({ data: "hello" });
  await assert.rejects(first, { code: "invalid" });
});

test("silence of three heartbeats ends a socket on which Pings were seen, with a code that keeps the connection", async () => {
  const { lost } = await connected();
  await pass(MINUTE);
  assert.deepEqual(lost, []);
  last().reactions.ping();
  await pass(44999);
  assert.deepEqual(lost, []);
  const silent = last();
  await pass(1);
  assert.deepEqual([lost.length, silent.closedWith], [1, 4008]);
  // What it says later is not heard.
  silent.ends(4009);
  await pass(500);
  assert.equal(sockets.length, 2);
});

test("where Pings cannot be seen, silence ends it while a request is on the way", async () => {
  const { client, lost } = await connected({ WebSocket: BrowserSocket });
  await pass(10 * MINUTE);
  const sent = client.send("ws-002", 1);
  await pass(44999);
  assert.deepEqual(lost, []);
  await pass(1);
  assert.equal(lost.length, 1);
  await pass(500);
  last().greets();
  const [{ ref }] = last().sent;
  last().says({ type: "result", ref, ok: true, msg_id: "m" });
  assert.equal(await sent, "m");
  await pass(10 * MINUTE);
  assert.equal(lost.length, 1);
});

test("the token goes into the subprotocol and the rest into the address", async () => {
  await connected({ token: () => Promise.resolve("t"), url: "https://host/base/", metadata: { a: "é&" } });
  assert.deepEqual(last().protocols, ["ws-manager.v1", "bearer.t"]);
  const { href, searchParams } = last().url;
  assert.match(href, /^wss:\/\/host\/base\/ws\?/);
  const query = { agent: "octavia", ack: "explicit", ws_id: "ws-001", metadata: '{"a":"é&"}' };
  assert.deepEqual(Object.fromEntries(searchParams), query);
});

test("a function is asked before each attempt, and may fail but the first time", async () => {
  let asked = 0;
  const { lost } = await connected({
    token: async () => {
      asked += 1;
      if (asked === 2) throw new Error("offline");
      return `t${asked}`;
    },
  });
  last().ends(4001);
  await pass(500);
  assert.deepEqual([asked, sockets.length, lost.length], [2, 1, 2]);
  await pass(1000);
  assert.deepEqual(last().protocols[1], "bearer.t3");
  const { client } = made({ token: () => Promise.reject(new Error("offline")) });
  await assert.rejects(client.connect(), ({ code, cause }) => code === "unavailable" && cause.message === "offline");
});

test("text that has expired is not tried again, whatever the gateway says", async () => {
  const { messages } = await connected({ token: token(3600) });
  last().ends(4001);
  await assert.rejects(messages.next(), { code: 4001 });

  const other = await connected({ token: token(3600) });
  last().ends();
  await pass(500);
  last().ends();
  assert.equal(other.lost.length, 2);
  await pass(1000);
  Date.now = () => realNow() + 3601 * 1000;
  last().ends();
  await assert.rejects(other.messages.next(), { code: 4001 });
  assert.equal(timers.size, 0);
});

test("what comes again is not handed out again, and answered as before", async () => {
  const { client, messages } = await connected();
  for (const seq of [1, 2, 3, 4]) last().brings(seq);
  const taken = [];
  for (let count = 0; count < 3; count += 1) taken.push((await messages.next()).value);
  client.ack(taken[0]);
  client.reject(taken[1], "no".repeat(200));
  assert.deepEqual(last().sent, [{ type: "ack", seq: 1 }, { type: "reject", seq: 2, reason: "no".repeat(100) }]);
  last().ends();
  await pass(500);
  last().greets();
  for (const seq of [1, 2, 3, 4]) last().brings(seq);
  assert.deepEqual(last().sent, [{ type: "ack", seq: 1 }, { type: "reject", seq: 2, reason: "no".repeat(100) }]);
  last().brings(5);
  assert.deepEqual([(await messages.next()).value.seq, (await messages.next()).value.seq], [4, 5]);
  client.ack(taken[2]);
  client.ack(taken[2]);
  assert.deepEqual(last().sent.slice(2), [{ type: "ack", seq: 3 }]);
});

test("it remembers the last 20,000 answers", async () => {
  const { client, messages } = await connected();
  for (let seq = 1; seq <= 20001; seq += 1) {
    last().brings(seq);
    client.ack((await messages.next()).value);
  }
  last().ends();
  await pass(500);
  last().greets();
  last().brings(2);
  assert.deepEqual(last().sent, [{ type: "ack", seq: 2 }]);
  last().brings(1);
  assert.equal((await messages.next()).value.seq, 1);
});

test("an ack for which there is no socket is given when the message comes again", async () => {
  const { client, messages } = await connected();
  last().brings(1);
  const { value } = await messages.next();
  const lost = last();
  lost.ends();
  client.ack(value);
  await pass(500);
  last().greets();
  assert.deepEqual([lost.sent, last().sent], [[], []]);
  last().brings(1);
  assert.deepEqual(last().sent, [{ type: "ack", seq: 1 }]);
});

test("a restored ledger counts from an earlier seq: what is new is handed out", async () => {
  const { client, messages } = await connected();
  last().brings(7);
  client.ack((await messages.next()).value);
  last().ends();
  await pass(500);
  last().greets();
  last().brings(5, "another");
  const { value } = await messages.next();
  assert.equal(value.msg_id, "another");
  client.ack(value);
  assert.deepEqual(last().sent, [{ type: "ack", seq: 5 }]);
});

test("what has no result is sent again with its key, and in order", async () => {
  const { client } = await connected();
  const sent = [1, 2, 3].map((number) => client.send("ws-002", number));
  const before = last().sent;
  assert.equal(new Set(before.map(({ key }) => key)).size, 3);
  last().says({ type: "result", ref: before[1].ref, ok: true, msg_id: "second" });
  last().ends();
  await pass(500);
  assert.deepEqual(last().sent, []);
  last().greets();
  assert.deepEqual(last().sent, [before[0], before[2]]);
  for (const { ref, content } of last().sent) last().says({ type: "result", ref, ok: true, msg_id: `${content}` });
  assert.deepEqual(await Promise.all(sent), ["1", "second", "3"]);
});

test("a reply gives the id of the answer, and settles its message and no other", async () => {
  const { client, messages } = await connected();
  for (const seq of [1, 2, 3]) last().brings(seq);
  const taken = [];
  for (let count = 0; count < 3; count += 1) taken.push((await messages.next()).value);
  const answer = client.reply(taken[1], { done: true });
  const [{ ref, ...frame }] = last().sent;
  assert.deepEqual(frame, { type: "reply", seq: 2, content: { done: true } });
  last().answers({ ref }, { ok: true, msg_id: "answer" });
  assert.equal(await answer, "answer");
  client.ack(taken[1]);
  client.reject(taken[1], "no");
  assert.equal(last().sent.length, 1);
  client.ack(taken[2]);
  assert.deepEqual(last().sent.slice(1), [{ type: "ack", seq: 3 }]);
});

test("a reply without a result is written again, and its message is not handed out again meanwhile", async () => {
  const { client, messages } = await connected();
  last().brings(1);
  const answer = client.reply((await messages.next()).value, "yes");
  const [frame] = last().sent;
  last().ends();
  await pass(500);
  last().greets();
  last().brings(1);
  last().brings(2);
  assert.deepEqual(last().sent, [frame]);
  last().answers(frame, { ok: true, msg_id: "answer" });
  assert.equal(await answer, "answer");
  assert.equal((await messages.next()).value.seq, 2);
});

test("a message that comes again after its reply is not acked, as that would confirm those before it", async () => {
  const { client, messages } = await connected();
  for (const seq of [1, 2]) last().brings(seq);
  await messages.next();
  const answer = client.reply((await messages.next()).value, "yes");
  last().ends();
  await pass(500);
  last().greets();
  const [frame] = last().sent;
  last().answers(frame, { ok: true, msg_id: "answer" });
  await answer;
  for (const seq of [1, 2]) last().brings(seq);
  assert.deepEqual(last().sent, [frame]);
});

test("a reply that is refused leaves its message as it is", async () => {
  const { client, messages } = await connected();
  last().brings(1);
  const { value } = await messages.next();
  const answer = client.reply(value, 1);
  last().answers(last().sent[0], { ok: false, error: { code: "conflict", message: "message 1 wants no answer" } });
  await assert.rejects(answer, { code: "conflict", message: "message 1 wants no answer" });
  client.ack(value);
  assert.deepEqual(last().sent.slice(1), [{ type: "ack", seq: 1 }]);
});

test("a traceparent goes with what is sent", async () => {
  const { client } = await connected();
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const ends = Promise.allSettled([
    client.send("ws-002", 1, { traceparent }),
    client.broadcast(1, { traceparent }),
    client.send("ws-002", 1),
  ]);
  assert.deepEqual(last().sent.map((frame) => frame.traceparent), [traceparent, traceparent, undefined]);
  client.close();
  await ends;
});

test("requests keep to the rate of the gateway, and to 64 on the way", async () => {
  const { client } = await connected({ maxFrameRate: 50 });
  const rest = Array.from({ length: 200 }, () => client.send("ws-002", 1));
  assert.equal(last().sent.length, 45);
  await pass(1000);
  assert.equal(last().sent.length, 64);
  for (const { ref } of [...last().sent]) last().says({ type: "result", ref, ok: true, msg_id: "m" });
  await pass(1000);
  assert.ok(last().sent.length <= 64 + 64);
  client.close();
  const ends = await Promise.allSettled(rest);
  assert.equal(ends.filter(({ status }) => status === "fulfilled").length, 64);
  assert.deepEqual(new Set(ends.slice(64).map(({ reason }) => reason.code)), new Set([1000]));
});

test("close ends every iterator and leaves nothing that runs", async () => {
  const { client, messages } = await connected();
  const other = client[Symbol.asyncIterator]();
  const waiting = [messages.next(), other.next()];
  await settle();
  const socket = last();
  const closed = client.close();
  assert.equal(socket.closedWith, 1000);
  assert.deepEqual((await Promise.all(waiting)).map(({ done }) => done), [true, true]);
  socket.ends(1000);
  await closed;
  await assert.rejects(client.send("ws-002", 1), { code: 1000 });
  assert.equal(timers.size, 0);
  await client.close();
});

test("close between two attempts, or while a token is fetched, is the end too", async () => {
  const { client } = await connected();
  last().ends();
  await client.close();
  await pass(MINUTE);
  assert.equal(sockets.length, 1);
  let give;
  const other = made({ token: () => new Promise((resolve) => (give = resolve)) });
  const first = other.client.connect();
  await other.client.close();
  give("t");
  await assert.rejects(first, { code: 1000 });
  await settle();
  assert.equal(sockets.length, 1);
});

test("an error of the gateway ends it, and keeps the connection", async () => {
  const { messages } = await connected();
  const socket = last();
  socket.says({ type: "error", error: { code: "conflict", message: "message 1 is not in flight" } });
  await assert.rejects(messages.next(), { code: "conflict", message: "message 1 is not in flight" });
  assert.equal(socket.closedWith, 4000);
});

test("a callback that throws does not end it", async () => {
  const fails = () => {
    throw new Error("theirs");
  };
  const usual = queueMicrotask;
  const late = [];
  globalThis.queueMicrotask = (act) => late.push(act);
  try {
    const { client } = made({ onLost: fails, onConnected: fails });
    const messages = client[Symbol.asyncIterator]();
    const next = messages.next();
    await settle();
    last().greets();
    last().brings(1);
    assert.equal((await next).value.seq, 1);
    assert.throws(late[0], /theirs/);
    assert.throws(() => last().ends(), /theirs/);
    await pass(500);
    assert.equal(sockets.length, 2);
  } finally {
    globalThis.queueMicrotask = usual;
  }
});
