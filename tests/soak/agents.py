"""The agents of a soak, all in one process, driven by one loop: `agents.py PORTS JOURNAL SEED COUNT`.

With several ports, separated by commas, each socket goes to one of them at random: they are gateways of one ledger.
Orders come in as lines of JSON; see the `do_` methods. `journal.py` says what is written down.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Callable

from tests.soak import wire
from tests.soak.cast import BY_GATEWAY, Member, cast, key_of
from tests.soak.journal import Journal
from tests.soak.outbox import Outbox, Request

CLOCK_SECONDS = 0.1
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.6
_HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 2.0
_PIECE = 1 << 18
_OVERLAP = 0.2
_KNOCK = 0.01
_SLOW_BUFFER, _SLOW_PIECE, _SLOW_SECONDS = 8192, 4096, 0.04
_REJECTED = 0.002
_ACKED_LATER, _LATEST_ACK = 0.25, 0.5
_RESET = struct.pack("ii", 1, 0)


class Link:
    """One socket of an agent."""

    def __init__(self, number: int, connection: socket.socket, port: int) -> None:
        self.number = number
        self.socket = connection
        self.port = port
        self.asked = False
        self.open = False
        self.greeted = False
        self.reading = False
        self.head = b""
        self.frames = wire.Frames()
        self.last = 0
        self.confirmed = 0
        self.ping: tuple[bytes, int] | None = None
        self.only_knocks = False
        self.says_nothing = False
        """It has closed its half of the connection, or has said goodbye."""


class Agent:
    """One connection of the ledger, with the sockets that are open for it: two after a take-over."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.slow = member.slow
        self.links: list[Link] = []
        self.outbox = Outbox()
        self.deaf_until = 0.0
        self.mute_until = 0.0
        self.away = False
        self.ack_due = False
        self.failures = 0


