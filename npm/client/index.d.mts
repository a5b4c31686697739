// npm/build.py copies this file to index.d.cts.

/** A message. Its names are those of the protocol. */
export interface Message<Content = any> {
  /** Ascends within a connection. */
  seq: number;
  /** The same when the message comes again. */
  msg_id: string;
  msg_type: string;
  /** The connection or the agent that sent it; null where nobody is named. */
  sender_id: string | null;
  /** This connection. */
  recipient_id: string;
  /** Null for a message to one connection. */
  broadcast_id: string | null;
  /** UTC, in ISO 8601. */
  sent_at: string;
  /** Numbers are rounded as `JSON.parse` rounds them. */
  content: Content;
  /** True if the sender waits for an answer: see `AgentClient.reply`. */
  wants_reply?: true;
  /** In an answer, the msg_id of the message that it answers. */
  reply_to?: string;
  /** The trace that the message belongs to, as in the HTTP header of W3C Trace Context. */
  traceparent?: string;
}

/** What the gateway says when it has let the agent in. */
export interface Greeting {
  /** The connection. */
  ws_id: string;
  agent: string;
  /** Whether the connection existed before. */
  resumed: boolean;
  /** How many messages are not confirmed, counted up to 1,000. */
  pending: number;
  /** The last confirmed message. */
  seq: number;
  /** Seconds between the gateway's Pings. */
  heartbeat: number;
}

export interface AgentOptions {
  /** Base address of the gateway: http, https, ws or wss. */
  url: string;
  /** The connection to open or to resume. Without it the gateway makes one, and the client comes back under it. */
  wsId?: string;
  /**
   * The token, or a function that gives it, asked before each attempt. Text that has expired ends the client with 4001;
   * a function is asked again. Null, or nothing, for a gateway that asks for none.
   */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** For the registration; at most 4 KiB of JSON. Without it, what is there is kept. */
  metadata?: { [name: string]: unknown };
  /** The class of the sockets. Node has one of its own from version 22 on; before, give that of the module `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** Wait for a gateway that is not up yet. Otherwise the first attempt is the only one that may fail. */
  waitForGateway?: boolean;
  /** The gateway's `--max-frame-rate`, if it is not 100: requests wait here rather than to be refused there. */
  maxFrameRate?: number;
  /** Called when the connection is lost, or an attempt failed: why, and the milliseconds until the next attempt. */
  onLost?: (error: AgentError, delay: number) => void;
  /** Called after each handshake. */
  onConnected?: (greeting: Greeting) => void;
}

/** Every error of this package. */
export class AgentError extends Error {
  readonly name: "AgentError";
  /**
   * A close code, if the connection was closed or lost: 1000 after `close()`; 4001 the token has expired; 4003 barred, or the
   * token was revoked; 4009 replaced by a newer socket; 4010 disconnected by an operator.
   * Otherwise a text: "unavailable" (the first attempt failed), "invalid" (an option or an argument cannot be used), or the code of
   * the gateway's answer to a request, for example "not_found", "not_authorised", or "busy" (nothing was sent: try again).
   */
  readonly code: number | string;
  constructor(code: number | string, message: string, cause?: unknown);
}

/**
 * One agent's connection to a gateway. It comes back when it is lost.
 *
 * Messages come in order. Each comes again after a reconnect until it is confirmed, but none of the last 20,000 is handed out
 * twice.
 *
 * ```js
 * for await (const message of client) {
 *   console.log(message.content);
 *   client.ack(message);
 * }
 * ```
 */
export class AgentClient<Content = any> implements AsyncIterable<Message<Content>> {
  /**
   * @param agent The logical name.
   * @throws {AgentError} "invalid": the address cannot be used, or there is no WebSocket here.
   */
  constructor(agent: string, options: AgentOptions);

  /** The connection's id; undefined until the gateway has named it. */
  readonly wsId: string | undefined;

  /**
   * Connect. The iterator and the requests do it too.
   *
   * @returns What the gateway said first.
   * @throws {AgentError} "unavailable": the first attempt failed. A browser cannot tell a gateway that refuses the agent from
   * one that does not run.
   */
  connect(): Promise<Greeting>;

  /**
   * Give one message after the other, over all reconnects, until `close()`.
   *
   * @throws {AgentError} The client has ended, and must not come back; `code` says why.
   */
  [Symbol.asyncIterator](): AsyncGenerator<Message<Content>, void, undefined>;

  /**
   * Confirm a message, and every message before it. While the connection is lost it is remembered, and sent when the message
   * comes again. A message that was answered before is left as it is.
   */
  ack(message: Pick<Message, "msg_id">): void;

  /** Refuse a message: the gateway sets it aside. The first 200 characters of the reason are kept. */
  reject(message: Pick<Message, "msg_id">, reason: string): void;

  /**
   * Answer a message that wants it. The answer confirms the message, and none before it. As for `send`, it is done once.
   *
   * @returns The msg_id of the answer, once both are committed.
   * @throws {AgentError} As for `send`. If the gateway refuses it, the message is not confirmed.
   */
  reply(message: Pick<Message, "msg_id" | "seq">, content: unknown): Promise<string>;

  /**
   * Send to one connection, in this connection's name. The request has a key of its own and is sent again after a reconnect, so
   * it is done once.
   *
   * @returns The msg_id, once the message is committed.
   * @throws {AgentError} The gateway refuses it; or the client ended before the answer: it may have been committed then.
   */
  send(to: string, content: unknown, options?: { msgType?: string; traceparent?: string }): Promise<string>;

  /**
   * Send to every active connection, or to one agent's; this one included. As for `send`, it is done once.
   *
   * @returns Once it is committed: its id, and the number of recipients.
   * @throws {AgentError} As for `send`.
   */
  broadcast(
    content: unknown,
    options?: { agent?: string; msgType?: string; traceparent?: string },
  ): Promise<{ broadcastId: string; recipients: number }>;

  /** Close with 1000, which disconnects the connection. Iterators end, and what has no answer yet fails with 1000. */
  close(): Promise<void>;
}
