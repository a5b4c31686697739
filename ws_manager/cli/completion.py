"""The shell's completion: the values that are offered, and how they are quoted.

Typer knows the shells; their scripts and quoting are ours, because names may hold spaces, quotes and colons.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

from typer import _completion_classes, _completion_shared

from ws_manager.cli.options import global_options
from ws_manager.errors import WsManagerError
from ws_manager.settings import Located
from ws_manager.text import unseen

_BASH = """
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}"
    mapfile -t COMPREPLY < <(env _TYPER_COMPLETE_ARGS="$line" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(autocomplete_var)s=complete_bash "$1" 2>/dev/null)
    [[ -n ${COMPREPLY[0]} ]] || COMPREPLY=()
}

complete -o default -F %(complete_func)s %(prog_name)s
"""

_ZSH = """
#compdef %(prog_name)s

%(complete_func)s() {
    local -a found
    found=("${(@f)$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \\
        %(autocomplete_var)s=complete_zsh "${words[1]}" 2>/dev/null)}")
    found=("${(@)found:#}")
    if (( $#found )); then
        compadd -- "${found[@]}"
    else
        _files
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

# Characters that need no quoting anywhere in a word.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\-\u0080-\U0010ffff]")

Names = Callable[[Located, str], list[str]]


class Item(NamedTuple):
    """A completion, in the form that Typer expects.

    Attributes:
        value: the text.
        help: a description, for shells that show one.
        type: always `plain`.
    """

    value: str
    help: Optional[str] = None
    type: str = "plain"


class Word(NamedTuple):
    """The word that is being typed.

    Attributes:
        text: the word without its quotes.
        quote: the open quotation mark; "" for none.
        breaks: the indexes in `text` of the characters outside quotes.
    """

    text: str
    quote: str
    breaks: list[int]


def split(line: str) -> tuple[list[str], Word]:
    """Split an unfinished command line as a POSIX shell does.

    Returns:
        The complete words, and the last, unfinished one.
    """
    words: list[str] = []
    bare: list[int] = []
    text, quote, begun, escaped = "", "", False, False
    for character in line:
        if escaped:
            # In double quotes a backslash is literal before most characters.
            kept = quote == '"' and character not in '$`"\\'
            text, escaped = text + ("\\" if kept else "") + character, False
        elif character == "\\" and quote != "'":
            begun = escaped = True
        elif quote and character == quote:
            quote = ""
        elif quote:
            text += character
        elif character in "'\"":
            begun, quote = True, character
        elif character.isspace():
            if begun:
                words.append(text)
            text, bare, begun = "", [], False
        else:
            bare.append(len(text))
            text, begun = text + character, True
    return words, Word(text, quote, bare)


def prepare() -> None:
    """Let Typer use our scripts and our quoting."""
    scripts: dict[str, str] = _completion_shared._completion_scripts
    scripts["bash"], scripts["zsh"] = _BASH, _ZSH
    # Where Typer's own classes come from: Click's module, or Typer's copy of it.
    shells: Any = sys.modules[_completion_classes.BashComplete.__mro__[1].__module__]
    register = shells.add_completion_class
    for name, kind in (("bash", _Bash), ("zsh", _Zsh), ("fish", _Fish), ("powershell", _PowerShell)):
        register(kind, name)
    register(_PowerShell, "pwsh")


class _OfALine:
    """The common part of bash, zsh and fish: they pass the line up to the cursor."""

    word = Word("", "", [])

    def get_completion_args(self) -> tuple[list[str], str]:
        words, self.word = split(os.environ.get("_TYPER_COMPLETE_ARGS", ""))
        return words[1:], self.word.text

    def whole(self, value: str) -> str:
        """Return the complete word for a value: in `--agent=oct` the value follows the =."""
        option, sign, _ = self.word.text.partition("=")
        return f"{option}={value}" if sign and option.startswith("--") else value


class _Bash(_OfALine, _completion_classes.BashComplete):
    def format_completion(self, item: Any) -> str:  # noqa: ANN401 - Click's or Typer's own item, or ours
        """Return the replacement of the word as bash sees it: from the last open quote or word break on."""
        value, word = self.whole(item.value), self.word
        if word.quote:
            escaped = (
                re.sub(r'([$`"\\])', r"\\\1", value) if word.quote == '"' else value.replace("'", "'\\''")
            )
            # bash closes the quote, unless the word already ends with it.
            return escaped + word.quote if escaped.endswith(word.quote) else escaped
        breaks = set(os.environ.get("COMP_WORDBREAKS", ""))
        seen = max((place + 1 for place in word.breaks if word.text[place] in breaks), default=0)
        return "".join(c if _PLAIN.match(c) else f"\\{c}" for c in value[seen:])


class _Zsh(_OfALine, _completion_classes.ZshComplete):
    def format_completion(self, item: Any) -> str:  # noqa: ANN401 - as above
        # zsh quotes the value itself.
        return self.whole(item.value)

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        return "\n".join(self.format_completion(item) for item in self.get_completions(args, incomplete))


class _Fish(_OfALine, _completion_classes.FishComplete):
    def format_completion(self, item: Any) -> str:  # noqa: ANN401 - as above
        # fish quotes the value itself. A description follows a tab.
        value = self.whole(item.value)
        return f"{value}\t{' '.join(item.help.split())}" if item.help else value


class _PowerShell(_completion_classes.PowerShellComplete):
    def get_completion_args(self) -> tuple[list[str], str]:
        words, last = split(os.environ.get("_TYPER_COMPLETE_ARGS", ""))
        incomplete = os.environ.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
        typed = split(incomplete)[1].text if incomplete else ""
        # PowerShell omits a space at the end of the line: then the last word is complete.
        return ([*words, last.text] if last.text and not incomplete else words)[1:], typed

    def format_completion(self, item: Any) -> str:  # noqa: ANN401 - as above
        bare = all(_PLAIN.match(character) for character in item.value) and item.value[:1] != "@"
        value = item.value if bare else "'" + item.value.replace("'", "''") + "'"
        return f"{value}:::{' '.join(item.help.split()) if item.help else ' '}"


def complete_values(command: str, parameters: Iterable[Any]) -> None:
    """Let the parameters of a command that name something in the ledger complete from it.

    Args:
        command: the command's name.
        parameters: its parameters.
    """
    # Imported here, because the names of commands are completed without it.
    from ws_manager.cli.completed_values import VALUES

    for parameter in parameters:
        found = VALUES.get((command, parameter.name)) or VALUES.get(("", parameter.name))
        if found is not None and not getattr(parameter, "is_flag", False):
            parameter.shell_complete = _completer(found)


def complete_commands(ctx: Any, incomplete: str, commands: Iterable[Any]) -> list[Item]:  # noqa: ANN401 - as above
    """Return the matching commands or options of a group, without importing a command."""
    if incomplete.startswith("-"):
        return [
            Item(option, parameter.help)
            for parameter in ctx.command.params
            if not parameter.hidden
            for option in parameter.opts
            if option.startswith(incomplete)
        ]
    return [Item(command.name, command.help) for command in commands if command.name.startswith(incomplete)]


def _completer(found: Names) -> Callable[[Any, str], list[Item]]:
    def complete(ctx: Any, incomplete: str) -> list[Item]:  # noqa: ANN401 - as above
        try:
            options = global_options(ctx)
            # A gateway is not asked at each Tab.
            names = [] if options.url else found(options.database, incomplete)
            # A shell lists them unescaped: invisible characters must not reach the terminal.
            return [Item(name) for name in names if not unseen().search(name)]
        except (OSError, ValueError, WsManagerError):
            # An error must not be completed into the command line. The command itself will report it.
            return []

    return complete
