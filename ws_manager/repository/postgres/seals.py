"""The seal of a ledger: triggers that refuse every write, of any session and program."""

from __future__ import annotations

import random
import time
from typing import Callable, Optional

from psycopg import sql

from ws_manager.errors import LedgerBusy
from ws_manager.repository.copied import Seal, seal_in
from ws_manager.repository.postgres.database import BUSY_SECONDS, SCHEMA, Database
from ws_manager.repository.postgres.driver import SEALED

COPIES = "ws_manager.copies"
"""The setting with which a copy's own transactions pass the seal of their target."""

_NAME = "sealed"
_UNSEALED = ("schema_version",)
# Shorter than a server's `deadlock_timeout`, which is 1 s as a rule: where a writer holds one table and waits for the
# next, it is this that gives way, and not the writer.
_LOCK_MS = 300


def seal_of(db: Database) -> Optional[Seal]:
    """Return the seal of a ledger, or None."""
    # The argument ends with a zero byte, and `text` cannot hold one.
    found = db.value(
        "SELECT convert_from(substring(tgargs FROM 1 FOR octet_length(tgargs) - 1), 'UTF8') FROM pg_trigger"
        " WHERE tgrelid = %s::regclass AND tgname = %s",
        (f"{SCHEMA}.messages", _NAME),
    )
    return None if found is None else seal_in(str(found))


def put_on(db: Database, seal: Seal) -> None:
    """Seal a ledger, when nobody is writing: who has begun to write has committed then, or is refused."""

    def seal_all() -> None:
        tables = _locked(db, "SHARE ROW EXCLUSIVE")
        db.execute(
            f"CREATE OR REPLACE FUNCTION {SCHEMA}.{_NAME}() RETURNS trigger LANGUAGE plpgsql AS $$\n"
            f"BEGIN\n  IF coalesce(current_setting('{COPIES}', true), '') <> 'yes' THEN\n"
            f"    RAISE EXCEPTION USING ERRCODE = '{SEALED}', MESSAGE = TG_ARGV[0];\n"
            "  END IF;\n  RETURN NULL;\nEND $$"
        )
        text = sql.Literal(seal.text).as_string(db.session)
        for table in tables:
            db.execute(
                f"CREATE TRIGGER {_NAME} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.{_NAME}({text})"
            )

    _patiently(db, seal_all)


def take_off(db: Database) -> None:
    """Take the seal off, if there is one."""

    def unseal_all() -> None:
        for table in _locked(db, "ACCESS EXCLUSIVE"):
            db.execute(f"DROP TRIGGER IF EXISTS {_NAME} ON {table}")
        db.execute(f"DROP FUNCTION IF EXISTS {SCHEMA}.{_NAME}()")

    if seal_of(db) is not None:
        _patiently(db, unseal_all)


def _locked(db: Database, mode: str) -> list[str]:
    """Lock all tables of the ledger, and return their names."""
    rows = db.rows(
        "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = %s AND tablename <> ALL(%s) ORDER BY 1",
        (SCHEMA, list(_UNSEALED)),
    )
    tables = [f"{SCHEMA}.{row[0]}" for row in rows]
    db.execute(f"LOCK TABLE {', '.join(tables)} IN {mode} MODE")
    return tables


def _patiently(db: Database, change: Callable[[], None]) -> None:
    """Make a change that needs all tables for itself. It waits only briefly, so that nobody waits long behind it."""
    if db.in_transaction:
        change()
        return
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with db.transaction():
                db.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                change()
            return
        except LedgerBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - not for secrets
