"""Tokens and the key that signs them."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.users import ALICE, BOB, as_root, as_user, listing
from ws_manager import get_db
from ws_manager.errors import InvalidInput, LedgerError, NotAuthorised
from ws_manager.tokens import AUDIENCE, SCOPES, Claims, key_path, mint, signing_key, verify

KEY = b"k" * 32
NOW = 1_800_000_000
GOOD: dict[str, Any] = {"sub": "octavia", "aud": AUDIENCE, "iat": NOW, "exp": NOW + 60, "scope": "connect"}


def forged(algorithm: str = "HS256", key: bytes = KEY, without: str = "", **claims: object) -> str:
    """A token made by somebody else's code."""
    given = {**GOOD, **claims}
    given.pop(without, None)
    return jwt.encode(given, key, algorithm=algorithm)


def unsigned(**header: object) -> str:
    """A token of a header and claims, with an empty signature."""
    parts = [json.dumps({"typ": "JWT", **header}).encode(), json.dumps(GOOD).encode()]
    return b".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts), b""]).decode()


# Before each step at which the making of a key changes files, `at_step` is called with its number, from 0.
STEPS = """
import os, sys
from pathlib import Path
from ws_manager.tokens import key_path, signing_key
database, steps, busy = Path(sys.argv[1]), 0, False
CHANGES = "os.link", "os.rename", "os.remove", "os.truncate", "os.chmod", "os.chown", "fcntl.flock"
def step(event, arguments):
    global steps, busy
    changes = event in CHANGES or event == "open" and arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    if changes and not busy:
        busy = True
        at_step(steps)
        steps, busy = steps + 1, False
sys.addaudithook(step)
"""


class TestToken:
    def test_says_what_it_was_made_with(self) -> None:
        token = mint(KEY, "octavia", ws_id="ws-001", scopes=("send", "connect"), ttl=60, now=NOW)
        claims = verify(KEY, token, NOW)
        jti = claims.jti
        assert claims == Claims("octavia", "ws-001", frozenset({"connect", "send"}), NOW, NOW + 60, jti, jti)

    def test_has_a_name_of_its_own(self) -> None:
        names = {verify(KEY, mint(KEY, "octavia", now=NOW), NOW).jti for _ in range(100)}
        assert len(names) == 100
        assert all(name and len(name) == 16 for name in names)

    def test_without_a_name_is_known_by_what_it_says(self) -> None:
        first, second = verify(KEY, forged(), NOW), verify(KEY, forged(iat=NOW - 1), NOW)
        assert (first.jti, second.jti) == (None, None)
        assert first.key == verify(KEY, forged(), NOW).key
        assert first.key != second.key

    @pytest.mark.parametrize("jti", [7, None, ["a"], {}, True])
    def test_name_that_is_not_text_is_not_accepted(self, jti: object) -> None:
        with pytest.raises(NotAuthorised):
            verify(KEY, forged(jti=jti), NOW)

    def test_is_a_jwt_with_the_documented_claims(self) -> None:
        token = mint(KEY, "octavia", now=NOW, scopes=SCOPES)
        claims = jwt.decode(token, options={"verify_signature": False})
        # Random: no two tokens have the same.
        assert isinstance(claims.pop("jti"), str)
        assert claims == {
            "sub": "octavia",
            "scope": " ".join(SCOPES),
            "aud": "ws-manager",
            "iat": NOW,
            "exp": NOW + 86400,
        }
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}

    def test_is_for_connecting_for_a_day_unless_said(self) -> None:
        claims = verify(KEY, mint(KEY, "octavia", now=NOW), NOW)
        assert (claims.scopes, claims.expires_at - claims.issued_at) == ({"connect"}, 86400)

    @pytest.mark.parametrize("scopes", [(), ("connect", "fly"), ("",)])
    def test_of_an_unknown_scope_is_not_made(self, scopes: tuple[str, ...]) -> None:
        with pytest.raises(InvalidInput):
            mint(KEY, "octavia", scopes=scopes)

    @pytest.mark.parametrize("ttl", [0, 0.5, -1, 1e10, float("nan")])
    def test_of_an_impossible_length_is_not_made(self, ttl: float) -> None:
        with pytest.raises(InvalidInput):
            mint(KEY, "octavia", ttl=ttl)

    def test_ends_at_its_second(self) -> None:
        token = mint(KEY, "octavia", ttl=60, now=NOW)
        verify(KEY, token, NOW + 59.9)
        with pytest.raises(NotAuthorised, match="expired"):
            verify(KEY, token, NOW + 60)

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b.c",
            "é.é.é",
            unsigned(alg="none"),
            unsigned(alg="None"),
            unsigned(alg="HS256"),
            unsigned(alg="HS256", crit=["b64"], b64=False),
            unsigned(),
            unsigned(alg=["HS256"]),
            forged(key=b"x" * 32),
            forged("HS384", KEY * 2),
            forged("HS512", KEY * 2),
            jwt.encode(GOOD, KEY, "HS256", headers={"crit": ["x-policy"], "x-policy": "none"}),
            forged(aud="another"),
            forged(aud=None),
            forged(aud=["another"]),
            forged(sub=None),
            forged(exp=NOW),
            forged(exp=NOW - 1),
            forged(exp=True),
            forged(exp=str(NOW + 60)),
            forged(exp=float("inf")),
            forged(exp=float("nan")),
            forged(exp=[NOW + 60]),
            forged(iat="then"),
            forged(ws_id=7),
            forged(nbf=10**11),
            *(forged(without=claim) for claim in ("sub", "aud", "exp", "iat")),
        ],
    )
    def test_that_is_none_of_ours_is_refused(self, token: str) -> None:
        with pytest.raises(NotAuthorised) as refused:
            verify(KEY, token, NOW)
        assert len(token) < 5 or token not in f"{refused.value} {refused.value.hint}"

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_of_another_algorithm_is_refused_with_the_right_key_too(self, algorithm: str) -> None:
        key = b"k" * 64
        with pytest.raises(NotAuthorised):
            verify(key, forged(algorithm, key), NOW)

    def test_that_was_changed_is_refused(self) -> None:
        head, claims, signature = forged().split(".")
        other = forged(sub="*").split(".")[1]
        assert other != claims
        with pytest.raises(NotAuthorised):
            verify(KEY, f"{head}.{other}.{signature}", NOW)

    @pytest.mark.parametrize("scope", ["", "everything", None, ["connect"], 1])
    def test_without_a_known_scope_allows_nothing(self, scope: object) -> None:
        claims = verify(KEY, forged(scope=scope), NOW)
        with pytest.raises(NotAuthorised):
            claims.check("octavia", None)


