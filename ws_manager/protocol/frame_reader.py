"""Reads a client's frames (RFC 6455 section 5): bytes in, whole messages and control frames out. No IO, no extension.

Sections are those of RFC 6455.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple, Optional, Union

from ws_manager.protocol.close_codes import CloseCode
from ws_manager.protocol.wire import BINARY, CLOSE, PING, PONG, TEXT

_CONTINUATION = 0x0
_OPCODES = frozenset((_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_CONTROL = 0x8
"""The bit of an opcode that says that it is a control frame's."""

_FINAL = 0x80
_MASKED = 0x80
_MOST_IN_CONTROL = 125
_USUAL = frozenset((_FINAL | TEXT, _FINAL | PING, _FINAL | PONG))
"""First bytes of the frames that nearly all frames are."""

_HEAD_SIZES = bytes([6] * 126 + [8, 14])
"""The size of a header, by the seven bits of its length: two bytes, a longer length of two or eight, and the mask."""

_FREE_FRAGMENTS = 100
_BYTES_OF_A_FRAGMENT = 64
"""A message may have 100 fragments, and one more for each 64 bytes: each takes time, even if it is empty."""

_TABLES_FROM = 16 * 1024
"""Bytes from which on tables undo a mask faster than integers do. 64 KiB take half the time."""

_EVERY_BYTE = bytes(range(256))
_new = tuple.__new__
"""Makes a `Frame` in two thirds of the time: a NamedTuple's own `__new__` is a function in Python that calls this."""


class Frame(NamedTuple):
    """A whole message, whether it came in fragments or not, or a control frame.

    Attributes:
        opcode: `TEXT`, `BINARY`, `CLOSE`, `PING` or `PONG`.
        payload: the bytes of a binary message, a Ping or a Pong.
        text: the text of a text message, or the reason of a Close frame.
        code: the code of a Close frame, if it has one.
    """

    opcode: int
    payload: bytes = b""
    text: str = ""
    code: Optional[int] = None


class ProtocolViolation(NamedTuple):
    """Why a client's bytes were refused.

    Attributes:
        code: the code to close with (section 7.4.1): 1002, 1007 or 1009.
        reason: what was wrong, for the Close frame. It quotes nothing that the client has sent.
    """

    code: int
    reason: str


class FrameReader:
    """Reads what one client sends after the handshake.

    An idle one has no buffer. It keeps one incomplete frame, and the fragments of one message in one piece. Each has
    at most `most_bytes`.

    Args:
        most_bytes: the largest message, all its fragments together. Control frames have a limit of their own
            (section 5.5).

    Attributes:
        violation: the rule that was broken; None as long as none was. Look at it after each `read`.
    """

    __slots__ = ("_ended", "_kept", "_message", "_most_bytes", "_needed", "violation")

    def __init__(self, most_bytes: int) -> None:
        self.violation: Optional[ProtocolViolation] = None
        self._most_bytes = most_bytes
        self._ended = False
        self._kept: Optional[bytearray] = None
        self._needed = 0
        self._message: Optional[_Message] = None

    def read(self, data: Union[bytes, memoryview]) -> list[Frame]:
        """Take received bytes, and return the frames and messages that they complete, in order.

        Bytes that break a rule end the reading and set `violation`; what was complete before them is returned all the
        same. After that, or after a Close frame, everything is ignored (sections 1.4 and 7.1.7).

        Args:
            data: any piece of the stream. It is not kept: the caller may use its memory again.
        """
        if self._ended:
            return []
        received: Union[bytes, bytearray]
        if self._kept is None:
            received = data if isinstance(data, bytes) else bytes(data)
        else:
            self._kept += data
            if len(self._kept) < self._needed:
                return []
            received, self._kept = self._kept, None
        frames: list[Frame] = []
        try:
            size = len(received) - 6
            # One small frame in one read is by far the most usual: this saves a third of its time. The second byte
            # has the mask bit and the length.
            if (
                0 <= size <= _MOST_IN_CONTROL
                and received[1] == _MASKED | size
                and received[0] in _USUAL
                and self._message is None
                and size <= self._most_bytes
            ):
                mask = int.from_bytes((received[2:6] * 32)[:size], "little")
                payload = (int.from_bytes(received[6:], "little") ^ mask).to_bytes(size, "little")
                frames.append(_complete(received[0] & 0x0F, payload))
            else:
                self._read_all(received, frames)
        except _Refused as refused:
            self._end(ProtocolViolation(refused.code, refused.reason))
        except UnicodeDecodeError:
            # Section 8.1, and section 5.5.1 for the reason of a Close frame.
            self._end(ProtocolViolation(CloseCode.NOT_UTF_8, "a text was not UTF-8"))
        return frames

    def _read_all(self, received: Union[bytes, bytearray], frames: list[Frame]) -> None:
        """Append the frames and messages that are complete, and keep the rest.

        Raises:
            _Refused: a frame breaks a rule.
            UnicodeDecodeError: a text is not UTF-8.
        """
        place, size = 0, len(received)
        while place < size:
            end = self._end_of_frame(received, place)
            if end > size:
                self._kept, self._needed = bytearray(received[place:]), end - place
                return
            start = place + _HEAD_SIZES[received[place + 1] & 0x7F]
            payload = _unmasked(received[start - 4 : start], received[start:end])
            frame = self._take(received[place], payload)
            if frame is not None:
                frames.append(frame)
                if frame.opcode == CLOSE:
                    self._end(None)
                    return
            place = end

    def _end_of_frame(self, received: Union[bytes, bytearray], place: int) -> int:
        """Return where the frame at `place` ends, or at least the end of what must be known to say so.

        A frame is refused as soon as its header shows what is wrong: none of its payload is waited for.

        Raises:
            _Refused: the header breaks a rule.
        """
        size = len(received)
        if size - place < 2:
            return place + 2
        second = received[place + 1]
        _check(received[place], second, self._message is not None)
        length = second & 0x7F
        start = place + _HEAD_SIZES[length]
        if length >= 126:
            if size < start - 4:
                return start
            length = int.from_bytes(received[place + 2 : start - 4], "big")
            if length >> 63:
                raise _Refused(CloseCode.PROTOCOL_ERROR, "a length over 63 bits")  # Section 5.2.
        before = 0 if self._message is None else len(self._message.payload)
        if before + length > self._most_bytes and not received[place] & _CONTROL:
            raise _Refused(CloseCode.TOO_LARGE, "a frame was over the size limit")  # Section 10.4.
        return start + length

    def _take(self, first: int, payload: bytes) -> Optional[Frame]:
        """Return the message or the control frame that a frame completes, if any."""
        opcode = first & 0x0F
        if first & _FINAL and opcode != _CONTINUATION:
            return _complete(opcode, payload)
        message = self._message
        if message is None:
            message = self._message = _Message(opcode)
        message.payload += payload
        message.fragments += 1
        if message.fragments > _FREE_FRAGMENTS + len(message.payload) // _BYTES_OF_A_FRAGMENT:
            raise _Refused(CloseCode.TOO_LARGE, "a message was in too many fragments")  # Section 10.4.
        if first & _FINAL:
            self._message = None
            return _complete(message.opcode, message.payload)
        if message.opcode == TEXT:
            message.check()
        return None

    def _end(self, violation: Optional[ProtocolViolation]) -> None:
        self.violation = violation
        self._ended = True
        self._message = None


