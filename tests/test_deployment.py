"""`docs/scale.md` and `docs/deploy/`: what is started can be, the parts fit, and the arithmetic is right."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.processes import COMMAND, made_certificate, running
from tests.commands import EVERY, made
from tests.documentation import DOCS, ROOT, section
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.server import _FLUSH_SECONDS
from ws_manager.settings import parse_duration

FOLDER = DOCS / "deploy"
PAGE = (DOCS / "scale.md").read_text(encoding="utf-8")
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
HAPROXY = (FOLDER / "haproxy.cfg").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
OBJECTS = {
    f"{each['kind']}/{each['metadata']['name']}": each
    for each in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
}
SERVICES = COMPOSE["services"]
GATEWAY = SERVICES["gateway"]
POD = OBJECTS["Deployment/gateway"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
(INIT,) = POD["initContainers"]
ARGUMENTS = {"compose": GATEWAY["command"], "kubernetes": CONTAINER["args"]}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def of(arguments: list[str], option: str) -> str:
    """Return the value of an option."""
    return arguments[arguments.index(option) + 1]


def pod_specs() -> list[Any]:
    return [
        OBJECTS[name]["spec"]["template"]["spec"] for name in ("StatefulSet/database", "Deployment/gateway")
    ]


# What is started


def commands() -> list[str]:
    """Every command of ws-manager on the page and in the files."""
    typed = [
        re.split(r"(?:exec gateway|--) ws-manager ", line)[1]
        for block in re.findall(r"^```shell\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if re.search(r"(exec gateway|--) ws-manager ", line)
    ]
    named = [found for found in re.findall(r"`ws-manager ([^`]+)`", PAGE) if " -" in found]
    return [*typed, *named, *(shlex.join(arguments) for arguments in ARGUMENTS.values())]


@pytest.mark.parametrize("line", commands())
def test_a_command_takes_its_options(line: str) -> None:
    words = shlex.split(line)
    assert words[0] in EVERY
    # Raises an error for what it does not know.
    made(words[0]).make_context(words[0], words[1:])


def test_the_page_names_options_that_there_are() -> None:
    ours = {option for name in EVERY for parameter in made(name).params for option in parameter.opts} | {
        "--db",
        "--url",
    }
    named = re.findall(r"`(--[a-z-]+)[ `]", PAGE)
    assert named
    assert set(named) <= ours


@pytest.mark.parametrize("which", ARGUMENTS)
def test_a_gateway_starts_as_in_the_file_and_answers_its_probes(tmp_path: Path, which: str) -> None:
    certificate = made_certificate(tmp_path / "tls", "DNS:localhost")
    key = tmp_path / "key"
    key.write_text("k" * 43)
    key.chmod(0o600)
    here = {
        "/run/secrets/key": str(key),
        "/own/key": str(key),
        "/tls/tls.crt": str(certificate / "cert.pem"),
        "/tls/tls.key": str(certificate / "key.pem"),
        "0.0.0.0": "127.0.0.1",
    }
    arguments = [here.get(word, word) for word in ARGUMENTS[which]]
    paths = [CONTAINER[probe]["httpGet"]["path"] for probe in PROBES]
    paths += re.findall(r"127\.0\.0\.1:8765(/\w+)", GATEWAY["healthcheck"]["test"][-1])
    paths += re.findall(r"uri (/\w+)", HAPROXY)
    with running(*COMMAND, "--db", str(tmp_path / "ledger.db"), *arguments, "--port", "0") as program:
        port = json.loads(program.error_line("Ready: "))["url"].rpartition(":")[2]
        scheme = "https" if "--tls-cert" in arguments else "http"
        trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        for path in paths:
            with urllib.request.urlopen(f"{scheme}://localhost:{port}{path}", context=trusted) as answer:
                assert answer.status == 200
    assert {CONTAINER[probe]["httpGet"]["scheme"] for probe in PROBES} == {"HTTPS"}


def test_the_image_is_made_of_what_the_wheel_needs(tmp_path: Path) -> None:
    copied = [
        word
        for line in re.findall(r"^COPY (?!--)(.*)", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    for name in copied:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert 'ENTRYPOINT ["ws-manager"]' in DOCKERFILE
    assert "USER 10001:10001" in DOCKERFILE
    assert "chown 10001 " in PAGE
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', DOCKERFILE)
    defined = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)\n\[", _read(ROOT / "pyproject.toml"), re.M | re.S
    )
    assert defined
    assert set(extras.split(",")) <= set(re.findall(r"^(\w+) = ", defined[1], re.MULTILINE))


# Whether their parts fit


@pytest.mark.parametrize("name", ["BLACKROAD_WS_DB", "PGPASSFILE"])
def test_both_give_the_gateway_the_same_variables(name: str) -> None:
    given = {each["name"]: each["value"] for each in CONTAINER["env"]}
    assert set(given) == set(GATEWAY["environment"]) == {"BLACKROAD_WS_DB", "PGPASSFILE"}
    # libpq's are its own.
    assert name.startswith("PG") or f"`{name}`" in section(_read(DOCS / "reference.md"), "## Configuration")


def test_no_secret_is_in_the_environment() -> None:
    everything = _read(FOLDER / "compose.yaml") + _read(FOLDER / "kubernetes.yaml")
    assert not re.search(r"BLACKROAD_WS_SECRET|PGPASSWORD|POSTGRES_PASSWORD\b|://\w+:", everything)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_has_the_secrets_that_it_names(name: str) -> None:
    named = set(re.findall(r"/run/secrets/(\w+)", json.dumps(SERVICES[name])))
    assert named == set(SERVICES[name].get("secrets", ())) <= set(COMPOSE["secrets"])
    for secret in named:
        assert COMPOSE["secrets"][secret]["file"] == f"./secrets/{secret}"
        assert f"> secrets/{secret}\n" in PAGE


def test_the_balancer_of_compose_reaches_the_gateways() -> None:
    balancer = SERVICES["balancer"]
    assert "bind :8765\n" in HAPROXY
    assert balancer["ports"] == ["127.0.0.1:8765:8765"]
    assert re.search(r"server-template \w+ \d+ gateway:8765 ", HAPROXY)
    assert "EXPOSE 8765\n" in DOCKERFILE
    (port,) = (parameter.default for parameter in made("serve").params if parameter.name == "port")
    assert port == 8765 == CONTAINER["ports"][0]["containerPort"]
    (subnet,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert of(GATEWAY["command"], "--proxy") == subnet["subnet"]
    (mounted,) = balancer["volumes"]
    assert (FOLDER / mounted.split(":")[0]).is_file()
    assert (FOLDER / GATEWAY["build"]["context"]).resolve() == ROOT.resolve()
    assert (ROOT / GATEWAY["build"]["dockerfile"]).is_file()
    # More is open than agents and gateways have sockets to it.
    (most,) = re.findall(r"maxconn (\d+)", HAPROXY)
    assert 2 * int(most) < balancer["ulimits"]["nofile"]


@pytest.mark.parametrize("file", ["haproxy.cfg", "nginx.conf"])
def test_a_balancer_waits_for_longer_than_a_gateway_is_silent(file: str) -> None:
    found = re.findall(
        r"(?:timeout (?:client|server|tunnel) +|proxy_(?:read|send)_timeout )(\w+)", _read(FOLDER / file)
    )
    assert len(found) >= 2
    assert all(parse_duration(text) > 2 * 30 / 3 for text in found)


@pytest.mark.parametrize("which", ARGUMENTS)
def test_a_gateway_has_the_time_that_its_end_takes(which: str) -> None:
    own = parse_duration(of(ARGUMENTS[which], "--drain")) + 2 * Limits().close_seconds + _FLUSH_SECONDS
    if which == "compose":
        assert parse_duration(GATEWAY["stop_grace_period"]) > own
    else:
        asleep = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
        assert POD["terminationGracePeriodSeconds"] > asleep + own


@pytest.mark.parametrize("pod", pod_specs(), ids=["database", "gateway"])
def test_a_pod_has_what_it_names_and_no_rights(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes.update({each["metadata"]["name"]: each for each in _claims(pod)})
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= set(volumes)
        named = re.findall(r"(?<![\w.])(/(?:own|secrets|tls)(?:/[\w.]+)?)(?=\")", json.dumps(container))
        assert named
        assert all(any(path.startswith(mount) for mount in mounts) for path in named)
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["allowPrivilegeEscalation"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert pod["automountServiceAccountToken"] is False


def test_the_gateways_own_what_only_the_owner_may_read() -> None:
    (secrets,) = (volume["secret"] for volume in POD["volumes"] if volume["name"] == "secrets")
    assert {f"/secrets/{item['path']}" for item in secrets["items"]} == set(INIT["command"][3:-1])
    assert INIT["command"][:3] == ["install", "-m", "0600"]
    assert INIT["command"][-1] == "/own"
    assert POD["securityContext"]["runAsUser"] == 10001
    assert f"secret generic {secrets['secretName']} --from-file=secrets/" in PAGE


def test_what_selects_pods_selects_the_gateways() -> None:
    labels = OBJECTS["Deployment/gateway"]["spec"]["template"]["metadata"]["labels"]
    service = OBJECTS["Service/gateway"]["spec"]
    assert service["selector"] == labels
    assert service["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    assert all(CONTAINER[probe]["httpGet"]["port"] == CONTAINER["ports"][0]["name"] for probe in PROBES)
    assert OBJECTS["PodDisruptionBudget/gateway"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["Deployment/gateway"]["spec"]["selector"]["matchLabels"] == labels
    database = OBJECTS["StatefulSet/database"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Service/database"]["spec"]["selector"] == database


@pytest.mark.parametrize("file", ["haproxy.cfg", "nginx.conf"])
def test_a_balancer_takes_its_file(tmp_path: Path, file: str) -> None:
    program = shutil.which(file.split(".")[0], path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{file.split('.')[0]} is not installed")
    if file == "haproxy.cfg":
        command = [program, "-c", "-f", str(FOLDER / file)]
    else:
        certificate = made_certificate(tmp_path / "tls", "DNS:gateway.example.com")
        text = _read(FOLDER / file).replace("/etc/nginx/certificate.pem", str(certificate / "cert.pem"))
        text = text.replace("/etc/nginx/certificate.key", str(certificate / "key.pem")).replace(
            "/dev/stdout", str(tmp_path / "access.log")
        )
        configuration = tmp_path / file
        configuration.write_text(f"pid {tmp_path}/pid;\n{text}")
        command = [program, "-t", "-e", str(tmp_path / "log"), "-c", str(configuration)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# The arithmetic


def rows(title: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading, by their first cell."""
    lines = [line for line in section(PAGE, title).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.replace("*", "").strip("… "): rest for first, *rest in cells}


