"""The programs of the documentation, as they stand there: web applications, run under uvicorn, and others."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from tests.acceptance.processes import Program, running
from tests.documentation import DOCS


def documented(page: str, language: str, file: str) -> str:
    """Return a program of a page of `docs/`: the block in that language whose first line names that file."""
    text = (DOCS / page).read_text(encoding="utf-8")
    comment = "#" if language == "python" else "//"
    (code,) = re.findall(
        rf"^```{language}\n({comment} {re.escape(file)} .*?)^```", text, re.MULTILINE | re.DOTALL
    )
    return str(code)


@contextmanager
def documented_application(
    folder: Path,
    name: str,
    replaced: Mapping[str, str],
    environment: Optional[Mapping[str, str]] = None,
) -> Iterator[tuple[Program, str]]:
    """Run an application, and give it and its address.

    Args:
        folder: its file is written there.
        name: of its module: its first line names the file.
        replaced: what is written in the documentation, and what is meant here.
        environment: of its process; that of this process if None.
    """
    code = documented("python.md", "python", f"{name}.py")
    for written, meant in replaced.items():
        assert written in code
        code = code.replace(written, meant)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    server = (sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--port", "0", f"{name}:app")
    with running(*server, environment=environment) as program:
        line = program.error_line("Uvicorn running on ")
        yield program, re.findall(r"http://[\d.:]+", line)[0]
