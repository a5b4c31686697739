"""Who sends into the other servers, each in the way that is natural there, and waits until the server has it."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, BinaryIO, cast

TOPIC = "load"


class Nchan:
    """Posts to a channel."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def publish(self, content: bytes) -> None:
        self._connection.request("POST", "/pub", content)
        answer = self._connection.getresponse()
        answer.read()
        # Accepted, and created: the second if somebody listens.
        assert answer.status in (201, 202), answer.status

    def close(self) -> None:
        self._connection.close()


class Mqtt:
    """Publishes with QoS 1, by MQTT 3.1.1."""

    def __init__(self, port: int) -> None:
        self._socket, self._answers = _connected(port)
        self._packet = 0
        # A clean session, no keep-alive.
        self._socket.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06sender")
        assert self._answers.read(4) == b"\x20\x02\x00\x00"

    def publish(self, content: bytes) -> None:
        self._packet = self._packet % 65535 + 1
        packet = self._packet.to_bytes(2, "big")
        rest = len(TOPIC).to_bytes(2, "big") + TOPIC.encode() + packet + content
        length = bytes([len(rest) & 127 | 128, len(rest) >> 7]) if len(rest) > 127 else bytes([len(rest)])
        self._socket.sendall(b"\x32" + length + rest)
        assert self._answers.read(4) == b"\x40\x02" + packet

    def close(self) -> None:
        self._socket.close()


class Nats:
    """Publishes to a stream of JetStream, which this makes."""

    def __init__(self, port: int) -> None:
        self._socket, self._answers = _connected(port)
        self._socket.sendall(b'CONNECT {"verbose":false}\r\nSUB answers 1\r\n')
        stream = {"name": TOPIC, "subjects": [TOPIC], "storage": "file"}
        self._request(f"$JS.API.STREAM.CREATE.{TOPIC}", json.dumps(stream).encode())

    def _request(self, subject: str, content: bytes) -> dict[str, Any]:
        self._socket.sendall(f"PUB {subject} answers {len(content)}\r\n".encode() + content + b"\r\n")
        while not (line := self._answers.readline()).startswith(b"MSG"):
            assert line.startswith((b"INFO", b"PING")), line
            if line.startswith(b"PING"):
                self._socket.sendall(b"PONG\r\n")
        answer = json.loads(self._answers.read(int(line.split()[-1]) + 2))
        assert "error" not in answer, answer
        return cast("dict[str, Any]", answer)

    def publish(self, content: bytes) -> None:
        self._request(TOPIC, content)

    def unconfirmed(self) -> int:
        """Messages that a consumer has not got, or not confirmed, all consumers together."""
        seen, total, waiting = 0, 1, 0
        while seen < total:
            page = self._request(f"$JS.API.CONSUMER.LIST.{TOPIC}", b'{"offset":%d}' % seen)
            waiting += sum(one["num_ack_pending"] + one["num_pending"] for one in page["consumers"])
            seen, total = seen + len(page["consumers"]), page["total"]
        return waiting

    def close(self) -> None:
        self._socket.close()


def _connected(port: int) -> tuple[socket.socket, BinaryIO]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, connection.makefile("rb")
