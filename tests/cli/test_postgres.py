"""What the command line says of a ledger in PostgreSQL. That the commands do the same there: `--engine postgres`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.postgres import PASSWORD
from ws_manager.core.ledger import open_ledger

URL = f"postgresql://owner:{PASSWORD}@127.0.0.1:1/ledger"


@pytest.mark.parametrize("command", ["list", "doctor", "serve"])
@pytest.mark.parametrize(
    "fault", ["No module named 'psycopg'", "no pq wrapper available.\\n- it has no libpq"]
)
def test_without_psycopg_it_says_how_to_get_it(process, tmp_path: Path, command: str, fault: str) -> None:
    (tmp_path / "psycopg.py").write_text(f'raise ImportError("{fault}")\n')
    ended = process("--db", URL, command, PYTHONPATH=str(tmp_path))
    error, hint = ended.stderr.decode().splitlines()
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert error == (
        "error: a ledger in PostgreSQL needs psycopg, which is the extra `postgres`: "
        + fault.partition("\\n")[0]
    )
    assert hint == f"hint: {sys.executable} -m pip install 'psycopg[binary]>=3.2'"


@pytest.mark.long
class TestPostgres:
    """Nothing speaks of a file, and nothing shows the password."""

    @pytest.fixture
    def way(self, postgres_url: str) -> tuple[str, str]:
        return "--db", postgres_url

    def told(self, result) -> str:
        text = str(result.stdout + result.stderr)
        assert PASSWORD not in text
        return text

    @pytest.mark.parametrize("command", ["list", "history", "stats", "broadcasts"])
    def test_looking_makes_no_ledger(self, cli, postgres_url: str, command: str) -> None:
        result = cli(command)
        assert result.exit_code == 0
        assert "there is no ledger in postgresql://owner@127.0.0.1" in self.told(result)
        assert "file" not in self.told(result)
        assert cli("export").exit_code == 1

    def test_a_new_ledger_is_announced_on_a_terminal(self, terminal) -> None:
        _, seen = terminal("connect", "octavia", columns=500)
        assert seen.startswith("made a new ledger in postgresql://owner@127.0.0.1")

    def test_a_backup_is_refused_before_anything_is_made(self, cli, tmp_path: Path) -> None:
        cli("connect", "octavia", "--ws-id", "ws-001")
        result = cli("backup", str(tmp_path / "copy.db"))
        assert result.exit_code == 2
        assert "pg_dump" in self.told(result)
        assert not (tmp_path / "copy.db").exists()

    def test_an_export_of_one_engine_goes_into_the_other_and_back(self, cli, tmp_path: Path) -> None:
        cli("connect", "octavia", "--ws-id", "ws-001", "--metadata", '{"region":"wést"}')
        cli("send", "ws-001", '{"text":"日本","n":1.50}')
        exported = cli("export").stdout
        other = tmp_path / "other.db"
        assert cli("--db", str(other), "import", "-", stdin=exported.encode()).exit_code == 0
        back = cli("--db", str(other), "export").stdout
        assert back.splitlines()[1:] == exported.splitlines()[1:]
        refused = cli("import", "-", stdin=back.encode())
        assert refused.exit_code == 6
        assert "file" not in self.told(refused)

    def test_doctor_is_a_line_for_each_check_and_fits_a_terminal(self, cli, terminal) -> None:
        cli("connect", "octavia", "--ws-id", "ws-001")
        told = json.loads(cli("doctor", "--json").stdout)
        assert {"database", "schema", "gateways", "pending", "aiohttp"} <= {each["check"] for each in told}
        assert not [each for each in told if "file" in each["detail"] and each["check"] != "aiohttp"]
        lines = [line.split("\t") for line in self.told(cli("doctor")).splitlines()]
        assert [len(line) for line in lines] == [4] * len(told)
        _, seen = terminal("doctor")
        assert len(seen.splitlines()) <= 24
        assert "→ start one with: ws-manager serve" in seen

    def test_a_key_is_never_made(self, cli) -> None:
        refused = cli("token", "octavia")
        assert refused.exit_code == 2
        assert "BLACKROAD_WS_SECRET" in self.told(refused)

    def test_room_is_given_back(self, cli) -> None:
        cli("connect", "octavia", "--ws-id", "ws-001")
        cli("send", "ws-001", "1")
        cli("receive", "ws-001")
        assert cli("prune", "--older-than", "0s", "--vacuum").exit_code == 0

    def test_the_password_may_be_in_libpqs_files(self, process, postgres_url: str, tmp_path: Path) -> None:
        parts = urlsplit(postgres_url)
        host, port, name = parts.hostname, parts.port, parts.path[1:]
        passwords, services = tmp_path / "pgpass", tmp_path / "services"
        passwords.write_text(f"{host}:{port}:{name}:owner:{PASSWORD}\n")
        passwords.chmod(0o600)
        services.write_text(f"[ledger]\nhost={host}\nport={port}\ndbname={name}\nuser=owner\n")
        plain = f"postgresql://owner@{host}:{port}/{name}"
        files = {"PGPASSFILE": str(passwords), "PGSERVICEFILE": str(services)}
        for given in (
            {"BLACKROAD_WS_DB": plain},
            {"BLACKROAD_WS_DB": "postgresql://", "PGSERVICE": "ledger"},
        ):
            ended = process("connect", "octavia", "--ws-id", "ws-001", **given, **files)
            assert (ended.returncode, ended.stdout) == (0, b"Connected: ws-001 (agent=octavia)\n"), (
                ended.stderr
            )

    def test_an_ended_server_is_one_line_and_a_hint(self, cli) -> None:
        result = cli("list", "--db", URL)
        lines = self.told(result).splitlines()
        assert (result.exit_code, [line.split(":")[0] for line in lines]) == (1, ["error", "hint"])

    def test_the_feed_of_the_library_is_the_same_ledger(self, cli, postgres_url: str) -> None:
        with open_ledger(postgres_url) as ledger:
            ledger.connect("octavia", "ws-001")
        assert cli("list", "-o", "id").stdout == "ws-001\n"
