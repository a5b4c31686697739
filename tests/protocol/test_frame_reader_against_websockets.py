"""Our reader and the one of `websockets` read the same from any client's bytes, and refuse the same.

Where the two may differ:

* Ours refuses a frame as soon as its header is wrong. `websockets` looks at reserved bits, control frames and the
  order of fragments when it has the whole frame: it is given the rest, as zeros.
* A Close frame may come between fragments (RFC 6455 section 5.4). `websockets` reads it, and then complains that the
  message is incomplete: here it counts as read.
* `websockets` leaves the text of messages to its callers: here it is decoded as it comes.
* A header may be wrong in two ways, one of them its length. `websockets` looks at the length first, and ours last.
* `websockets` counts a control frame between fragments towards the size of their message. Here it always fits.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import NamedTuple, Optional

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets import frames
from websockets.protocol import SERVER, Protocol

from tests.client_frames import CONTINUATION, client_frame, fragments
from ws_manager.protocol.frame_reader import Frame, FrameReader
from ws_manager.protocol.wire import BINARY, CLOSE, PING, PONG, TEXT

MOST = 4096
NO_STATUS = 1005
bounded = settings(derandomize=True, database=None, deadline=None, max_examples=300)


class Result(NamedTuple):
    """What was read, and the code with which the reading failed."""

    frames: list[Frame]
    code: Optional[int]


class Websockets:
    """What a server that is built on `websockets` reads."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.code: Optional[int] = None
        self._protocol = Protocol(SERVER, max_size=MOST)
        self._opcode = 0
        self._payload = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""

    @property
    def has_ended(self) -> bool:
        return self.code is not None or (bool(self.frames) and self.frames[-1].opcode == CLOSE)

    def read(self, data: bytes) -> None:
        if self.has_ended:
            return
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            assert isinstance(frame, frames.Frame)
            try:
                self._take(frame.opcode, bytes(frame.data), frame.fin)
            except UnicodeDecodeError:
                self.code = 1007
                return
        close = self._protocol.close_rcvd
        if close is not None:
            code = None if close.code == NO_STATUS else int(close.code)
            self.frames.append(Frame(CLOSE, text=close.reason, code=code))
        elif self._protocol.close_sent is not None:
            self.code = int(self._protocol.close_sent.code)

    def _take(self, opcode: int, payload: bytes, final: bool) -> None:
        if opcode in (PING, PONG):
            self.frames.append(Frame(opcode, payload))
        if opcode in (TEXT, BINARY):
            self._opcode, self._payload, self._text = opcode, b"", ""
            self._decoder.reset()
        if opcode in (TEXT, BINARY, CONTINUATION):
            if self._opcode == TEXT:
                self._text += self._decoder.decode(payload, final)
            else:
                self._payload += payload
            if final:
                self.frames.append(Frame(self._opcode, self._payload, self._text))


def outcomes(pieces: Iterable[bytes]) -> tuple[Result, Result]:
    """What each reads from the same pieces: ours first."""
    reader, websockets = FrameReader(MOST), Websockets()
    read = []
    for piece in pieces:
        read += reader.read(piece)
        websockets.read(piece)
    if reader.violation is not None:
        # The rest of the frame that ours has refused already.
        websockets.read(bytes(MOST + 14))
    code = None if reader.violation is None else int(reader.violation.code)
    return Result(read, code), Result(websockets.frames, websockets.code)


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream in pieces."""
    stream = draw(streams)
    places = sorted({0, len(stream), *draw(st.lists(st.integers(0, len(stream)), max_size=12))})
    return [stream[start:end] for start, end in zip(places, places[1:])]


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    """A message in fragments, a text's cut anywhere, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    pieces = draw(cut(TEXTS if opcode == TEXT else st.binary(max_size=200)))
    return b"".join(
        frame + b"".join(draw(st.lists(CONTROLS, max_size=1))) for frame in fragments(opcode, *pieces, b"")
    )


MASKS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(max_size=60).map(str.encode)
CONTROLS = st.builds(client_frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=MASKS)
GOOD = st.one_of(
    CONTROLS,
    st.builds(client_frame, st.just(TEXT), TEXTS, mask=MASKS),
    st.builds(client_frame, st.just(BINARY), st.binary(max_size=200), mask=MASKS),
    fragmented(),
)
ANY_FRAME = st.builds(
    client_frame,
    st.one_of(st.sampled_from([CONTINUATION, TEXT, BINARY]), st.integers(0, 15)),
    st.binary(max_size=200),
    final=st.booleans(),
    mask=st.one_of(MASKS, MASKS, MASKS, st.none()),
    reserved=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 4, 7]),
)
CODES = st.one_of(
    st.sampled_from([999, *range(1000, 1017), 2999, 3000, 4999, 5000]), st.integers(0, 0xFFFF)
).map(lambda code: code.to_bytes(2, "big"))
CLOSES = st.builds(
    lambda code, reason: client_frame(CLOSE, code + reason),
    CODES,
    st.one_of(TEXTS.filter(lambda t: len(t) < 124), st.binary(max_size=20)),
)
TOO_LARGE = st.builds(
    lambda opcode, length: client_frame(opcode, length=length),
    st.sampled_from([TEXT, BINARY]),
    st.integers(MOST + 1, (1 << 63) - 1),
)
AROUND_THE_LIMIT = st.builds(
    lambda first, over: b"".join(fragments(TEXT, b"a" * first, b"a" * (MOST + over - first))),
    st.integers(0, MOST),
    st.integers(0, 2),
)
ENDINGS = st.one_of(
    st.just(b""),
    CLOSES,
    st.binary(max_size=1).map(lambda payload: client_frame(CLOSE, payload)),
    st.builds(client_frame, st.just(TEXT), st.binary(max_size=40)),
    st.lists(ANY_FRAME, max_size=5).map(b"".join),
    TOO_LARGE,
    AROUND_THE_LIMIT,
)
STREAMS = st.builds(lambda good, end: b"".join(good) + end, st.lists(GOOD, max_size=5), ENDINGS)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of which some bytes were replaced, removed or added."""
    stream = b"".join(draw(st.lists(st.one_of(GOOD, ANY_FRAME, CLOSES), min_size=1, max_size=6)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(stream)))
        end = start + draw(st.integers(0, 3))
        stream = stream[:start] + draw(st.binary(max_size=3)) + stream[end:]
    return stream


@bounded
@given(cut(STREAMS))
def test_frames_in_any_order(pieces: list[bytes]) -> None:
    ours, theirs = outcomes(pieces)
    assert ours == theirs


@bounded
@given(cut(st.one_of(mutated(), mutated(), mutated(), st.binary(max_size=60))))
def test_frames_with_wrong_bytes(pieces: list[bytes]) -> None:
    ours, theirs = outcomes(pieces)
    if (ours.code, theirs.code) == (1002, 1009):
        # A header that is wrong in two ways.
        theirs = theirs._replace(code=1002)
    assert ours == theirs
