"""The lock files: held by one, ours alone, and never through a link."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import held
from tests.users import ALICE, BOB, as_root, as_user, listing
from ws_manager import LedgerError, get_db
from ws_manager.repository.engines import engine_of
from ws_manager.repository.sqlite.locks import Lock, gateway_lock, living, living_lock, remove_stale

posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and owners are POSIX")


@pytest.fixture
def lock(db: object, database: Path) -> Lock:
    """A lock of an existing database; nobody holds it, and there is not a file."""
    return gateway_lock(database)


@contextlib.contextmanager
def elsewhere(lock: str, database: Path) -> Iterator[None]:
    """Have another process hold a lock; it is killed when the block ends."""
    code = (
        "import sys; from pathlib import Path; from ws_manager.repository.sqlite.locks import *\n"
        f"path = Path(sys.argv[1]); lock = {lock}; print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        try:
            yield
        finally:
            holder.kill()
            holder.wait()


class TestHolding:
    def test_excludes_others(self, lock: Lock, database: Path) -> None:
        other = gateway_lock(database)
        with held(lock):
            assert other.holder() is True
            assert not other.acquire()
        assert other.holder() is False
        assert other.acquire()
        other.release()

    def test_ends_with_its_process(self, lock: Lock, database: Path) -> None:
        with elsewhere("gateway_lock(path)", database):
            assert lock.holder() is True
        assert lock.holder() is False

    def test_looking_makes_no_file(self, lock: Lock) -> None:
        assert lock.holder() is False
        assert not lock.path.exists()

    @posix
    def test_those_who_look_are_not_in_each_others_way(self, lock: Lock) -> None:
        import fcntl

        with held(lock):
            pass
        # Another process that looks at this moment.
        with lock.path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            assert lock.holder() is False

    def test_on_a_file_that_was_removed_is_taken_on_the_new_one(
        self, lock: Lock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ws_manager.repository.sqlite import locks

        plain, removed = locks._take, list[bool]()

        def remove_first(descriptor: int, *, shared: bool) -> bool:
            if not removed:
                lock.path.unlink()
                removed.append(True)
            return plain(descriptor, shared=shared)

        monkeypatch.setattr(locks, "_take", remove_first)
        with held(lock):
            assert gateway_lock(lock.path.with_name("ledger.db")).holder() is True


@posix
class TestFile:
    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_is_private(self, lock: Lock, umask: int) -> None:
        before = os.umask(umask)
        try:
            with held(lock):
                assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
        finally:
            os.umask(before)

    def test_that_others_could_open_is_made_private(self, lock: Lock) -> None:
        lock.path.touch()
        lock.path.chmod(0o666)
        with held(lock):
            assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("target", ["a file", "nothing"])
    def test_a_link_in_its_place_is_not_followed(self, lock: Lock, tmp_path: Path, target: str) -> None:
        precious = tmp_path / "precious"
        if target == "a file":
            precious.write_text("keep me")
            precious.chmod(0o644)
        lock.path.symlink_to(precious)
        for use in (lock.acquire, lock.holder):
            with pytest.raises(LedgerError, match="is a link: it is not used"):
                use()
        if target == "a file":
            assert (precious.read_text(), stat.S_IMODE(precious.stat().st_mode)) == ("keep me", 0o644)
        else:
            assert not precious.exists()

    def test_another_name_of_a_file_in_its_place_is_not_used(self, lock: Lock, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("keep me")
        precious.chmod(0o644)
        os.link(precious, lock.path)
        with pytest.raises(LedgerError, match="hard links"):
            lock.acquire()
        assert (precious.read_text(), stat.S_IMODE(precious.stat().st_mode)) == ("keep me", 0o644)

    def test_a_pipe_in_its_place_keeps_nobody_waiting(self, lock: Lock) -> None:
        os.mkfifo(lock.path)
        for use in (lock.acquire, lock.holder):
            with pytest.raises(LedgerError, match="is not an ordinary file"):
                use()

    def test_what_it_holds_is_not_touched(self, lock: Lock) -> None:
        lock.path.write_text("a note")
        with held(lock):
            assert lock.path.read_text() == "a note"


@pytest.fixture
def alices(shared_folder: Path) -> Path:
    """Alice's ledger, in a folder into which everybody may write."""
    path = shared_folder / "ledger.db"
    as_user(ALICE, lambda: get_db(path).close())
    path.chmod(0o666)
    return path


