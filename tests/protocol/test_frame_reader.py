"""What a client's bytes are read as, and which of them are refused (RFC 6455)."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterable
from typing import Optional

import pytest

from tests.client_frames import CONTINUATION, MASK, client_frame, fragments
from ws_manager.protocol.frame_reader import Frame, FrameReader
from ws_manager.protocol.wire import BINARY, CLOSE, PING, PONG, TEXT

MOST = 100_000
Result = tuple[list[Frame], Optional[int]]


def read(*pieces: bytes, most: int = MOST) -> Result:
    """Read the pieces one after the other; return all frames, and the code of the violation."""
    reader = FrameReader(most)
    frames = [frame for piece in pieces for frame in reader.read(piece)]
    return frames, None if reader.violation is None else reader.violation.code


def text(payload: str) -> Frame:
    return Frame(TEXT, text=payload)


def every_split(stream: bytes, **options: int) -> Iterable[Result]:
    """Results of the stream in two pieces, cut at each place, and byte by byte."""
    for place in range(len(stream) + 1):
        yield read(stream[:place], stream[place:], **options)
    yield read(*(stream[place : place + 1] for place in range(len(stream))), **options)


class TestFrames:
    def test_text(self) -> None:
        assert read(client_frame(TEXT, "grüße €😀".encode())) == ([text("grüße €😀")], None)

    def test_binary(self) -> None:
        assert read(client_frame(BINARY, b"\x00\xff")) == ([Frame(BINARY, b"\x00\xff")], None)

    @pytest.mark.parametrize("opcode", [PING, PONG])
    @pytest.mark.parametrize("payload", [b"", b"123456789012", b"\xff" * 125])
    def test_control(self, opcode: int, payload: bytes) -> None:
        assert read(client_frame(opcode, payload)) == ([Frame(opcode, payload)], None)

    @pytest.mark.parametrize(
        "size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 16_383, 16_384, 16_387, 65_535, 65_536]
    )
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_of_every_kind_of_length(self, opcode: int, size: int) -> None:
        payload = bytes(place % 127 for place in range(size))
        expected = text(payload.decode()) if opcode == TEXT else Frame(BINARY, payload)
        assert read(client_frame(opcode, payload)) == ([expected], None)

    @pytest.mark.parametrize(
        "mask", [bytes(4), b"\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00"]
    )
    @pytest.mark.parametrize("size", [7, 20_001])
    def test_with_any_mask(self, mask: bytes, size: int) -> None:
        assert read(client_frame(BINARY, b"\x55" * size, mask=mask)) == (
            [Frame(BINARY, b"\x55" * size)],
            None,
        )

    def test_several_in_one_read_come_in_order(self) -> None:
        stream = client_frame(PONG, b"1") + client_frame(TEXT, b"two") + client_frame(PING, b"3")
        assert read(stream) == ([Frame(PONG, b"1"), text("two"), Frame(PING, b"3")], None)

    def test_the_beginning_of_the_next_one_is_kept(self) -> None:
        stream = client_frame(PONG, b"1") + client_frame(TEXT, b"two")
        reader = FrameReader(MOST)
        assert reader.read(stream[:-1]) == [Frame(PONG, b"1")]
        assert reader.read(stream[-1:]) == [text("two")]

    def test_memory_that_is_used_again_is_no_harm(self) -> None:
        stream = client_frame(TEXT, b"hello") + client_frame(PONG, b"12")
        memory, reader, frames = bytearray(5), FrameReader(MOST), []
        for place in range(0, len(stream), 5):
            piece = stream[place : place + 5]
            memory[: len(piece)] = piece
            frames += reader.read(memoryview(memory)[: len(piece)])
        assert frames == [text("hello"), Frame(PONG, b"12")]

    def test_payloads_are_bytes_however_they_came(self) -> None:
        stream = client_frame(PONG, b"12") + b"".join(fragments(BINARY, b"3", b"4"))
        for frames, _ in every_split(stream):
            assert [type(frame.payload) for frame in frames] == [bytes, bytes]


class TestFragments:
    def test_are_joined(self) -> None:
        assert read(*fragments(BINARY, b"one ", b"", b"two")) == ([Frame(BINARY, b"one two")], None)

    def test_may_cut_a_character(self) -> None:
        cut = [bytes([byte]) for byte in "a€😀".encode()]
        assert read(*fragments(TEXT, *cut)) == ([text("a€😀")], None)

    def test_control_frames_between_them_come_in_their_place(self) -> None:
        first, second, third = fragments(TEXT, b"a", b"b", b"c")
        stream = [first, client_frame(PING, b"1"), second, client_frame(PONG, b"2"), third]
        assert read(*stream) == ([Frame(PING, b"1"), Frame(PONG, b"2"), text("abc")], None)

    def test_close_between_them_ends_the_reading(self) -> None:
        first, second = fragments(TEXT, b"a", b"b")
        assert read(first, client_frame(CLOSE), second) == ([Frame(CLOSE)], None)

    def test_the_next_message_begins_anew(self) -> None:
        stream = [*fragments(TEXT, b"a", b"b"), *fragments(BINARY, b"c", b"d"), client_frame(TEXT, b"e")]
        assert read(*stream) == ([text("ab"), Frame(BINARY, b"cd"), text("e")], None)

    def test_continuation_of_nothing_is_refused(self) -> None:
        assert read(client_frame(CONTINUATION, b"a")) == ([], 1002)

    def test_continuation_after_the_end_is_refused(self) -> None:
        stream = [*fragments(TEXT, b"a", b"b"), client_frame(CONTINUATION, b"c", final=False)]
        assert read(*stream) == ([text("ab")], 1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("final", [True, False])
    def test_new_message_among_them_is_refused(self, opcode: int, final: bool) -> None:
        assert read(fragments(TEXT, b"a", b"b")[0], client_frame(opcode, b"c", final=final)) == ([], 1002)


class TestHeader:
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    @pytest.mark.parametrize("payload", [b"", b"1" * 12])
    def test_without_a_mask_is_refused(self, opcode: int, payload: bytes) -> None:
        assert read(client_frame(opcode, payload, mask=None)) == ([], 1002)

    @pytest.mark.parametrize("opcode", [TEXT, PING, PONG])
    def test_without_a_mask_is_refused_before_as_many_bytes(self, opcode: int) -> None:
        assert read(client_frame(opcode, b"1" * 12, mask=None) + b"\x8a\x80ma") == ([], 1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    @pytest.mark.parametrize("reserved", range(1, 8))
    def test_with_a_reserved_bit_is_refused(self, opcode: int, reserved: int) -> None:
        assert read(client_frame(opcode, reserved=reserved)) == ([], 1002)

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_with_a_reserved_opcode_is_refused(self, opcode: int) -> None:
        assert read(client_frame(opcode, b"a")) == ([], 1002)

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_of_a_fragmented_control_frame_is_refused(self, opcode: int) -> None:
        assert read(client_frame(opcode, final=False)) == ([], 1002)

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    @pytest.mark.parametrize("size", [126, 65_536])
    def test_of_a_long_control_frame_is_refused(self, opcode: int, size: int) -> None:
        assert read(client_frame(opcode, b"\x03\xe8" + b"a" * (size - 2))) == ([], 1002)

    def test_with_a_length_over_63_bits_is_refused(self) -> None:
        assert read(client_frame(BINARY, length=1 << 63)) == ([], 1002)

    @pytest.mark.parametrize(
        "stream",
        [b"\x81\x00", b"\xc1\x80", b"\x83\x80", b"\x09\x80", b"\x89\xfe", b"\x80\x80"],
        ids=["no mask", "reserved bit", "reserved opcode", "fragmented Ping", "long Ping", "continuation"],
    )
    def test_is_refused_before_the_rest_has_come(self, stream: bytes) -> None:
        assert read(stream) == ([], 1002)


class TestLimit:
    @pytest.mark.parametrize("most", [0, 1, 125, 126, 65_535, 65_536])
    def test_message_of_it_is_read(self, most: int) -> None:
        assert read(client_frame(BINARY, b"a" * most), most=most) == ([Frame(BINARY, b"a" * most)], None)

    @pytest.mark.parametrize("most", [0, 1, 124, 125, 126, 65_535, 65_536])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_message_over_it_is_refused(self, opcode: int, most: int) -> None:
        assert read(client_frame(opcode, b"a" * (most + 1)), most=most) == ([], 1009)

    @pytest.mark.parametrize("length", [1001, 65_536, (1 << 63) - 1])
    def test_is_held_before_the_payload_has_come(self, length: int) -> None:
        header = client_frame(TEXT, length=length)[: -len(MASK)]
        assert read(header, most=1000) == ([], 1009)

    def test_fragments_of_it_are_read(self) -> None:
        assert read(*fragments(BINARY, b"a" * 60, b"b" * 40), most=100)[1] is None

    def test_fragments_over_it_are_refused_before_the_last_has_come(self) -> None:
        first, second = fragments(BINARY, b"a" * 60, b"b" * 41)
        assert read(first, second[:2], most=100) == ([], 1009)

    def test_is_for_each_message(self) -> None:
        stream = [*fragments(TEXT, b"a" * 60, b"b" * 40), client_frame(TEXT, b"c" * 100)]
        assert read(*stream, most=100)[1] is None

    def test_control_frames_have_their_own(self) -> None:
        first, second = fragments(TEXT, b"a" * 60, b"b" * 40)
        ping = client_frame(PING, b"1" * 125)
        assert read(ping, first, ping, second, most=100)[1] is None


class TestUtf8:
    BAD = (b"\xff", b"a\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")

    @pytest.mark.parametrize("payload", BAD)
    def test_text_that_is_not_is_refused(self, payload: bytes) -> None:
        assert read(client_frame(TEXT, payload)) == ([], 1007)

    @pytest.mark.parametrize("payload", BAD)
    def test_long_text_that_is_not_is_refused(self, payload: bytes) -> None:
        assert read(client_frame(TEXT, b"a" * 30_000 + payload)) == ([], 1007)

    @pytest.mark.parametrize("payload", BAD)
    def test_fragments_that_are_not_are_refused(self, payload: bytes) -> None:
        cut = [bytes([byte]) for byte in payload]
        assert read(*fragments(TEXT, b"a", *cut, b"")) == ([], 1007)

    def test_early_fragment_that_is_not_is_refused_at_once(self) -> None:
        assert read(fragments(TEXT, b"\xe2\x82", b"\xac\xff", b"")[0]) == ([], None)
        assert read(*fragments(TEXT, b"\xe2\x82", b"\xac\xff", b"")[:2]) == ([], 1007)

    def test_binary_may_be_anything(self) -> None:
        assert read(*fragments(BINARY, b"\xff", b"\xc0")) == ([Frame(BINARY, b"\xff\xc0")], None)


class TestClose:
    def test_without_a_code(self) -> None:
        assert read(client_frame(CLOSE)) == ([Frame(CLOSE)], None)

    @pytest.mark.parametrize(
        "code",
        [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999],
    )
    def test_with_a_code(self, code: int) -> None:
        assert read(client_frame(CLOSE, code.to_bytes(2, "big"))) == ([Frame(CLOSE, code=code)], None)

    def test_with_a_reason(self) -> None:
        payload = b"\x03\xe8" + "schönen Tag".encode()
        assert read(client_frame(CLOSE, payload)) == ([Frame(CLOSE, text="schönen Tag", code=1000)], None)

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535])
    def test_with_a_code_that_may_not_be_sent_is_refused(self, code: int) -> None:
        assert read(client_frame(CLOSE, code.to_bytes(2, "big"))) == ([], 1002)

    def test_with_half_a_code_is_refused(self) -> None:
        assert read(client_frame(CLOSE, b"\x03")) == ([], 1002)

    def test_with_a_reason_that_is_not_utf_8_is_refused(self) -> None:
        assert read(client_frame(CLOSE, b"\x03\xe8\xff")) == ([], 1007)

    def test_ends_the_reading(self) -> None:
        frame = client_frame(PONG, b"1")
        assert read(client_frame(CLOSE) + frame, frame) == ([Frame(CLOSE)], None)


class TestViolation:
    def test_what_was_complete_before_it_is_returned(self) -> None:
        stream = client_frame(TEXT, b"a") + client_frame(PONG, b"1") + client_frame(TEXT, b"\xff")
        assert read(stream) == ([text("a"), Frame(PONG, b"1")], 1007)

    def test_everything_after_it_is_ignored(self) -> None:
        bad, good = client_frame(TEXT, mask=None), client_frame(PONG, b"1")
        assert read(bad + good, good, client_frame(TEXT, b"\xff")) == ([], 1002)

    def test_says_what_was_wrong(self) -> None:
        reader = FrameReader(MOST)
        reader.read(client_frame(TEXT, b"a", mask=None))
        assert reader.violation is not None
        assert reader.violation.reason == "a frame without a mask"

    def test_keeps_nothing_in_memory(self) -> None:
        reader = FrameReader(MOST)
        tracemalloc.start()
        try:
            reader.read(fragments(TEXT, b"a" * 90_000, b"")[0])
            reader.read(client_frame(CONTINUATION, b"\xff", final=False))
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert reader.violation is not None
        assert used < 4096


class TestPieces:
    """A stream that is cut anywhere is read as if it had come at once."""

    CUT = fragments(TEXT, b"\xe2", b"\x82\xac", b"")
    GOOD = b"".join(
        [
            client_frame(PONG, b"123456789012"),
            client_frame(TEXT, "€".encode() * 50),
            CUT[0],
            client_frame(PING),
            *CUT[1:],
            client_frame(BINARY, b"\x00" * 126),
        ]
    )
    FRAMES = (
        Frame(PONG, b"123456789012"),
        text("€" * 50),
        Frame(PING),
        text("€"),
        Frame(BINARY, b"\x00" * 126),
    )

    @pytest.mark.parametrize(
        ("last", "frame", "code"),
        [
            (client_frame(CLOSE, b"\x0f\xa0bye"), Frame(CLOSE, text="bye", code=4000), None),
            (client_frame(TEXT, b"\xff"), None, 1007),
            (client_frame(TEXT, mask=None), None, 1002),
            (client_frame(TEXT, length=MOST + 1), None, 1009),
            (CUT[0] + client_frame(TEXT), None, 1002),
        ],
        ids=["Close", "not UTF-8", "no mask", "too large", "within a message"],
    )
    def test_cut_anywhere(self, last: bytes, frame: Optional[Frame], code: Optional[int]) -> None:
        expected = [*self.FRAMES] if frame is None else [*self.FRAMES, frame]
        for result in every_split(self.GOOD + last):
            assert result == (expected, code)

    @pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
    def test_long_frame_byte_by_byte(self, size: int) -> None:
        stream = client_frame(TEXT, b"a" * size)
        pieces = [stream[place : place + 1] for place in range(len(stream))]
        assert read(*pieces) == ([text("a" * size)], None)

    def test_empty_piece_is_nothing(self) -> None:
        stream = client_frame(TEXT, b"a")
        assert read(b"", stream[:3], b"", stream[3:], b"") == ([text("a")], None)


class TestMemory:
    def test_idle_reader_has_no_buffer(self) -> None:
        reader = FrameReader(MOST)
        new = sys.getsizeof(reader)
        reader.read(b"".join(fragments(TEXT, b"a", b"b")) + client_frame(PONG, b"1"))
        assert not hasattr(reader, "__dict__")
        assert sys.getsizeof(reader) == new < 128
        assert reader._kept is None
        assert reader._message is None

    @pytest.mark.parametrize("payload", [b"", b"a"])
    def test_flood_of_tiny_fragments_costs_little_more_than_their_bytes(self, payload: bytes) -> None:
        reader = FrameReader(MOST)
        reader.read(client_frame(TEXT, final=False))
        flood = client_frame(CONTINUATION, payload, final=False) * 10
        tracemalloc.start()
        try:
            for _ in range(9):
                assert reader.read(flood) == []
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 2 * 9 * 10 * len(payload) + 4096

    @pytest.mark.parametrize(("payload", "most"), [(b"", 100), (b"a", 101), (b"a" * 32, 200)])
    def test_very_many_small_fragments_are_refused(self, payload: bytes, most: int) -> None:
        reader = FrameReader(MOST)
        more = client_frame(CONTINUATION, payload, final=False)
        assert reader.read(client_frame(TEXT, payload, final=False) + more * (most - 1)) == []
        assert reader.violation is None
        reader.read(more)
        assert reader.violation is not None
        assert reader.violation.code == 1009

    def test_fragments_of_64_bytes_are_as_many_as_the_limit_allows(self) -> None:
        count = MOST // 64
        (frame,) = FrameReader(MOST).read(b"".join(fragments(TEXT, *[b"a" * 64] * count)))
        assert len(frame.text) == 64 * count
