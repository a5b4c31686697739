// An agent over a gateway of ws-manager, for browsers and Node. docs/agents.md has the protocol.
// npm/build.py makes the CommonJS twin of this file: every export is a class at the beginning of a line.

const PROTOCOL = "ws-manager.v1";

// Close codes after which an agent does not come back.
const FINAL = [1000, 1009, 4000, 4003, 4009, 4010];
const LOST = 1006;
const EXPIRED = 4001;
const SILENT = 4008;

// Milliseconds.
const FIRST_DELAY = 500;
const LONGEST_DELAY = 30000;
const HEALTHY = 60000;
const HANDSHAKE = 10000;

// The gateway lets 100 requests wait. Fewer are on the way at a time; the rest waits here.
const ON_THE_WAY = 64;

// Answers to messages that may come again: a gateway that is killed while another process writes to the ledger loses
// every receipt that waited for that.
const REMEMBERED = 20000;

const ACK = { type: "ack" };

export class AgentError extends Error {
  constructor(code, message, cause) {
    super(message, { cause });
    this.name = "AgentError";
    this.code = code;
  }
}

export class AgentClient {
  #agent;
  #options;
  #rate; // requests a millisecond, a little below what the gateway takes
  #first; // the promise of connect()
  #connected; // resolves it
  #refused; // rejects it
  #ended; // the error that ended it
  #left = false; // whether close() ended it
  #socket; // from the attempt until it is lost
  #greeted; // the last socket that was greeted
  #since; // when the present socket was greeted
  #silence; // milliseconds without a frame or a Ping after which a socket is lost
  #pinged; // whether Pings are seen
  #attempts = 0;
  #timer; // until the next attempt, or until the socket is lost
  #messages = []; // that came and were not handed out
  #waiting = []; // iterators
  #hand = new Map(); // msg_id → what was handed out and not answered, in order
  #answered = new Map(); // msg_id → the frame that says it again, without its seq; undefined after a reply
  #requests = new Map(); // key → what has no result yet, in order
  #sent = new Set(); // keys of those that are on the way
  #pace;
  #room;
  #paced;

  constructor(agent, options) {
    this.#options = { WebSocket: globalThis.WebSocket, maxFrameRate: 100, ...options };
    this.#agent = agent;
    this.#rate = this.#options.maxFrameRate * 0.0009;
    this.wsId = this.#options.wsId;
    if (!this.#options.WebSocket) {
      throw new AgentError("invalid", "no WebSocket here: give one as an option, for example the module ws");
    }
    this.#address();
  }

