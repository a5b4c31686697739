"""The web applications of docs/python.md, run under uvicorn as they stand there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from tests.acceptance.processes import Program, running
from tests.documentation import DOCS


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
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    found = re.search(rf"^```python\n(# {name}\.py.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found
    code = found[1]
    for written, meant in replaced.items():
        assert written in code
        code = code.replace(written, meant)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    server = (sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--port", "0", f"{name}:app")
    with running(*server, environment=environment) as program:
        line = program.error_line("Uvicorn running on ")
        yield program, re.findall(r"http://[\d.:]+", line)[0]