class TestClaims:
    def test_of_any_agent_let_every_agent_in(self) -> None:
        verify(KEY, mint(KEY, "*", now=NOW), NOW).check("cipher", "ws-001")

    def test_of_one_agent_refuse_another(self) -> None:
        with pytest.raises(NotAuthorised):
            verify(KEY, mint(KEY, "octavia", now=NOW), NOW).check("cipher", None)

    @pytest.mark.parametrize("ws_id", [None, "ws-002"])
    def test_of_one_connection_refuse_another(self, ws_id: str) -> None:
        with pytest.raises(NotAuthorised):
            verify(KEY, mint(KEY, "octavia", ws_id="ws-001", now=NOW), NOW).check("octavia", ws_id)

    def test_admin_includes_all_others(self) -> None:
        claims = verify(KEY, mint(KEY, "octavia", scopes=("admin",), now=NOW), NOW)
        claims.check("octavia", None)
        assert all(claims.allows(scope) for scope in SCOPES)

    @pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "admin"])
    def test_no_other_includes_another(self, scope: str) -> None:
        claims = verify(KEY, mint(KEY, "octavia", scopes=(scope,), now=NOW), NOW)
        assert [each for each in SCOPES if claims.allows(each)] == [scope]


class TestKey:
    def test_is_not_made_unasked(self, database: Path) -> None:
        assert signing_key(database, create=False) is None
        assert not key_path(database).exists()

    def test_is_kept_beside_the_database_for_its_owner_alone(self, database: Path) -> None:
        key = signing_key(database, create=True)
        assert key is not None
        assert len(key) >= 32
        assert stat.S_IMODE(key_path(database).stat().st_mode) == 0o600
        assert sorted(database.parent.iterdir()) == [key_path(database)]

    def test_stays_the_same(self, database: Path) -> None:
        key = signing_key(database, create=True)
        assert signing_key(database, create=True) == signing_key(database, create=False) == key

    def test_of_two_databases_differs(self, tmp_path: Path) -> None:
        assert signing_key(tmp_path / "a.db", create=True) != signing_key(tmp_path / "b.db", create=True)

    def test_is_one_for_all_who_make_it_at_the_same_moment(
        self, database: Path, run_together: Callable[..., list[str]]
    ) -> None:
        keys = run_together(
            "from pathlib import Path\nfrom ws_manager.tokens import signing_key\n"
            "for number in range(100): print(signing_key(Path(f'{sys.argv[1]}-{number}'), create=True))",
            4,
            database,
        )
        assert len(set(keys)) == 1

    def test_is_whole_for_all_who_read_it_at_any_moment(
        self, database: Path, run_python: Callable[..., str]
    ) -> None:
        code = (
            "seen = []\n"
            "def at_step(number): seen.append(signing_key(database, create=False))\n"
            "key = signing_key(database, create=True)\n"
            "seen.append(signing_key(database, create=False))\n"
            "print(seen[0] is None and set(seen) == {None, key}, len(seen) > 2)"
        )
        assert run_python(STEPS + code, database) == "True True\n"

    def test_is_never_written_over_one_that_was_made_meanwhile(
        self, database: Path, run_python: Callable[..., str]
    ) -> None:
        code = (
            "def at_step(number):\n"
            "    if number == 2: key_path(database).write_text('k' * 64); key_path(database).chmod(0o600)\n"
            "print(signing_key(database, create=True).decode())"
        )
        assert run_python(STEPS + code, database) == "k" * 64 + "\n"
        assert sorted(database.parent.iterdir()) == [key_path(database)]

    def test_is_made_after_a_kill_at_any_moment(self, tmp_path: Path, run_python: Callable[..., str]) -> None:
        code = (
            "def at_step(number):\n"
            "    if number == int(sys.argv[2]): print('killed', flush=True); os._exit(0)\n"
            "signing_key(database, create=True)"
        )
        for kill in range(100):
            database = tmp_path / str(kill) / "ledger.db"
            killed = run_python(STEPS + code, database, kill)
            assert signing_key(database, create=True)
            assert sorted(database.parent.iterdir()) == [key_path(database)]
            if not killed:
                break
        assert kill > 2

    def test_comes_from_the_environment_first(self, database: Path) -> None:
        assert signing_key(database, create=True, environ={"BLACKROAD_WS_SECRET": "s" * 32}) == b"s" * 32
        assert not key_path(database).exists()

    def test_of_the_file_is_a_secret_for_the_environment(self, database: Path) -> None:
        key = signing_key(database, create=True)
        secret = key_path(database).read_text().strip()
        assert signing_key(database, create=False, environ={"BLACKROAD_WS_SECRET": secret}) == key

    def test_under_32_bytes_is_refused_without_being_shown(self, database: Path) -> None:
        with pytest.raises(InvalidInput) as refused:
            signing_key(database, create=True, environ={"BLACKROAD_WS_SECRET": "hunter2" * 4})
        assert "hunter2" not in f"{refused.value} {refused.value.hint}"

    def test_file_that_others_can_read_is_refused(self, database: Path) -> None:
        signing_key(database, create=True)
        key_path(database).chmod(0o640)
        with pytest.raises(InvalidInput, match="others can read"):
            signing_key(database, create=False)

    @pytest.mark.parametrize("content", ["", "\n", "short"])
    def test_file_that_is_damaged_is_refused(self, database: Path, content: str) -> None:
        key_path(database).write_text(content)
        key_path(database).chmod(0o600)
        with pytest.raises(InvalidInput, match="damaged"):
            signing_key(database, create=True)

    def test_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises((LedgerError, NotAuthorised)):
            signing_key(tmp_path / "file" / "ledger.db", create=True)

    def test_that_is_a_folder_is_an_error(self, database: Path) -> None:
        key_path(database).mkdir()
        with pytest.raises(NotAuthorised, match=os.strerror(21)):
            signing_key(database, create=True)


