"""A plain RFC 6455 client made of the standard library, run as a program: `rfc6455.py HOST PORT PATH [no-pong]`.

It prints every text frame as a line, and answers Pings with their payload unless told not to.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import sys

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def main(host: str, port: str, path: str, *flags: str) -> None:
    with socket.create_connection((host, int(port))) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        stream = connection.makefile("rb")
        status = stream.readline()
        accepted = b""
        for line in iter(stream.readline, b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-accept":
                accepted = value.strip()
        expected = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest())
        if b" 101 " not in status or accepted != expected:
            sys.exit(f"no upgrade: {status!r}")
        while True:
            header = stream.read(2)
            if len(header) < 2:
                return
            opcode, length = header[0] & 15, header[1] & 127
            if length == 126:
                (length,) = struct.unpack("!H", stream.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", stream.read(8))
            payload = stream.read(length)
            if opcode == 1:
                print(payload.decode(), flush=True)
            elif opcode == 8:
                connection.sendall(_masked(8, payload))
                return
            elif opcode == 9 and "no-pong" not in flags:
                connection.sendall(_masked(10, payload))


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body


if __name__ == "__main__":
    main(*sys.argv[1:])
