"""Build the npm package: our package and its dependencies as a folder of pure Python, then `npm pack`.

It needs Python 3.9, Python 3.10, npm, and what pip can install. pip resolves every dependency twice: with Python 3.9
for `lib/common`, which serves every Python, and with Python 3.10. What differs there goes into `lib/newer`, where
Python 3.10 and newer look first: these have the releases that no longer run on 3.9, mended ones among them.

The standard library is enough to run it, with any Python from 3.9 on.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from email.message import Message
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NAME = "blackroad-websocket-manager"

COMPILED = ("aiohttp", "frozenlist", "multidict", "propcache", "yarl", "tomli")
"""What has wheels with compiled parts, and a source that can do without them."""

ON_WINDOWS = ("colorama",)
"""What is required there alone, so that pip leaves it out where this runs."""

LEFT_OUT = {
    "pip": "sqlite-utils installs plugins with it",
    "tzdata": "all our times are UTC",
    "uvloop": "the gateway's event loop where it is installed; it is compiled",
}
"""Requirements that every command of ours can do without, and what they are for."""

NOT_NEEDED = {".exe", ".c", ".h", ".pyx", ".pxd", ".pxi", ".pyi", ".pyc", ".hash"}
COMPILED_FILES = {".so", ".pyd", ".dylib", ".dll"}
LIMIT = 4 * 1024 * 1024


class Missing(Exception):
    """Something that the build needs is not there."""


class Wrong(Exception):
    """What was built must not be published."""


def main() -> None:
    """Build, and say what was built."""
    options = argparse.ArgumentParser(description="Build the npm package.")
    options.add_argument("--python39", metavar="PATH", help="a Python 3.9; searched for if not given")
    options.add_argument("--python310", metavar="PATH", help="a Python 3.10; searched for if not given")
    chosen = options.parse_args()
    try:
        print(build(chosen.python39, chosen.python310))
    except (Missing, Wrong) as error:
        print(f"npm package not built: {error}", file=sys.stderr)
        sys.exit(1)


def build(python39: Optional[str], python310: Optional[str]) -> Path:
    """Build the package and return its path."""
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("npm is not installed")
    oldest = interpreter(9, python39, "PYTHON39")
    newer = interpreter(10, python310, "PYTHON310")
    version = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["version"]
    found = re.search(
        r'__version__ = "(.+)"', (ROOT / "ws_manager" / "version.py").read_text(encoding="utf-8")
    )
    if found is None or version != found[1]:
        raise Wrong(f"package.json is of version {version}, and ws_manager/version.py is of another")
    with tempfile.TemporaryDirectory(prefix="ws-manager-npm-") as scratch:
        library = Path(scratch) / "lib"
        common, second = library / "common", library / "newer"
        install(oldest, common)
        install(newer, second)
        keep_what_differs(second, common)
        for folder in (common, second):
            tidy(folder)
        complain(common, second)
        (library / "build.txt").write_text(fingerprint(library) + "\n", encoding="ascii")
        shutil.rmtree(HERE / "lib", ignore_errors=True)
        shutil.copytree(library, HERE / "lib")
    shutil.copy2(HERE / "launch.py", HERE / "lib" / "launch.py")
    shutil.copy2(ROOT / "LICENSE", HERE / "LICENSE")
    make_common_js(HERE / "client")
    for old in HERE.glob("*.tgz"):
        old.unlink()
    run([npm, "pack", "--ignore-scripts", "--silent"], cwd=HERE)
    package = HERE / f"{NAME}-{version}.tgz"
    if package.stat().st_size > LIMIT:
        raise Wrong(f"{package.name} has {package.stat().st_size:,} bytes, and {LIMIT:,} are allowed")
    return package


def make_common_js(folder: Path) -> None:
    """Make the JavaScript client's CommonJS twin, and its types, from the module and its types.

    Raises:
        Wrong: the module has an import, or an export that is no class.
    """
    module = (folder / "index.mjs").read_text(encoding="utf-8")
    text, count = re.subn(r"^export (?=class \w)", "", module, flags=re.MULTILINE)
    if not count or re.search(r"^(import|export)\b", text, re.MULTILINE):
        raise Wrong("client/index.mjs may export classes only, and import nothing")
    names = re.findall(r"^export class (\w+)", module, re.MULTILINE)
    text = f'"use strict";\n\n{text}\nmodule.exports = {{ {", ".join(names)} }};\n'
    (folder / "index.cjs").write_text(text, encoding="utf-8")
    shutil.copy2(folder / "index.d.mts", folder / "index.d.cts")


def interpreter(minor: int, chosen: Optional[str], variable: str) -> str:
    """Return a Python 3.`minor` that runs and has pip: the one that was chosen, or the first that is found."""
    roots = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    candidates = (
        [chosen]
        if chosen
        else [
            sys.executable,
            f"python3.{minor}",
            "python3",
            *sorted(map(str, Path(roots, "versions").glob(f"3.{minor}.*/bin/python")), reverse=True),
        ]
    )
    test = f"import pip, sys; sys.exit(sys.version_info[:2] != (3, {minor}))"
    for candidate in candidates:
        # A name on the PATH may be a version manager's stand-in that cannot run: only running it tells.
        path = shutil.which(candidate)
        if path and not subprocess.run([path, "-c", test], capture_output=True, check=False).returncode:
            return path
    raise Missing(f"it needs Python 3.{minor} with pip: set {variable} (tried: {', '.join(candidates)})")


def run(command: list[str], *, cwd: Optional[Path] = None, **variables: str) -> None:
    """Run a command that must not fail, and show its output only if it does."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Missing(f"{' '.join(command)} failed:\n{ended.stdout}")


