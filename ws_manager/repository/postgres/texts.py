"""Texts in columns, found whatever their case."""

from __future__ import annotations

from collections.abc import Sequence

from ws_manager.repository.postgres.database import Database

_COLLATIONS = ("pg_unicode_fast", "pg_c_utf8", "und-x-icu")
"""Collations of the server that know the small letters of all scripts, whatever the database's own: the best first.

The first came with version 18, the second with 17, the third wherever the server was built with ICU.
"""


def contains(db: Database, expression: str, texts: Sequence[str]) -> tuple[str, list[object]]:
    """Return the condition that an expression contains one of some texts, in any case, and its parameters.

    A text in ASCII is compared as SQLite does it: only the letters of ASCII have two cases. With others in it, both
    sides are folded as Unicode says it, which servers can from version 18 on. An older one only lowers them: a sharp
    s is not found as a double s then.
    """
    # No text in PostgreSQL has a NUL, and a parameter may not.
    texts = [text for text in texts if "\0" not in text]
    if not texts:
        return "false", []
    fold, collation = ("lower", "C") if all(text.isascii() for text in texts) else _folding(db)
    held = f'strpos({fold}({expression} COLLATE "{collation}"), {fold}(%s::text COLLATE "{collation}")) > 0'
    return f"({' OR '.join([held] * len(texts))})", list(texts)


def _folding(db: Database) -> tuple[str, str]:
    """Return the function and the collation with which the server knows most about letters."""
    found = db.value(
        "SELECT collname FROM pg_collation WHERE collname = ANY(%s) AND collencoding IN (-1, 6)"
        " ORDER BY array_position(%s, collname::text) LIMIT 1",
        (list(_COLLATIONS), list(_COLLATIONS)),
    )
    return "casefold" if found == _COLLATIONS[0] else "lower", str(found or "default")
