"""The options of `listen` and `receive` with which they work on messages, instead of printing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import typer

from ws_manager.cli.work.job import CONTENT, ENVELOPE, RAW
from ws_manager.errors import InvalidInput
from ws_manager.settings import expanded, parse_duration

DEFAULT_MAX_ATTEMPTS = 5
MOST_AT_ONCE = 1000

COMMAND = typer.Argument(
    None,
    metavar="[-- <command> <argument>…]",
    help="With --exec: the command, after two hyphens.",
    show_default=False,
)
EXEC = typer.Option(
    False,
    "--exec",
    help="Run a command for each message, which gets the content as JSON on stdin. Exit code 0 confirms the message, "
    "65 rejects it, and any other is tried again. No shell is used.",
)
FORWARD_TO = typer.Option(
    None,
    "--forward-to",
    metavar="URL",
    help="Post each message to this address, with the headers of Standard Webhooks. A 2xx status confirms "
    "the message; 410 ends the command; any other is tried again, after Retry-After. Redirects are not followed.",
)
CONFIRM_FROM_STDIN = typer.Option(
    False,
    "--confirm-from-stdin",
    help='Print messages, and confirm them when stdin says so: {"ack":<seq>} confirms all up to this one, and '
    '{"reject":<seq>,"reason":"…"} sets one aside; one object per line.',
)
LISTENS, RECEIVES = "--exec or --forward-to", "--exec"
"""With what `listen` and `receive` work on messages."""

RAW_FORM, EXEC_RAW_FORM = (
    typer.Option(
        False,
        "--raw",
        help=f"With {works}: content that is text goes without quotes, other content as JSON.",
    )
    for works in (LISTENS, RECEIVES)
)
ENVELOPE_FORM, EXEC_ENVELOPE_FORM = (
    typer.Option(
        False, "--envelope", help=f"With {works}: give the whole message, as it is printed without that."
    )
    for works in (LISTENS, RECEIVES)
)
REPLY = typer.Option(
    False,
    "--reply",
    help="With --exec: answer messages that want an answer, as those of ask do, with the command's stdout: JSON if "
    "it parses, otherwise text.",
)
CONCURRENCY = typer.Option(
    1,
    "--concurrency",
    metavar="N",
    min=1,
    max=MOST_AT_ONCE,
    help="Messages that are worked on at the same time. Each is confirmed when all before it are finished.",
)
MAX_ATTEMPTS = typer.Option(
    None,
    "--max-attempts",
    metavar="N",
    min=1,
    max=100,
    help="Set a message aside after N attempts that failed, or that ended with this process. They are counted in the "
    f"ledger. [default: {DEFAULT_MAX_ATTEMPTS}]",
)
TIMEOUT = typer.Option(
    None,
    "--timeout",
    metavar="DURATION",
    help="With --exec: end a command that runs for longer, with SIGTERM to its process group. [default: 5m]",
)
KILL_AFTER = typer.Option(
    None, "--kill-after", metavar="DURATION", help="With --exec: follow SIGTERM with SIGKILL. [default: 10s]"
)
GRACE = typer.Option(
    "30s",
    "--grace",
    metavar="DURATION",
    help="At SIGTERM or SIGINT, take nothing new and finish what has begun, for at most this long.",
)
EXEC_GRACE = typer.Option(
    None,
    "--grace",
    metavar="DURATION",
    help="With --exec: at SIGTERM or SIGINT, take nothing new and let the command finish, for at most this long. "
    "[default: 30s]",
)
IDLE_TIMEOUT = typer.Option(
    None, "--idle-timeout", metavar="DURATION", help="End after this long with nothing to do."
)
FOLLOW_IDLE_TIMEOUT = typer.Option(
    None, "--idle-timeout", metavar="DURATION", help="With --follow: end after this long with nothing to do."
)
UNTIL_EMPTY = typer.Option(False, "--until-empty", help="End when nothing is pending.")
READY_FILE = typer.Option(
    None,
    "--ready-file",
    metavar="FILE",
    help="Write the ws_id to this file once connected, and delete it at the end.",
)
WAIT_FOR_GATEWAY = typer.Option(
    False, "--wait-for-gateway", help="Wait for a gateway that is not there yet, instead of ending with 7."
)
SECRET_FILE = typer.Option(
    None,
    "--secret-file",
    metavar="FILE",
    help="With --forward-to: sign with the secrets in this file, one per line in base64. Read for each request.",
)
HEADER_FILE = typer.Option(
    None,
    "--header-file",
    metavar="FILE",
    help="With --forward-to: further headers, one Name: value per line.",
)


class Work(NamedTuple):
    """What is done with messages: exactly one of `command` and `url` is given.

    Attributes:
        command: the program and its arguments; empty for none.
        url: where messages are posted; None for nowhere.
        form: the form in which a message is given: see `job.given`.
        replies: whether the command's stdout answers messages that want an answer.
        concurrency: messages at the same time.
        max_attempts: after how many attempts a message is set aside.
        timeout: seconds that a command may run.
        kill_after: seconds from SIGTERM to SIGKILL.
        secrets: a file with secrets to sign with.
        headers: a file with headers.
    """

    command: Sequence[str]
    url: Optional[str]
    form: str
    replies: bool
    concurrency: int
    max_attempts: int
    timeout: float
    kill_after: float
    secrets: Optional[Path]
    headers: Optional[Path]


def parse_work(
    usage: str,
    works_with: str,
    *,
    execute: bool,
    command: Optional[Sequence[str]],
    raw: bool,
    envelope: bool,
    max_attempts: Optional[int],
    timeout: Optional[str],
    kill_after: Optional[str],
    url: Optional[str] = None,
    confirms: bool = False,
    replies: bool = False,
    concurrency: int = 1,
    secrets: Optional[Path] = None,
    headers: Optional[Path] = None,
) -> Optional[Work]:
    """Return what the options ask for; None to print. Those with a default are for `listen` alone.

    `usage` says how the command is called; `works_with` is `LISTENS` or `RECEIVES`.

    Raises:
        InvalidInput: options do not go together, or a value cannot be used.
    """
    if [execute, url is not None, confirms].count(True) > 1:
        raise InvalidInput(
            "--exec, --forward-to and --confirm-from-stdin exclude each other", hint="give one of them"
        )
    if command and not execute:
        raise InvalidInput("there is a command, and no --exec", hint=f"{usage} --exec -- <command>")
    if execute and not command:
        raise InvalidInput("--exec without a command", hint=f"{usage} --exec -- <command> <argument>…")
    if raw and envelope:
        raise InvalidInput("--raw and --envelope exclude each other", hint="give one of them")
    works = execute or url is not None
    check_only(
        "--exec", execute, {"--timeout": timeout, "--kill-after": kill_after, "--reply": replies or None}
    )
    check_only("--forward-to", url is not None, {"--secret-file": secrets, "--header-file": headers})
    check_only(
        works_with,
        works,
        {
            "--raw": raw or None,
            "--envelope": envelope or None,
            "--concurrency": None if concurrency == 1 else concurrency,
            "--max-attempts": max_attempts,
        },
    )
    if not works:
        return None
    return Work(
        command=command or (),
        url=url,
        form=RAW if raw else ENVELOPE if envelope else CONTENT,
        replies=replies,
        concurrency=concurrency,
        max_attempts=max_attempts or DEFAULT_MAX_ATTEMPTS,
        timeout=parse_duration("5m" if timeout is None else timeout),
        kill_after=parse_duration("10s" if kill_after is None else kill_after),
        secrets=None if secrets is None else expanded(secrets),
        headers=None if headers is None else expanded(headers),
    )


def check_only(what: str, given: bool, options: dict[str, object]) -> None:
    """Refuse options that mean nothing without another.

    Args:
        what: the other one.
        given: whether it is given.
        options: values by the names of the options; None where one is not given.

    Raises:
        InvalidInput: one is given, and the other is not.
    """
    for name, value in options.items():
        if value is not None and not given:
            raise InvalidInput(f"{name} is for {what}", hint="add that, or leave it out")