class Agents:
    """Everybody."""

    def __init__(self, ports: list[int], journal: Path, seed: str, count: int) -> None:
        self._ports = ports
        self._journal = Journal(journal)
        self._random = Random(seed)
        self._poll = select.epoll()
        self._by_number: dict[int, tuple[Agent, Link]] = {}
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._calm = False
        self._ending = False
        self._agents = {member.ws_id: Agent(member) for member in cast(count)}

    def run(self) -> None:
        """Serve orders until stdin ends."""
        self._poll.register(0, select.EPOLLIN)
        self._tell_time()
        for agent in self._agents.values():
            self._connect_later(agent, self._random.uniform(0, 0.5))
        while not self._ending:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            delay = self._timers[0][0] - time.monotonic() if self._timers else 1.0
            for number, _ in self._poll.poll(max(0.0, delay)):
                if number == 0:
                    self._take_order()
                elif number in self._by_number:
                    self._event(*self._by_number[number])
        self._journal.clock()

    def _later(self, delay: float, call: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + delay, self._count, call))

    def _tell_time(self) -> None:
        self._journal.clock()
        self._later(CLOCK_SECONDS, self._tell_time)

    # Orders

    def _take_order(self) -> None:
        line = sys.stdin.buffer.raw.readline()
        if not line:
            self._ending = True
            return
        order: dict[str, Any] = json.loads(line)
        call = getattr(self, "do_" + order.pop("do"))
        if "ws_id" in order:
            call(self._agents[order.pop("ws_id")], **order)
        else:
            call(**order)

    def do_reset(self, agent: Agent) -> None:
        """Reset its sockets: what is on the way in either direction is gone."""
        for link in list(agent.links):
            self._reset(agent, link, "reset by the agent")

    def do_half_close(self, agent: Agent) -> None:
        """Send no more, and go on reading."""
        for link in agent.links:
            if link.open and not link.says_nothing:
                link.says_nothing = True
                link.socket.shutdown(socket.SHUT_WR)

    def do_close(self, agent: Agent, code: int, seconds: float) -> None:
        """Close with a code, and stay away for a while."""
        agent.away = True
        self._later(seconds, lambda: self._come_back(agent))
        for link in list(agent.links):
            if not link.open or link.says_nothing:
                self._ended(agent, link, "given up")
                continue
            if code == 1009:
                self._journal.note(time.time(), "refused", agent.member.ws_id, link.number, link.last)
            self._send(agent, link, wire.close_frame(code))
            link.says_nothing = True
            self._end_later(agent, link, _GOODBYE_SECONDS, f"closed {code}")

    def do_take_over(self, agent: Agent, seconds: float) -> None:
        """Open a second socket while the first is open, and has been given no receipt for so long."""
        if seconds:
            self.do_mute(agent, seconds + _OVERLAP)
        self._connect_later(agent, seconds)

    def do_knock(self, agent: Agent) -> None:
        """Ask for a second socket, and reset it at once."""
        link = self._connect(agent)
        if link is not None:
            link.only_knocks = True

    def do_deafen(self, agent: Agent, seconds: float) -> None:
        """Read nothing for a while."""
        agent.deaf_until = time.monotonic() + seconds
        for link in agent.links:
            self._journal.note(time.time(), "deaf", agent.member.ws_id, link.number)
            self._read_later(agent, link, seconds)

    def do_mute(self, agent: Agent, seconds: float) -> None:
        """Confirm nothing and answer no Ping for a while, but read."""
        agent.mute_until = time.monotonic() + seconds
        self._later(seconds, lambda: self._confirm_all(agent))

    def do_send(self, agent: Agent, key: str, to: str, text: str) -> None:
        """Send a message to another agent."""
        self._journal.note(time.time(), "asks", key)
        frame = agent.outbox.put(Request(key, to, text))
        for link in [link for link in agent.links if link.greeted][-1:]:
            self._send(agent, link, frame)

    def do_calm(self) -> None:
        """From now on everybody reads, answers and comes back."""
        self._calm = True
        for agent in self._agents.values():
            agent.slow, agent.away, agent.deaf_until, agent.mute_until = False, False, 0.0, 0.0
            for link in list(agent.links):
                if link.open and not link.says_nothing:
                    self._read_again(agent, link)
            self._confirm_all(agent)
            if not agent.links:
                self._connect(agent)

    # Sockets

    def _connect(self, agent: Agent) -> Link | None:
        if agent.away:
            return None
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if agent.slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._count += 1
        port = self._ports[0] if len(self._ports) == 1 else self._random.choice(self._ports)
        link = Link(self._count, connection, port)
        agent.links.append(link)
        self._journal.note(time.time(), "begin", agent.member.ws_id, link.number)
        self._by_number[connection.fileno()] = (agent, link)
        self._poll.register(connection, select.EPOLLOUT)
        link.reading = True
        if connection.connect_ex(("127.0.0.1", port)) not in (0, errno.EINPROGRESS):
            self._ended(agent, link, "nobody listens")
            return None
        self._later(
            _HANDSHAKE_SECONDS, lambda: None if link.greeted else self._reset(agent, link, "no answer")
        )
        return link

    def _connect_later(self, agent: Agent, delay: float) -> None:
        self._later(delay, lambda: self._connect(agent))

    def _end_later(self, agent: Agent, link: Link, delay: float, why: str) -> None:
        self._later(delay, lambda: self._ended(agent, link, why))

    def _come_back(self, agent: Agent) -> None:
        agent.away = False
        if not agent.links:
            self._connect(agent)

    def _reset(self, agent: Agent, link: Link, why: str) -> None:
        if link in agent.links:
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._ended(agent, link, why)

    def _ended(self, agent: Agent, link: Link, why: str) -> None:
        """Close a socket. Without another one, the agent comes back."""
        if link not in agent.links:
            return
        agent.links.remove(link)
        self._read_no_more(link)
        del self._by_number[link.socket.fileno()]
        link.socket.close()
        self._journal.note(time.time(), "closed", agent.member.ws_id, link.number, why)
        if not agent.links and not agent.away:
            agent.failures = 0 if link.greeted else agent.failures + 1
            longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2**agent.failures)
            self._later(
                self._random.uniform(0.3, 1.0) * longest,
                lambda: None if agent.links else self._connect(agent),
            )

    def _read_no_more(self, link: Link) -> None:
        if link.reading:
            self._poll.unregister(link.socket)
            link.reading = False

    def _read_later(self, agent: Agent, link: Link, seconds: float) -> None:
        if link.open:
            self._read_no_more(link)
            self._later(seconds, lambda: self._read_again(agent, link))

    def _read_again(self, agent: Agent, link: Link) -> None:
        if link not in agent.links or link.reading:
            return
        deaf = agent.deaf_until - time.monotonic()
        if deaf > 0:
            # A socket that was opened in the meantime has no timer of its own for the end of the deafness.
            self._later(deaf, lambda: self._read_again(agent, link))
            return
        self._poll.register(link.socket, select.EPOLLIN)
        link.reading = True

    def _event(self, agent: Agent, link: Link) -> None:
        try:
            if not link.asked:
                problem = link.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if problem:
                    raise OSError(problem, os.strerror(problem))
                member = agent.member
                request = wire.handshake(link.port, member.agent, member.ws_id, explicit=member.explicit)
                link.socket.send(request)
                link.asked = True
                if link.only_knocks:
                    self._later(
                        self._random.uniform(0, _KNOCK), lambda: self._reset(agent, link, "only knocked")
                    )
                self._poll.modify(link.socket, select.EPOLLIN)
                return
            data = link.socket.recv(_SLOW_PIECE if agent.slow else _PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self._ended(agent, link, error.strerror or "lost")
            return
        at = time.time()
        if not data:
            self._ended(agent, link, "the gateway has closed the connection")
        elif link.open or (data := self._let_in(agent, link, data)):
            self._take(agent, link, data, at)
        if agent.slow and link in agent.links and link.open:
            self._read_later(agent, link, _SLOW_SECONDS)

    def _let_in(self, agent: Agent, link: Link, data: bytes) -> bytes:
        """Read the answer to a handshake, and return what follows it."""
        link.head += data
        head, end, rest = link.head.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            self._ended(agent, link, head.split(b"\r\n")[0].decode())
            return b""
        link.open = True
        return rest

    # Frames

    def _take(self, agent: Agent, link: Link, data: bytes, at: float) -> None:
        try:
            for opcode, payload in link.frames.feed(data):
                if link not in agent.links:
                    return
                if opcode == wire.TEXT:
                    self._text(agent, link, payload, at)
                elif opcode == wire.PING:
                    link.ping = payload, link.last
                elif opcode == wire.CLOSE:
                    self._confirm(agent, link)
                    code = wire.close_code(payload)
                    self._send(agent, link, wire.close_frame(code))
                    self._ended(
                        agent, link, f"{'it has answered ' if link.says_nothing else BY_GATEWAY}{code}"
                    )
                    return
        except (wire.AgainstProtocol, ValueError) as error:
            self._wrong(agent, link, f"{type(error).__name__}: {error}")
            self._reset(agent, link, "against the protocol")
            return
        if agent.member.explicit and self._random.random() < _ACKED_LATER and not self._calm:
            if not agent.ack_due:
                agent.ack_due = True
                self._later(self._random.uniform(0, _LATEST_ACK), lambda: self._confirm_all(agent))
            self._pong(agent, link)
        else:
            self._confirm(agent, link)

    def _text(self, agent: Agent, link: Link, payload: bytes, at: float) -> None:
        frame = json.loads(payload)
        member = agent.member
        if frame["type"] == "connected" and not link.greeted:
            link.greeted = True
            self._journal.note(at, "greeted", member.ws_id, link.number)
            for request in agent.outbox.frames():
                self._send(agent, link, request)
        elif frame["type"] == "message" and link.greeted:
            seq = frame["seq"]
            key, whole = key_of(frame["content"])
            state = "whole" if whole else "broken"
            self._journal.note(at, "message", member.ws_id, link.number, seq, frame["msg_id"], key, state)
            link.last = seq
            if member.explicit and not self._calm and self._random.random() < _REJECTED:
                self._reject(agent, link, seq)
        elif frame["type"] == "result" and link.greeted:
            done = agent.outbox.answered(frame)
            if done is not None:
                self._journal.note(at, "sent", done.key, done.to, frame["msg_id"])
        else:
            self._wrong(agent, link, payload.decode()[:200])

    def _wrong(self, agent: Agent, link: Link, what: str) -> None:
        self._journal.note(time.time(), "wrong", agent.member.ws_id, link.number, what.replace("\t", " "))

    def _reject(self, agent: Agent, link: Link, seq: int) -> None:
        if link.says_nothing or time.monotonic() < agent.mute_until:
            return
        self._journal.note(time.time(), "reject", agent.member.ws_id, link.number, seq)
        self._send(agent, link, wire.frame(wire.TEXT, b'{"type":"reject","seq":%d,"reason":"soak"}' % seq))

    def _confirm_all(self, agent: Agent) -> None:
        agent.ack_due = False
        for link in list(agent.links):
            self._confirm(agent, link)

    def _confirm(self, agent: Agent, link: Link) -> None:
        """Confirm what was read: with the Pong that is due, or with an ack."""
        self._pong(agent, link)
        if agent.member.explicit and link.last > link.confirmed and self._may_speak(agent, link):
            self._note_receipt(agent, link, link.last)
            self._send(agent, link, wire.frame(wire.TEXT, b'{"type":"ack","seq":%d}' % link.last))

    def _pong(self, agent: Agent, link: Link) -> None:
        if link.ping is None or not self._may_speak(agent, link):
            return
        payload, seq = link.ping
        link.ping = None
        if not agent.member.explicit and seq > link.confirmed:
            self._note_receipt(agent, link, seq)
        self._send(agent, link, wire.frame(wire.PONG, payload))

    @staticmethod
    def _may_speak(agent: Agent, link: Link) -> bool:
        return link.open and not link.says_nothing and time.monotonic() >= agent.mute_until

    def _note_receipt(self, agent: Agent, link: Link, seq: int) -> None:
        link.confirmed = seq
        self._journal.note(time.time(), "receipt", agent.member.ws_id, link.number, seq)

    def _send(self, agent: Agent, link: Link, data: bytes) -> None:
        if link.says_nothing or link not in agent.links:
            return
        try:
            sent = link.socket.send(data)
        except OSError as error:
            # It also may be full: a gateway that is stopped reads nothing.
            self._ended(agent, link, error.strerror or "lost")
            return
        if sent < len(data):
            self._reset(agent, link, "half a frame was sent")


def main() -> None:
    ports, journal, seed, count = sys.argv[1:]
    Agents([int(port) for port in ports.split(",")], Path(journal), seed, int(count)).run()


if __name__ == "__main__":
    main()