@pytest.mark.skipif(os.name != "posix", reason="links and owners are POSIX")
class TestKeyFile:
    @pytest.mark.parametrize("target", ["a key", "nothing"])
    @pytest.mark.parametrize("create", [True, False])
    def test_that_is_a_link_is_refused(
        self, tmp_path: Path, database: Path, target: str, create: bool
    ) -> None:
        other = tmp_path / "other.key"
        if target == "a key":
            other.write_text("k" * 64)
            other.chmod(0o600)
        key_path(database).symlink_to(other)
        with pytest.raises(LedgerError, match=r"ledger.db.key is a link: it is not used") as refused:
            signing_key(database, create=create)
        assert refused.value.hint == "remove the link"
        assert other.exists() == (target == "a key")
        assert set(tmp_path.iterdir()) <= {other, key_path(database)}

    def test_with_another_name_is_refused(self, tmp_path: Path, database: Path) -> None:
        signing_key(database, create=True)
        os.link(key_path(database), tmp_path / "other.key")
        with pytest.raises(LedgerError, match="hard links"):
            signing_key(database, create=False)

    def test_holds_nothing_of_a_draft_that_a_killed_process_has_left(self, database: Path) -> None:
        draft = database.with_name("ledger.db.key.new")
        draft.write_text("x" * 200)
        draft.chmod(0o644)
        key = signing_key(database, create=True)
        assert key is not None
        assert b"x" * 100 not in key
        assert sorted(database.parent.iterdir()) == [key_path(database)]

    def test_is_not_written_through_a_link_in_the_place_of_its_draft(
        self, tmp_path: Path, database: Path
    ) -> None:
        precious = tmp_path / "precious"
        precious.write_text("keep me")
        database.with_name("ledger.db.key.new").symlink_to(precious)
        with pytest.raises(LedgerError, match=r"ledger.db.key.new is a link: it is not used"):
            signing_key(database, create=True)
        assert precious.read_text() == "keep me"

    def test_that_is_a_pipe_keeps_nobody_waiting(self, database: Path) -> None:
        os.mkfifo(key_path(database), 0o600)
        with pytest.raises(LedgerError, match="is not an ordinary file"):
            signing_key(database, create=False)

    @as_root
    @pytest.mark.parametrize("user", [ALICE, 0])
    def test_of_another_user_is_refused(self, shared_folder: Path, user: int) -> None:
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: get_db(path).close())
        # Bob makes a key that he knows, where Alice's gateway looks for hers.
        as_user(BOB, lambda: key_path(path).write_text("k" * 64))
        key_path(path).chmod(0o600)

        def use() -> str:
            with pytest.raises((LedgerError, NotAuthorised)) as refused:
                signing_key(path, create=True)
            return refused.value.message

        message = as_user(user, use) if user else use()
        assert (f"belongs to the user {BOB}" if user == 0 else "cannot read the signing key") in message

    @as_root
    def test_of_roots_making_is_the_owners(self, shared_folder: Path) -> None:
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: get_db(path).close())
        key = signing_key(path, create=True)
        assert key is not None
        assert listing(shared_folder)["ledger.db.key"][0] == ALICE
        assert as_user(ALICE, lambda: (signing_key(path, create=False) or b"").decode()) == key.decode()

    @as_root
    def test_of_roots_making_is_the_owners_after_a_kill_at_any_moment(
        self, shared_folder: Path, run_python: Callable[..., str]
    ) -> None:
        code = (
            "def at_step(number):\n"
            "    if number == int(sys.argv[2]): print('killed', flush=True); os._exit(0)\n"
            "signing_key(database, create=True)"
        )
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: get_db(path).close())
        for kill in range(100):
            killed = run_python(STEPS + code, path, kill)
            assert signing_key(path, create=True)
            assert {name: owner for name, (owner, _) in listing(shared_folder).items()} == {
                "ledger.db": ALICE,
                "ledger.db.key": ALICE,
            }
            key_path(path).unlink()
            if not killed:
                break
        assert kill > 3

    @as_root
    def test_of_root_is_one_while_another_root_makes_it(
        self, shared_folder: Path, run_python: Callable[..., str]
    ) -> None:
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: get_db(path).close())
        code = (
            "import subprocess\n"
            "ASK = 'import sys; from pathlib import Path; from ws_manager.tokens import signing_key\\n' \\\n"
            "    'print(signing_key(Path(sys.argv[1]), create=True).decode())'\n"
            "def at_step(number):\n"
            "    if number == int(sys.argv[2]): at_step.other = subprocess.check_output(\n"
            "        [sys.executable, '-c', ASK, str(database)], text=True, timeout=60)\n"
            "at_step.other = None\n"
            "mine = signing_key(database, create=True).decode()\n"
            "print(at_step.other in (None, mine + chr(10)))"
        )
        # Up to the step that takes the lock: from there on the other waits.
        for moment in range(3):
            assert run_python(STEPS + code, path, moment) == "True\n"
            key_path(path).unlink()

    @as_root
    def test_is_made_by_the_owner_alone(self, shared_folder: Path) -> None:
        path = shared_folder / "ledger.db"
        as_user(ALICE, lambda: get_db(path).close())
        path.chmod(0o666)

        def make() -> str:
            with pytest.raises(LedgerError) as refused:
                signing_key(path, create=True)
            return refused.value.message

        assert "or root" in as_user(BOB, make)
        assert set(listing(shared_folder)) == {"ledger.db"}
