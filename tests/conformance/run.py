"""Hold the gateway's sockets against the cases of the Autobahn test suite, which kosoku runs: `make conformance`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from tests.acceptance.processes import running

HERE = Path(__file__).parent
LIMIT = 600.0
"""Seconds: the suite takes a quarter of a minute."""

NOT_NEGOTIATED = ("12.*", "13.*")
"""The cases of compression (RFC 7692)."""

CASES = 301
"""What is left of the suite's 517 without those."""

Cases = dict[str, dict[str, Any]]


def cases_in(index: dict[str, Cases]) -> Cases:
    """The cases in kosoku's `index.json`, which has them by what the server calls itself in each answer."""
    return {number: case for of_server in index.values() for number, case in of_server.items()}


def failed(cases: Cases) -> list[str]:
    """The numbers of the cases that do not hold."""
    return [
        number
        for number, case in cases.items()
        if case["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL")
        or case["behaviorClose"] not in ("OK", "INFORMATIONAL")
    ]


def complaints(cases: Cases) -> list[str]:
    """What is wrong with a run: cases that must hold and do not, and those that were not run."""
    found = [f"case {number}: {cases[number]}" for number in failed(cases)]
    if len(cases) < CASES:
        found.append(f"{len(cases)} cases were run, of {CASES}")
    return found


def main() -> int:
    kosoku = shutil.which("kosoku", path=sysconfig.get_path("scripts"))
    if kosoku is None:
        print("kosoku is not installed here; it needs Python 3.10 or newer", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory() as reports,
        running(sys.executable, "-m", "tests.conformance.echo_server") as server,
    ):
        excluded = [part for cases in NOT_NEGOTIATED for part in ("-x", cases)]
        ended = subprocess.run(
            [kosoku, server.line(), *excluded, "-o", reports],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        server.end()
        index = Path(reports) / "index.json"
        cases = cases_in(json.loads(index.read_text(encoding="utf-8")) if index.exists() else {})
        found = complaints(cases)
        found += [f"the server wrote: {line}" for line in server.rest_of_errors()]
    if found:
        print(*found, "kosoku said:", ended.stdout + ended.stderr, sep="\n", file=sys.stderr)
        return 1
    known = failed(cases)
    print(f"{len(cases) - len(known)} of {len(cases)} cases hold; known not to: {', '.join(known) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