@as_root
class TestOwner:
    def test_of_what_root_makes_is_the_databases(self, alices: Path) -> None:
        with held(gateway_lock(alices)) as lock:
            assert listing(alices.parent)[lock.path.name] == (ALICE, 0)
        assert as_user(ALICE, lambda: gateway_lock(alices).acquire())

    def test_gets_what_root_has_made_and_not_given_away_yet(self, alices: Path) -> None:
        # Another process of root's is between making and giving it, or was killed there.
        gateway_lock(alices).path.touch(mode=0o600)
        assert gateway_lock(alices).holder() is False
        with held(gateway_lock(alices)) as lock:
            assert listing(alices.parent)[lock.path.name] == (ALICE, 0)

    def test_gets_nothing_of_roots_that_holds_something(self, alices: Path) -> None:
        gateway_lock(alices).path.write_text("root's own")
        with pytest.raises(LedgerError, match="belongs to the user 0"):
            gateway_lock(alices).acquire()

    def test_alone_may_make_it(self, alices: Path) -> None:
        def use() -> str:
            with pytest.raises(LedgerError) as refused:
                gateway_lock(alices).acquire()
            return refused.value.message

        assert f"the owner of {alices} (uid {ALICE}) or root" in as_user(BOB, use)
        assert set(listing(alices.parent)) == {"ledger.db"}

    @pytest.mark.parametrize("user", [ALICE, 0])
    def test_is_not_another(self, alices: Path, user: int) -> None:
        lock = gateway_lock(alices)
        as_user(BOB, lock.path.touch)
        lock.path.chmod(0o666)

        def use() -> str:
            with pytest.raises(LedgerError) as refused:
                lock.acquire()
            return refused.value.message

        assert f"belongs to the user {BOB}" in (use() if user == 0 else as_user(user, use))

    def test_alone_knows_whether_it_is_held(self, alices: Path) -> None:
        with held(gateway_lock(alices)):
            assert as_user(BOB, gateway_lock(alices).holder) is None
            assert as_user(ALICE, gateway_lock(alices).holder) is True


class TestLivingGateways:
    def test_leave_no_file_behind(self, database: Path) -> None:
        with held(living_lock(database, "g")) as lock:
            assert lock.path.stat().st_mode & 0o777 == 0o600
            assert living(database) == {"g"}
        assert not lock.path.exists()

    def test_of_another_database_do_not_count(self, database: Path) -> None:
        with held(living_lock(database.with_name("other.db"), "g")):
            assert living(database) == frozenset()

    @posix
    def test_that_were_killed_are_found_and_cleared_away(self, database: Path) -> None:
        with elsewhere("living_lock(path, 'g')", database):
            remove_stale(database)
            assert living(database) == {"g"}
        assert living(database) == frozenset()
        assert living_lock(database, "g").path.exists()
        remove_stale(database)
        assert not living_lock(database, "g").path.exists()

    @as_root
    def test_are_not_known_to_other_users(self, alices: Path) -> None:
        with held(living_lock(alices, "g")):
            assert as_user(BOB, lambda: living(alices)) is None
            assert as_user(ALICE, lambda: list(living(alices) or ())) == ["g"]

    @as_root
    def test_are_not_those_that_another_user_pretends(self, alices: Path) -> None:
        as_user(BOB, living_lock(alices, "g").path.touch)
        assert living(alices) == frozenset()
        remove_stale(alices)

    def test_lives_as_long_as_a_child_that_inherited_its_lock(self, database: Path) -> None:
        lock = gateway_lock(database)
        assert lock.acquire()
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=lock.descriptors,
        ) as child:
            lock.release()
            assert gateway_lock(database).holder() is True
            assert child.stdin is not None
            child.stdin.close()
            child.wait()
        assert gateway_lock(database).holder() is False


def test_only_one_process_may_be_the_gateway(database: Path) -> None:
    store = engine_of(database).open_to_write(database)
    assert store.gateway_runs() is False
    hold = engine_of(database).hold_gateway(database)
    assert hold is not None
    assert store.gateway_runs() is True
    assert engine_of(database).hold_gateway(database) is None
    hold.release()
    assert store.gateway_runs() is False
    store.close()
