// An agent made with Node's `ws`: `node_agent.js URL`, its token in AGENT_TOKEN. It prints frames and comes back.
"use strict";

const WebSocket = require("ws");

const url = process.argv[2];
const token = process.env.AGENT_TOKEN;
const explicit = new URL(url).searchParams.get("ack") === "explicit";

function connect() {
  const socket = new WebSocket(url, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    console.log(JSON.stringify(frame));
    if (explicit && frame.type === "message") socket.send(JSON.stringify({ type: "ack", seq: frame.seq }));
  });
  socket.on("error", (error) => console.error(`error: ${error.message}`));
  socket.on("close", (code) => {
    console.error(`closed: ${code}`);
    setTimeout(connect, 200);
  });
}

connect();