def install(python: str, folder: Path) -> None:
    """Install our package and everything it requires into a folder, without a compiled file."""
    pure = {f"{name.upper()}_NO_EXTENSIONS": "1" for name in COMPILED}
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    run([*pip, "--no-binary", ",".join(COMPILED), "--target", str(folder), str(ROOT), *ON_WINDOWS], **pure)


def distributions(folder: Path) -> dict[str, Path]:
    """Return the `.dist-info` folders by the normalised names of what they describe."""
    return {normal(path.name.split("-")[0]): path for path in folder.glob("*.dist-info")}


def normal(name: str) -> str:
    """Return a distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def metadata(information: Path) -> Message:
    """Return what a distribution says about itself."""
    return email.message_from_string((information / "METADATA").read_text(encoding="utf-8"))


def remove(information: Path) -> None:
    """Remove a distribution: every file that it has installed."""
    for line in (information / "RECORD").read_text(encoding="utf-8").splitlines():
        name = line.split(",")[0].strip('"')
        path = information.parent / name
        # Its commands are recorded as ../../bin/…
        if ".." not in Path(name).parts and path.is_file():
            path.unlink()
    shutil.rmtree(information, ignore_errors=True)


def keep_what_differs(second: Path, common: Path) -> None:
    """Remove from `second` what `common` has in the same version."""
    there = {path.name for path in distributions(common).values()}
    for information in distributions(second).values():
        if information.name in there:
            remove(information)


def tidy(folder: Path) -> None:
    """Remove what no command needs; licences and what the distributions say about themselves stay."""
    for name, information in distributions(folder).items():
        if name in LEFT_OUT:
            remove(information)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            unneeded = path.name in {"bin", "__pycache__", "tests", "test"} or path.name.startswith(".")
            if unneeded or not any(path.iterdir()):
                shutil.rmtree(path)
        elif path.suffix in NOT_NEEDED:
            path.unlink()
    for information in distributions(folder).values():
        # Where they came from and which files they had no longer holds.
        for name in (
            "RECORD",
            "INSTALLER",
            "REQUESTED",
            "WHEEL",
            "direct_url.json",
            "zip-safe",
            "top_level.txt",
        ):
            (information / name).unlink(missing_ok=True)
        text = (information / "METADATA").read_text(encoding="utf-8")
        (information / "METADATA").write_text(text.split("\n\n", 1)[0] + "\n", encoding="utf-8")


def complain(common: Path, second: Path) -> None:
    """Check that nothing that is required is missing, and that every Python may use it."""
    both = {**distributions(common), **distributions(second)}
    for folder, minor in ((common, 9), (second, 10)):
        for path in folder.rglob("*"):
            if path.suffix in COMPILED_FILES:
                raise Wrong(f"{path.relative_to(folder)} is compiled")
        for information in distributions(folder).values():
            about = metadata(information)
            oldest = re.search(r">=\s*3\.(\d+)", about["Requires-Python"] or "")
            if oldest and int(oldest[1]) > minor:
                raise Wrong(f"{information.name} does not run on Python 3.{minor}")
            for requirement in about.get_all("Requires-Dist", []):
                name = normal(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
                needed = "extra ==" not in requirement and "python_version < '3.8'" not in requirement
                if needed and name not in both and name not in LEFT_OUT:
                    raise Wrong(f"{information.name} requires {name}, which is not in the package")


def fingerprint(folder: Path) -> str:
    """Return a name for exactly these files: compiled ones are kept by it, for npm gives all files one date."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