def number(text: str) -> float:
    """Return the first number of a cell, in seconds, bytes, or whatever it counts."""
    found = re.search(r"([\d.,]+)(?: (µs|bytes|KB|MB|GB|TB|KiB|MiB))?", text)
    assert found, text
    scale = {"µs": 1e-6, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20}
    return float(found[1].rstrip(".,").replace(",", "")) * scale.get(found[2] or "", 1.0)


@pytest.mark.parametrize("size", [0, 1], ids=["100 thousand", "1 million"])
def test_the_sizes_follow_from_the_figures(size: int) -> None:
    figures = {
        name: number(cells[0])
        for name, cells in rows("## What each part costs").items()
        if cells[0][:1].isdigit()
    }
    said = {name: cells[1 + size] for name, cells in rows("## Three sizes").items() if len(cells) == 3}
    c = number(said["C: connections"])
    m, needed = c / 60, c / figures["sockets of a gateway"]
    gateways = needed + number(said["gateways"].partition("+")[2])
    idle = c * 3 / 30 * figures["CPU of PostgreSQL, a sign of life"]
    read = m * figures["CPU of PostgreSQL, a message that is read and confirmed"]
    alone = m * figures["CPU of PostgreSQL, a message that is sent alone"]
    by_broadcast = m * figures["CPU of PostgreSQL, a recipient of a broadcast"]
    log = (
        figures["write-ahead log (WAL), a message"] * m
        + figures["write-ahead log, a sign of life"] * c * 3 / 30
    )
    day = m * 86_400 * figures["disk, a message of 200 bytes with its indexes"]
    heartbeats = figures["CPU of a gateway, heartbeats of 10,000 sockets"]
    expected = {
        "M: messages a second": m,
        "gateways": needed,
        "memory of each": figures["memory of a gateway"] + 10_000 * 11 * 2**10,
        "CPU of each": heartbeats + m / needed * figures["CPU of a gateway, a message"],
        "signs of life a second": c * 3 / 30,
        "CPU of PostgreSQL": idle,
        "messages, read and confirmed": read,
        "each sent alone": alone,
        "or all by one broadcast a minute": by_broadcast,
        "write-ahead log": log,
        "disk for a day's messages": day,
        "with `--keep 7d`": 7 * day,
        "sessions": gateways * 10,
        "a broadcast to all, until it is committed": c
        / figures["recipients of a broadcast written in a second"],
    }
    for line, value in expected.items():
        assert number(said[line]) == pytest.approx(value, rel=0.06), line
    cores = said["PostgreSQL's cores, half of them busy"]
    assert number(cores) == pytest.approx(2 * (idle + read + alone), rel=0.1)
    assert number(cores.partition("broadcasts")[2]) >= 2 * (idle + read + by_broadcast)
    assert number(said["`max_connections`"]) >= 1.2 * gateways * 10


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _claims(pod: dict[str, Any]) -> list[Any]:
    """Return the claims of the volumes that a pod of the database gets."""
    stateful = OBJECTS["StatefulSet/database"]["spec"]
    return list(stateful["volumeClaimTemplates"]) if stateful["template"]["spec"] is pod else []
