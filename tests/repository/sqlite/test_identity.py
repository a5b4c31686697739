"""A ledger is the file that its name leads to: there is one gateway, one key and one set of locks for it."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import pytest

from tests.support import held, open_db
from ws_manager import (
    Conflict,
    ConnectionPool,
    InvalidInput,
    LedgerError,
    LedgerReplaced,
    add_connection,
    get_db,
    send_message,
)
from ws_manager.core.ledger import ledger_over
from ws_manager.repository.sqlite.locks import gateway_lock
from ws_manager.repository.sqlite.opening import open_to_read, open_to_write
from ws_manager.tokens import key_path, signing_key


@pytest.fixture
def link(tmp_path: Path, database: Path) -> Path:
    """A link to `database`, in another folder and under another name."""
    open_db(database).close()
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "agents.db"
    link.symlink_to(database)
    return link


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


class TestLink:
    def test_leads_to_the_same_ledger(self, link: Path, database: Path) -> None:
        with contextlib.closing(open_db(link)) as one, contextlib.closing(open_db(database)) as two:
            pool = ConnectionPool(one)
            add_connection(pool, "ws-001", "octavia")
            # Two different files would be refused here.
            assert send_message(pool, two, "ws-001", 1)
            assert one.path == two.path == database

    def test_has_no_files_beside_it(self, link: Path, database: Path) -> None:
        with contextlib.closing(open_db(link)) as db:
            add_connection(ConnectionPool(db), "ws-001", "octavia")
            with held(gateway_lock(link)), ledger_over(db).delivery.holding("ws-001"):
                signing_key(link, create=True)
                assert names(link.parent) == {"agents.db"}
        assert "ledger.db.key" in names(database.parent)
        assert "ledger.db.gateway.lock" in names(database.parent)

    def test_has_the_same_gateway_lock(self, link: Path, database: Path) -> None:
        with held(gateway_lock(link)):
            assert gateway_lock(database).holder() is True
            assert not gateway_lock(database).acquire()
        assert gateway_lock(database).holder() is False

    def test_has_the_same_receivers(self, link: Path, database: Path) -> None:
        with contextlib.closing(open_db(link)) as one, contextlib.closing(open_db(database)) as two:
            add_connection(ConnectionPool(one), "ws-001", "octavia")
            with (
                ledger_over(one).delivery.holding("ws-001"),
                pytest.raises(Conflict),
                ledger_over(two).delivery.holding("ws-001"),
            ):
                pass

    def test_has_the_same_key(self, link: Path, database: Path) -> None:
        assert signing_key(link, create=True) == signing_key(database, create=False)
        assert key_path(link) == key_path(database)

    def test_in_the_way_to_the_folder(self, tmp_path: Path, database: Path) -> None:
        open_db(database).close()
        (tmp_path / "mount").symlink_to(database.parent, target_is_directory=True)
        through = tmp_path / "mount" / database.name
        assert signing_key(through, create=True) == signing_key(database, create=False)
        with held(gateway_lock(through)):
            assert gateway_lock(database).holder() is True

    def test_that_leads_elsewhere_now_is_noticed(self, tmp_path: Path, link: Path) -> None:
        with contextlib.closing(open_db(link)) as db:
            add_connection(ConnectionPool(db), "ws-001", "octavia")
            other = tmp_path / "other.db"
            open_db(other).close()
            link.unlink()
            link.symlink_to(other)
            with pytest.raises(LedgerReplaced):
                send_message(ConnectionPool(db), db, "ws-001", 1)

    @pytest.mark.parametrize("open_it", [get_db, open_to_read])
    def test_that_leads_nowhere_is_refused(self, tmp_path: Path, open_it: object) -> None:
        link = tmp_path / "ledger.db"
        link.symlink_to(tmp_path / "unmounted" / "ledger.db")
        with pytest.raises(LedgerError, match=r"is a link to .*unmounted.*, which does not exist"):
            open_it(link)  # type: ignore[operator]
        assert names(tmp_path) == {"ledger.db"}

    def test_that_leads_to_itself_is_refused(self, database: Path) -> None:
        database.symlink_to(database)
        with pytest.raises(LedgerError, match="cannot be opened"):
            open_db(database)


class TestLinkInThePlaceOfSqlitesFiles:
    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    @pytest.mark.parametrize("open_it", [get_db, open_to_read])
    def test_is_not_followed(self, tmp_path: Path, database: Path, suffix: str, open_it: object) -> None:
        open_db(database).close()
        precious = tmp_path / "precious"
        precious.write_text("keep me")
        Path(f"{database}{suffix}").symlink_to(precious)
        with pytest.raises(LedgerError, match=f"{suffix} is a link"):
            open_it(database)  # type: ignore[operator]
        assert precious.read_text() == "keep me"


class TestKeyBesideALink:
    def key_beside(self, path: Path) -> bytes:
        """Make a key beside a name, as it stands."""
        key = os.urandom(24).hex().encode()
        Path(f"{path}.key").write_bytes(key)
        Path(f"{path}.key").chmod(0o600)
        return key

    def test_alone_is_used_and_said(self, link: Path, caplog: pytest.LogCaptureFixture) -> None:
        key = self.key_beside(link)
        with caplog.at_level(logging.WARNING):
            assert signing_key(link, create=True) == key
        assert f"{link}.key" in caplog.text
        assert str(key_path(link)) in caplog.text
        assert key.decode() not in caplog.text

    def test_that_is_another_is_refused(self, link: Path, database: Path) -> None:
        keys = self.key_beside(link), self.key_beside(database)
        with pytest.raises(InvalidInput, match="two signing keys that differ") as refused:
            signing_key(link, create=True)
        assert not any(key.decode() in f"{refused.value} {refused.value.hint}" for key in keys)

    def test_that_is_the_same_is_no_trouble(self, link: Path, database: Path) -> None:
        key = self.key_beside(database)
        Path(f"{link}.key").write_bytes(key)
        Path(f"{link}.key").chmod(0o600)
        assert signing_key(link, create=True) == key

    def test_that_is_a_link_to_the_databases_is_no_trouble(self, link: Path, database: Path) -> None:
        key = self.key_beside(database)
        Path(f"{link}.key").symlink_to(f"{database}.key")
        assert signing_key(link, create=True) == key


class TestHardLinks:
    def test_are_read_and_not_written(self, database: Path) -> None:
        open_db(database).close()
        os.link(database, database.with_name("other.db"))
        before = database.read_bytes()
        with pytest.raises(LedgerError, match=r"has 2 names \(hard links\)"):
            open_to_write(database)
        with contextlib.closing(open_to_read(database)) as db:
            assert db.value("SELECT count(*) FROM connections") == 0
        assert database.read_bytes() == before
