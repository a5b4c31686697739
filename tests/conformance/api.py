"""Hold the HTTP API against its own document, which schemathesis tries out: `make conformance`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.acceptance.processes import gateway_with_tokens
from ws_manager import open_ledger
from ws_manager.tokens import mint, signing_key

LIMIT = 300.0
"""Seconds: it takes less than one of them in ten."""

EXAMPLES, SEED = "50", "1"
# No limit is to be what refuses a request.
UNLIMITED = ("--max-request-rate", "1000000", "--max-send-rate", "60000MiB")


def main() -> int:
    program = shutil.which("st", path=sysconfig.get_path("scripts"))
    if program is None:
        print("schemathesis is not installed here; it needs Python 3.10 or newer", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "ledger.db"
        with open_ledger(database) as ledger:
            for number in range(3):
                ledger.connect("octavia", f"ws-{number}")
            ledger.broadcast("hello")
        with gateway_with_tokens(database, *UNLIMITED) as (_, url):
            key = signing_key(database, create=False)
            assert key is not None
            token = mint(key, "*", scopes=("admin",))
            # Every check is on, but for one that the configuration names for one path.
            return subprocess.run(
                [
                    *(program, "--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
                    *("run", f"{url}/v1/openapi.json", "--seed", SEED),
                    *("--max-examples", EXAMPLES, "--header", f"Authorization: Bearer {token}"),
                    # A stream has no end.
                    *("--exclude-operation-id", "get_events", "--generation-database", "none"),
                ],
                # It keeps what it has found in a folder of its own here.
                cwd=folder,
                timeout=LIMIT,
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main())
