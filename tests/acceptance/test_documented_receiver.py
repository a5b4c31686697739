"""The HTTP service of docs/workers.md, and the commands behind it, run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, command, gateway, running
from tests.documentation import DOCS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the secret of this example")
def test_a_signed_message_arrives(database: Path, tmp_path: Path) -> None:
    page = (DOCS / "workers.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(# receiver\.py.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = re.search(r"^```sh\n(openssl .*?)^```", page, re.MULTILINE | re.DOTALL)
    assert code
    assert commands
    make_secret, receive, forward = commands[1].splitlines()
    (tmp_path / "receiver.py").write_text(code[1], encoding="utf-8")
    subprocess.run(["sh", "-c", make_secret], cwd=tmp_path, check=True)
    command(database, "connect", "hermes", "--ws-id", "ws-032")
    command(database, "send", "ws-032", '{"task":"deploy"}')

    assert receive == "python receiver.py 8080"
    script = f"cd {shlex.quote(str(tmp_path))}; exec {shlex.quote(sys.executable)} receiver.py 0"
    with gateway(database), running("sh", "-c", script) as receiver:
        port = receiver.line().split()[-1]
        words = shlex.split(
            forward.replace(":8080", f":{port}").replace("forward.secret", str(tmp_path / "forward.secret"))
        )
        assert words[0] == "ws-manager"
        with running(*COMMAND, "--db", str(database), *words[1:]) as worker:
            assert receiver.line() == "got {'task': 'deploy'}"
            assert worker.end() == 0
    assert '"delivered": true' in command(database, "history", "--json").stdout