class _Message:
    """The fragments of a message so far, in one buffer: an object each would let empty fragments fill the memory."""

    __slots__ = ("_checked", "fragments", "opcode", "payload")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.payload = bytearray()
        self.fragments = 0
        self._checked = 0

    def check(self) -> None:
        """Check that what has come is the beginning of UTF-8; its last character may be cut (section 8.1).

        Raises:
            UnicodeDecodeError: it is not.
        """
        self._checked += codecs.utf_8_decode(self.payload[self._checked :], "strict", False)[1]


class _Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def _check(first: int, second: int, continues: bool) -> None:
    """Check the first two bytes of a frame.

    Args:
        first: the byte with the final bit, the reserved bits and the opcode.
        second: the byte with the mask bit and the length.
        continues: True while a fragmented message is incomplete.

    Raises:
        _Refused: they break a rule.
    """
    opcode = first & 0x0F
    fault = ""
    if first & 0x70:
        fault = "a reserved bit was set"  # Section 5.2: no extension is ever negotiated.
    elif not second & _MASKED:
        fault = "a frame without a mask"  # Section 5.1.
    elif opcode not in _OPCODES:
        fault = "an opcode that is reserved"  # Section 5.2.
    elif opcode & _CONTROL:
        if not first & _FINAL:
            fault = "a fragmented control frame"  # Section 5.5.
        elif second & 0x7F > _MOST_IN_CONTROL:
            fault = "a control frame over 125 bytes"  # Section 5.5.
    elif opcode == _CONTINUATION:
        if not continues:
            fault = "a continuation of no message"  # Section 5.4.
    elif continues:
        fault = "a message within a fragmented one"  # Section 5.4.
    if fault:
        raise _Refused(CloseCode.PROTOCOL_ERROR, fault)


def _complete(opcode: int, payload: Union[bytes, bytearray]) -> Frame:
    if opcode == TEXT:
        return _new(Frame, (TEXT, b"", payload.decode("utf-8"), None))
    if opcode == CLOSE:
        return _close(payload)
    return _new(Frame, (opcode, bytes(payload), "", None))


def _close(payload: Union[bytes, bytearray]) -> Frame:
    """Read the payload of a Close frame (section 5.5.1)."""
    if not payload:
        return Frame(CLOSE)
    reason = payload[2:].decode("utf-8")
    # Half a code is below 256, and may not be sent either.
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):
        raise _Refused(CloseCode.PROTOCOL_ERROR, "a close code that may not be sent")
    return Frame(CLOSE, b"", reason, code)


def _may_be_sent(code: int) -> bool:
    """Return whether a Close frame may have this code (section 7.4; 1012 to 1014 were registered later)."""
    return 3000 <= code < 5000 or (1000 <= code < 1015 and code not in (1004, 1005, 1006))


def _unmasked(mask: Union[bytes, bytearray], payload: Union[bytes, bytearray]) -> bytes:
    """Undo the mask (section 5.3): each byte XOR the byte of the mask whose turn it is.

    A payload is an integer, and so is the mask, repeated; a long one is translated with a table for each byte of the
    mask.
    """
    size = len(payload)
    if size < _TABLES_FROM:
        repeated = (mask * (size // 4 + 1))[:size]
        clear = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
        return clear.to_bytes(size, "little")
    unmasked = bytearray(size)
    for turn in range(4):
        table = _unmasked(mask[turn : turn + 1] * 4, _EVERY_BYTE)
        unmasked[turn::4] = payload[turn::4].translate(table)
    return bytes(unmasked)
