"""The one reader of text: what is text, what is refused, and which characters nobody can see."""

from __future__ import annotations

import io

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.text import ToUtf8, decode, read_text, unseen, without_mark

TEXT = '{"größe":"東京 🚀"}\n[1]\n'

ENCODED = {
    "UTF-8": TEXT.encode("utf-8"),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16, little endian": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16, big endian": b"\xfe\xff" + TEXT.encode("utf-16-be"),
}


@pytest.mark.parametrize("data", ENCODED.values(), ids=ENCODED)
class TestText:
    def test_whole(self, data: bytes) -> None:
        assert decode(data, "it") == TEXT

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
    def test_in_pieces(self, data: bytes, size: int) -> None:
        reader = ToUtf8("it")
        pieces = [reader.feed(data[start : start + size]) for start in range(0, len(data), size)]
        assert b"".join([*pieces, reader.feed(b"", final=True)]).decode("utf-8") == TEXT

    def test_limit(self, data: bytes) -> None:
        assert read_text(io.BytesIO(data), "it", len(data)) == TEXT
        with pytest.raises(InvalidInput, match=f"it has more than {len(data) - 1} bytes"):
            read_text(io.BytesIO(data), "it", len(data) - 1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"abc\xe9", r"it is not UTF-8 \(byte 3\)"),
        (b"\xef\xbb\xbfab\xff", r"it is not UTF-8 \(byte 5\)"),
        (b"\xff\xfea\0b", r"it is not UTF-16 \(byte 4\)"),
        (b"\xff\xfea\0\x00\xd8", r"it is not UTF-16 \(byte 4\)"),
        (b"\xff\xfe\0\0a\0\0\0", "it is UTF-32"),
        (b"\0\0\xfe\xff\0\0\0a", "it is UTF-32"),
        (b"a\0b\0", "looks like UTF-16 without a byte order mark"),
        (b"\0a\0b", "looks like UTF-16 without a byte order mark"),
    ],
)
def test_what_is_no_text(data: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as raised:
        decode(data, "it")
    assert "iconv" in str(raised.value.hint)


@pytest.mark.parametrize("end", [b"a", b"\x00\xd8"], ids=["half a character", "half of a surrogate pair"])
def test_the_end_of_utf_16_spoils_its_own_line_alone(end: bytes) -> None:
    reader = ToUtf8("it")
    found = reader.feed(b"\xff\xfe" + "good\nbad".encode("utf-16-le") + end) + reader.feed(b"", final=True)
    good, bad = found.split(b"\n")
    assert good == b"good"
    with pytest.raises(UnicodeDecodeError):
        bad.decode("utf-8")


def test_the_first_bytes_are_not_kept_back_from_whoever_waits_for_an_answer() -> None:
    assert ToUtf8("it").feed(b"1\n") == b"1\n"


def test_mark_in_an_argument() -> None:
    assert without_mark("\ufeff{}") == "{}"
    assert without_mark("a\ufeff") == "a\ufeff"


UNSEEN = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u180e\u200b\u200e\u200f\u2028\u2029\u202e\u2060\u2066\u206f\u3164\ufeff\uffa0",
    *"\ufff9\U0001d173\U000e0001\U000e0041\U000e007f\U000e0100\ufe0f\u200c\u200d\ud800",
]


@pytest.mark.parametrize("character", UNSEEN, ids=lambda character: f"U+{ord(character):04X}")
def test_unseen(character: str) -> None:
    assert unseen().findall(f"a{character}b") == [character]


@pytest.mark.parametrize(
    "text",
    [
        "octavia",
        "[agent] Ü ß 東京",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "क्\u200dष",
        "👩\u200d💻",
        "👩🏽\u200d🚀",
        "❤\ufe0f\u200d🔥",
        "🏳\ufe0f\u200d🌈",
        "1\ufe0f\u20e3",
        "葛\U000e0100",
        "\u0600 \u06dd",
    ],
)
def test_what_writing_needs_is_no_unseen_character(text: str) -> None:
    assert not unseen().search(text)


@pytest.mark.parametrize(
    "text",
    ["oct\u200cavia", "\u200d\u0645", "\u0645\u200c", "👩\u200d", "😀\ufe0f\ufe0e", "a\ufe0f", "漢\u200d字"],
)
def test_the_same_characters_elsewhere(text: str) -> None:
    assert unseen().search(text)
