r"""Text from outside: which bytes are text, and which characters are invisible.

All text is read with this module: UTF-8, with or without a byte order mark, or UTF-16 with one, as `>` of Windows
PowerShell 5 writes it. UTF-32, and UTF-16 without a mark, are refused.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import BinaryIO, Optional

from ws_manager.errors import InvalidInput

MARK = "\ufeff"
"""The byte order mark as a character. At the beginning of a text it is no part of it."""

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_HINT = "save it as UTF-8, or convert it: iconv -f … -t UTF-8"

# What Unicode calls default ignorable (DerivedCoreProperties.txt), and controls, separators of lines and paragraphs,
# surrogates, the marks of interlinear annotations and of hieroglyphs. Not the visible signs of category Cf: U+0600.
UNSEEN_CLASS = (
    "\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""The characters of `unseen`, but for where writing needs them, as a class of a regular expression."""
_JOINED_LETTERS = "\u0620-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\U00011000-\U00011fff"
_PICTURES = "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Joiners between letters of Arabic (Persian), Indic and kindred scripts; emoji; variants of ideographs in names.
_NEEDED = "|".join(
    (
        f"(?<=[{_JOINED_LETTERS}])[\u200c\u200d](?=[{_JOINED_LETTERS}])",
        f"(?<=[{_PICTURES}\ufe0f])\u200d(?=[{_PICTURES}])",
        f"(?<=[{_PICTURES}])[\ufe0e\ufe0f]",
        "(?<=[#*0-9])\ufe0f(?=\u20e3)",
        f"(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e01ef]",
    )
)


@lru_cache(maxsize=1)
def unseen() -> re.Pattern[str]:
    """Return a pattern for a character that is invisible, or that controls a terminal or the order of characters.

    It does not match where writing needs the character: a joiner between letters of scripts that join them or within
    an emoji, and a variation selector directly after a character with variants.
    """
    # Not compiled when this is imported: a one-shot `send` of ASCII needs none of it.
    # The class comes first: it decides for nearly every character.
    return re.compile(rf"(?=[{UNSEEN_CLASS}])(?!{_NEEDED})[\s\S]")


def read_text(source: BinaryIO, what: str, limit: int) -> str:
    """Read a text to its end.

    Args:
        source: where it is, open.
        what: what it is, for errors.
        limit: bytes that it may have.

    Raises:
        InvalidInput: it is longer, or not text.
        OSError: it cannot be read.
    """
    data = source.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{what} has more than {limit} bytes", hint="give a smaller one")
    return decode(data, what)


def decode(data: bytes, what: str) -> str:
    """Return bytes as text, without a byte order mark.

    Args:
        data: all of its bytes.
        what: what it is, for errors.

    Raises:
        InvalidInput: it is not text. The error names the first bad byte, counted from 0.
    """
    mark, encoding = _beginning(data, what)
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise InvalidInput(f"{what} is not {name} (byte {len(mark) + error.start})", hint=_HINT) from None


def without_mark(text: str) -> str:
    """Return a text without the byte order mark that a shell has read with it: `"$(cat message.json)"`."""
    return text[1:] if text.startswith(MARK) else text


def has_mark(data: bytes) -> bool:
    """Return whether bytes begin with a byte order mark."""
    return data.startswith((*_ENCODINGS, *_UTF32))


class ToUtf8:
    """Turns the bytes of a text, as they come, into UTF-8 without a byte order mark.

    Bytes that are not text are passed on as bytes that are not UTF-8, so that a reader of lines can refuse only that
    line.

    Args:
        what: what it is, for errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = False
        self._head = b""
        self._decoder: Optional[codecs.IncrementalDecoder] = None

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Return what the next bytes add.

        Raises:
            InvalidInput: the first bytes say that it is neither UTF-8 nor UTF-16 with a mark.
        """
        if not self._begun:
            data = self._head + data
            if not final and _may_go_on(data):
                self._head = data
                return b""
            mark, encoding = _beginning(data, self._what)
            self._begun, data = True, data[len(mark) :]
            if encoding != "utf-8":
                self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        if self._decoder is None:
            return data
        try:
            return self._decoder.decode(data, final).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            # The end is in the middle of a character.
            return b"\xff"


def _may_go_on(data: bytes) -> bool:
    """Return whether more bytes are needed to know the encoding."""
    return len(data) < 2 or any(
        len(data) < len(mark) and mark.startswith(data) for mark in (*_ENCODINGS, *_UTF32)
    )


def _beginning(data: bytes, what: str) -> tuple[bytes, str]:
    """Return the byte order mark that a text begins with, b"" for none, and its encoding."""
    if data.startswith(_UTF32):
        raise InvalidInput(f"{what} is UTF-32", hint=_HINT)
    for mark, encoding in _ENCODINGS.items():
        if data.startswith(mark):
            return mark, encoding
    if len(data) > 1 and 0 in data[:2]:
        raise InvalidInput(f"{what} is not UTF-8: it looks like UTF-16 without a byte order mark", hint=_HINT)
    return b"", "utf-8"
