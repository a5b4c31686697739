"""Agents as load, many in a process of their own, so that the gateway is measured alone: RFC 6455 on plain sockets.

Commands come in as lines of JSON, and each is answered with one; see `Agents` for what there is. An agent's kind:

* `pong` answers Pings, `ack` confirms explicitly as well, `mute` asks for explicit acks and never gives one;
* `stalled` never reads after its handshake, and has a small receive buffer.
"""

from __future__ import annotations

import base64
import errno
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

STALLED_BUFFER = 4096
_AGENTS_PER_ADDRESS = 10_000
_OPENING_AT_ONCE = 100
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_ONE_PIECE = 1 << 18
_BIND_WITHOUT_PORT = 24
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_GONE = select.EPOLLHUP | select.EPOLLERR


class Agent:
    """One agent, and what it has received."""

    def __init__(self, group: Group, number: int) -> None:
        self.group = group
        self.number = number
        self.ws_id = f"{group.name}-{number:05d}"
        self.socket: socket.socket | None = None
        self.open = False
        self.buffer = b""
        self.highest = 0
        self.last = 0
        self.received = 0
        self.again = 0
        self.failures = 0


class Group:
    """Agents of one kind. They come back after a lost socket if `returns` is set."""

    def __init__(self, name: str, kind: str, count: int, *, returns: bool) -> None:
        self.name = name
        self.kind = kind
        self.returns = returns
        self.opened = 0
        self.lost = 0
        self.disorder = 0
        self.received = 0
        self.full_at = 0.0
        self.last_at = 0.0
        self.pings = 0
        self.arrivals: list[tuple[int, float]] | None = None
        self.agents = [Agent(self, number) for number in range(count)]