  connect() {
    if (!this.#first) {
      this.#first = new Promise((resolve, reject) => {
        this.#connected = resolve;
        this.#refused = reject;
      });
      // Whoever does not wait for it learns it from the iterator, or from a request.
      this.#first.catch(() => {});
      if (this.#ended) this.#refused(this.#ended);
      else this.#attempt();
    }
    return this.#first;
  }

  async *[Symbol.asyncIterator]() {
    this.connect();
    for (;;) {
      if (this.#left) return;
      if (this.#ended) throw this.#ended;
      const message = this.#messages.shift();
      if (message) {
        this.#hand.set(message.msg_id, { seq: message.seq, socket: this.#greeted });
        yield message;
      } else {
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  ack({ msg_id }) {
    const last = this.#hand.get(msg_id);
    if (!last) return;
    for (const [id, entry] of this.#hand) {
      this.#settle(id, ACK);
      if (entry === last) break;
    }
    this.#answer(last, ACK);
  }

  reject({ msg_id }, reason) {
    const entry = this.#hand.get(msg_id);
    if (!entry) return;
    const frame = { type: "reject", reason: `${reason}`.slice(0, 200) };
    this.#settle(msg_id, frame);
    this.#answer(entry, frame);
  }

  async reply({ msg_id, seq }, content) {
    // Its seq is its key.
    const done = await this.#request({ type: "reply", seq, content, key: undefined });
    // The gateway has confirmed it with the answer.
    this.#settle(msg_id);
    return done.msg_id;
  }

  async send(to, content, { msgType, traceparent } = {}) {
    return (await this.#request({ type: "send", to, content, msg_type: msgType, traceparent })).msg_id;
  }

  async broadcast(content, { agent, msgType, traceparent } = {}) {
    const done = await this.#request({ type: "broadcast", agent, content, msg_type: msgType, traceparent });
    return { broadcastId: done.broadcast_id, recipients: done.recipients };
  }

  async close() {
    if (this.#ended) return;
    this.#left = true;
    const socket = this.#end(new AgentError(1000, "the client was closed"));
    if (socket) {
      await new Promise((resolve) => {
        socket.onclose = socket.onerror = resolve;
        socket.close(1000);
      });
    }
  }

  #address() {
    const { url, metadata } = this.#options;
    let address;
    try {
      address = new URL(url);
    } catch {}
    // A token in the address would be dropped, so the error does not quote it.
    if (!address || !/^(http|ws)s?:$/.test(address.protocol) || address.username || address.search || address.hash) {
      throw new AgentError("invalid", "url is not a gateway's base address, for example http://127.0.0.1:8765");
    }
    address.protocol = address.protocol.replace("http", "ws");
    address.pathname = address.pathname.replace(/(\/ws)?\/*$/, "/ws");
    const query = { agent: this.#agent, ack: "explicit" };
    if (this.wsId != null) query.ws_id = this.wsId;
    if (metadata != null) query.metadata = JSON.stringify(metadata);
    address.search = new URLSearchParams(query);
    return address.href;
  }

  async #attempt() {
    let { token, WebSocket } = this.#options;
    this.#since = undefined;
    if (typeof token === "function") {
      try {
        token = await token();
      } catch (error) {
        if (!this.#ended) this.#lost(LOST, "no token", error);
        return;
      }
      if (this.#ended) return;
    }
    let socket;
    try {
      socket = new WebSocket(this.#address(), token == null ? [PROTOCOL] : [PROTOCOL, `bearer.${token}`]);
    } catch {
      // The error may quote the token.
      return this.#end(new AgentError("invalid", "the token or the address cannot be used"));
    }
    this.#socket = socket;
    this.#watch(HANDSHAKE);
    const here = (react) => (event) => socket === this.#socket && react(event);
    socket.onmessage = here(({ data }) => this.#read(data));
    // In Node 22, no close follows the error of an attempt that failed. Later one does, and its code may be final.
    socket.onerror = here(({ message }) => this.#since || this.#lost(LOST, message));
    socket.onclose = here(({ code, reason }) => this.#lost(code, reason));
    // The module ws shows the gateway's Pings; browsers answer them unseen.
    socket.on?.("ping", here(() => (this.#pinged = this.#since) && this.#watch()));
  }

  // Wait for the next sign of life. Where Pings are not seen, one is due only while a request is on the way.
  #watch(time = this.#silence) {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#timer =
      (!this.#since || this.#pinged || this.#sent.size) &&
      setTimeout(() => {
        this.#lost(LOST, "nothing heard");
        // Not 1000, which would disconnect the connection.
        socket.close(SILENT);
      }, time);
  }

  #read(data) {
    let frame = {};
    try {
      frame = Object(JSON.parse(data));
    } catch {}
    const { type, ...rest } = frame;
    if (!this.#since) {
      if (type !== "connected") return this.#break("invalid", "this is not a gateway");
      this.#greet(rest);
    } else if (type === "message") {
      this.#take(rest);
    } else if (type === "result") {
      const request = this.#requests.get(rest.ref);
      this.#requests.delete(rest.ref);
      this.#sent.delete(rest.ref);
      if (rest.ok) request?.resolve(rest);
      else request?.reject(new AgentError(rest.error.code, rest.error.message));
      this.#flush();
    } else if (type === "error") {
      return this.#break(rest.error.code, rest.error.message);
    }
    if (this.#socket) this.#watch();
  }

  #greet(greeting) {
    this.#since = performance.now();
    this.#greeted = this.#socket;
    this.#silence = Math.max(greeting.heartbeat * 3000, 1000);
    this.wsId = greeting.ws_id;
    // What was not handed out comes again.
    this.#messages = [];
    this.#paced = this.#since;
    this.#room = this.#rate * 1000;
    this.#connected(greeting);
    this.#flush();
    // Later: whatever it throws, the client goes on.
    queueMicrotask(() => this.#options.onConnected?.(greeting));
  }

  #take(message) {
    const { msg_id, seq } = message;
    const entry = { seq, socket: this.#socket };
    // By msg_id and not by seq: a restored ledger may count from an earlier one.
    if (this.#hand.has(msg_id)) {
      Object.assign(this.#hand.get(msg_id), entry);
    } else if (this.#answered.has(msg_id)) {
      this.#answer(entry, this.#answered.get(msg_id));
    } else {
      this.#messages.push(message);
      this.#wake();
    }
  }

  #wake() {
    for (const go of this.#waiting.splice(0)) go();
  }

  #settle(id, frame) {
    this.#hand.delete(id);
    this.#answered.set(id, frame);
    if (this.#answered.size > REMEMBERED) this.#answered.delete(this.#answered.keys().next().value);
  }

  // Confirm or reject a message on the socket on which it came. Otherwise it comes again, and is answered then. After a
  // reply nothing is said: an ack would confirm what came before it too.
  #answer({ seq, socket }, frame) {
    if (frame && socket === this.#socket) socket.send(JSON.stringify({ ...frame, seq }));
  }

  #request(rest) {
    return new Promise((resolve, reject) => {
      if (this.#ended) throw this.#ended;
      const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
      this.#requests.set(key, { frame: JSON.stringify({ key, ...rest, ref: key }), resolve, reject });
      this.connect();
      this.#flush();
    });
  }

  // Write what waits, at the rate that the gateway takes.
  #flush() {
    clearTimeout(this.#pace);
    if (!this.#socket || !this.#since) return;
    const now = performance.now();
    this.#room = Math.min(this.#rate * 1000, this.#room + (now - this.#paced) * this.#rate);
    this.#paced = now;
    for (const [key, { frame }] of this.#requests) {
      if (this.#sent.size >= ON_THE_WAY) return;
      if (this.#sent.has(key)) continue;
      if (this.#room < 1) {
        this.#pace = setTimeout(() => this.#flush(), 1 / this.#rate);
        return;
      }
      this.#room -= 1;
      this.#sent.add(key);
      this.#socket.send(frame);
      if (!this.#timer) this.#watch();
    }
  }

  #lost(code, reason, cause) {
    const { token, waitForGateway, onLost } = this.#options;
    const error = new AgentError(code, `no connection to the gateway: ${reason || "no reason given"} (${code})`, cause);
    this.#socket = undefined;
    this.#sent.clear();
    clearTimeout(this.#timer);
    if (FINAL.includes(code)) return this.#end(error);
    if (typeof token === "string" && (code === EXPIRED || (!this.#since && hasExpired(token)))) {
      return this.#end(new AgentError(EXPIRED, "the token has expired", error));
    }
    if (!this.#greeted && !waitForGateway) return this.#end(new AgentError("unavailable", error.message, cause || error));
    if (performance.now() - this.#since >= HEALTHY) this.#attempts = 0;
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#attempt(), delay);
    onLost?.(error, delay);
  }

  // End it because of what the gateway said.
  #break(code, message) {
    this.#end(new AgentError(code, message)).close(4000);
  }

  // End it, and return the socket, which the caller closes.
  #end(error) {
    const socket = this.#socket;
    this.#ended = error;
    this.#socket = undefined;
    clearTimeout(this.#timer);
    clearTimeout(this.#pace);
    for (const request of this.#requests.values()) request.reject(error);
    this.#requests.clear();
    this.#refused?.(error);
    this.#wake();
    return socket;
  }
}

function hasExpired(token) {
  try {
    const claims = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    return JSON.parse(atob(claims)).exp * 1000 <= Date.now();
  } catch {
    return false;
  }
}
