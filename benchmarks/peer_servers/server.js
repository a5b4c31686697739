// Socket.IO: says on stdout where it listens, and sends each line of stdin to all of its clients.

const http = require("http").createServer();
const { Server } = require("socket.io");
const { version } = require("socket.io/package.json");

const io = new Server(http, { transports: ["websocket"] });

http.listen(0, "127.0.0.1", () => {
  const name = `Socket.IO ${version} on Node ${process.versions.node}`;
  console.log(JSON.stringify({ port: http.address().port, name }));
});

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    io.emit("message", JSON.parse(line));
    console.log("sent");
  })
  .on("close", () => process.exit(0));