class Agents:
    """All agents of this process, driven by one loop."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._by_number: dict[int, Agent] = {}
        self._groups: dict[str, Group] = {}
        self._waiting: list[tuple[float, int, Agent]] = []
        self._opening = 0
        self._count = 0
        self._address = ("127.0.0.1", 0)
        self._ending = False

    def run(self) -> None:
        """Serve commands until stdin ends."""
        self._poll.register(0, select.EPOLLIN)
        while not self._ending:
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now and self._opening < _OPENING_AT_ONCE:
                self._connect(heapq.heappop(self._waiting)[2])
            delay = max(0.0, self._waiting[0][0] - now) if self._waiting else 1.0
            if self._opening >= _OPENING_AT_ONCE:
                delay = 1.0
            for number, events in self._poll.poll(delay):
                if number == 0:
                    self._command()
                elif number in self._by_number:
                    self._event(self._by_number[number], events)

    def _command(self) -> None:
        line = sys.stdin.buffer.readline()
        if not line:
            self._ending = True
            return
        given = json.loads(line)
        answer = getattr(self, "do_" + given.pop("do"))(**given)
        print(json.dumps(answer), flush=True)

    # Commands

    def do_open(self, group: str, kind: str, count: int, port: int, returns: bool = False) -> None:
        """Connect a new group of agents, named `<group>-00000` and so on."""
        self._address = ("127.0.0.1", port)
        self._groups[group] = Group(group, kind, count, returns=returns)
        for agent in self._groups[group].agents:
            self._later(agent, 0.0)

    def do_close(self, group: str) -> None:
        """Drop the connections of a group, and forget it."""
        for agent in self._groups.pop(group).agents:
            agent.group.returns = False
            if agent.socket is not None:
                self._lost(agent)
        self._waiting = [entry for entry in self._waiting if entry[2].group.name != group]
        heapq.heapify(self._waiting)

    def do_state(self, group: str) -> dict[str, Any]:
        """Say how a group is doing."""
        found = self._groups[group]
        return {
            name: getattr(found, name)
            for name in ("opened", "lost", "received", "disorder", "full_at", "last_at", "pings")
        }

    def do_each(self, group: str) -> list[tuple[str, int, int, int]]:
        """Return ws_id, different messages, messages that came again and the highest number, of every agent."""
        return [(a.ws_id, a.received, a.again, a.highest) for a in self._groups[group].agents]

    def do_watch(self, group: str) -> None:
        """From now on keep when each message came."""
        self._groups[group].arrivals = []

    def do_arrivals(self, group: str) -> list[tuple[int, float]]:
        """Return the `n` of what came since the last time, each with its monotonic time."""
        arrivals, self._groups[group].arrivals = self._groups[group].arrivals, None
        return arrivals or []

    # Sockets

    def _later(self, agent: Agent, delay: float) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay, self._count, agent))

    def _connect(self, agent: Agent) -> None:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if agent.group.kind == "stalled":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # 28,000 ports an address: many agents need several addresses.
        connection.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
        connection.bind((f"127.0.0.{2 + agent.number // _AGENTS_PER_ADDRESS}", 0))
        agent.socket, agent.open, agent.buffer, agent.last = connection, False, b"", 0
        self._opening += 1
        self._by_number[connection.fileno()] = agent
        self._poll.register(connection, select.EPOLLOUT)
        if connection.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            self._lost(agent)

    def _event(self, agent: Agent, events: int) -> None:
        connection = agent.socket
        assert connection is not None
        try:
            if agent.open and agent.group.kind == "stalled":
                if events & _GONE:
                    self._lost(agent)
            elif events & select.EPOLLOUT and not events & _GONE:
                self._ask(agent, connection)
            else:
                data = connection.recv(512 if agent.group.kind == "stalled" else _ONE_PIECE)
                if not data:
                    self._lost(agent)
                    return
                agent.buffer += data
                if agent.open or self._let_in(agent, connection):
                    self._frames(agent, connection)
        except BlockingIOError:
            pass
        except OSError:
            self._lost(agent)

    def _ask(self, agent: Agent, connection: socket.socket) -> None:
        ack = "&ack=explicit" if agent.group.kind in ("ack", "mute") else ""
        key = base64.b64encode(os.urandom(16)).decode()
        connection.send(
            f"GET /ws?agent={agent.group.name}&ws_id={agent.ws_id}{ack} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self._address[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._poll.modify(connection, select.EPOLLIN)

    def _let_in(self, agent: Agent, connection: socket.socket) -> bool:
        head, end, rest = agent.buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self._lost(agent)
            return False
        group = agent.group
        agent.open, agent.buffer, agent.failures = True, rest, 0
        self._opening -= 1
        group.opened += 1
        if group.opened == len(group.agents):
            group.full_at = time.monotonic()
        if group.kind == "stalled":
            self._poll.modify(connection, 0)
            return False
        return True

    def _lost(self, agent: Agent) -> None:
        assert agent.socket is not None
        self._poll.unregister(agent.socket)
        del self._by_number[agent.socket.fileno()]
        agent.socket.close()
        if agent.open:
            agent.group.opened -= 1
            agent.group.lost += 1
        else:
            self._opening -= 1
        agent.socket, agent.open, agent.buffer = None, False, b""
        if agent.group.returns:
            # Full jitter up to twice as long at each failure: what a client is advised to do.
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**agent.failures)
            agent.failures += 1
            self._later(agent, random.uniform(0.2, 1.0) * longest)

    # Frames

    def _frames(self, agent: Agent, connection: socket.socket) -> None:
        data, place, end, seq = agent.buffer, 0, len(agent.buffer), 0
        reply = []
        while end - place >= 2:
            length, start = data[place + 1], place + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[place + 2 : start], "big") if end >= start else end
            elif length == 127:
                start += 8
                length = int.from_bytes(data[place + 2 : start], "big") if end >= start else end
            if start + length > end:
                break
            opcode, place = data[place] & 15, start + length
            if opcode == _TEXT:
                seq = self._text(agent, data, start, place) or seq
            elif opcode == _PING:
                agent.group.pings += 1
                reply.append(_masked(_PONG, data[start:place]))
            elif opcode == _CLOSE:
                self._lost(agent)
                return
        agent.buffer = data[place:]
        if seq and agent.group.kind == "ack":
            reply.append(_masked(_TEXT, b'{"type":"ack","seq":%d}' % seq))
        if reply:
            connection.send(b"".join(reply))

    def _text(self, agent: Agent, data: bytes, start: int, end: int) -> int:
        """Note a message, and return its number; 0 for another frame."""
        if not data.startswith(b'{"type":"message","seq":', start):
            return 0
        seq = int(data[start + 24 : data.index(b",", start + 24)])
        group = agent.group
        group.disorder += seq <= agent.last
        agent.last = seq
        if seq > agent.highest:
            agent.highest = seq
            agent.received += 1
            group.received += 1
            group.last_at = time.monotonic()
            if group.arrivals is not None:
                at = data.index(b'"n":', start) + 4
                group.arrivals.append((int(data[at : data.index(b",", at)]), group.last_at))
        else:
            # If it was none, then one is missing in the number of those that were received.
            agent.again += 1
        return seq


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    body = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    assert size < 126
    return struct.pack("!BB", 0x80 | opcode, 0x80 | size) + mask + body


def main() -> None:
    Agents().run()


if __name__ == "__main__":
    main()
