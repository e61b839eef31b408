"""The scripts that shells complete with: plain lists of words, one for every place of a command line."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

BASH = """\
# Completion of m2pt for bash; written by `m2pt completion bash`.
_m2pt() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local context="${{COMP_WORDS[1]}}" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={verbs}
    else
        if [ "$COMP_CWORD" -gt 2 ]; then
            case "$context" in {groups}) context="$context ${{COMP_WORDS[2]}}" ;; esac
        fi
        case "$context:$before" in
{values}
            *)
                case "$context" in
{contexts}
                esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _m2pt m2pt
"""
ZSH = """\
# Completion of m2pt for zsh, through its own layer for bash; written by `m2pt completion zsh`.
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""
PLAIN = re.compile(r"[\w./:=@%+,-]+")
"""Words that no shell expands: bash and fish run ``$(...)`` and ``(...)`` inside a list that they complete from, even
if the list is quoted, and a file may be called so."""


@dataclass(frozen=True)
class Context:
    """A place of a command line.

    Attributes:
        name: The verb, or verb and command.
        words: Words that may stand there: commands, or values of an argument without a flag.
        flags: The flags, each with the values that it takes; none where anything or a file fits.
    """

    name: str
    words: tuple[str, ...]
    flags: Mapping[str, Sequence[str]]


def listed(words: Iterable[str]) -> str:
    """Returns words as one quoted list; those that a shell would expand are left out."""
    return quote(" ".join(word for word in words if PLAIN.fullmatch(word)))


def bash_script(verbs: Mapping[str, str], contexts: Sequence[Context]) -> str:
    """Returns the script for bash.

    Args:
        verbs: All verbs with their summaries.
        contexts: What may follow them.
    """
    values: dict[str, list[str]] = {}
    for context in contexts:
        for flag, possible in context.flags.items():
            if possible:
                values.setdefault(listed(possible), []).append(f'"{context.name}:{flag}"')
    lines = [f"            {'|'.join(places)}) words={text} ;;" for text, places in values.items()]
    of_contexts = [
        f'                    "{context.name}") words={listed([*context.words, *context.flags])} ;;'
        for context in contexts
    ]
    groups = "|".join(dict.fromkeys(context.name.split()[0] for context in contexts if " " in context.name))
    return BASH.format(
        verbs=listed(verbs), groups=groups or "''", values="\n".join(lines), contexts="\n".join(of_contexts)
    )


def zsh_script(verbs: Mapping[str, str], contexts: Sequence[Context]) -> str:
    """Returns the script for zsh."""
    return ZSH + bash_script(verbs, contexts)


def fish_script(verbs: Mapping[str, str], contexts: Sequence[Context]) -> str:
    """Returns the script for fish."""
    lines = ["# Completion of m2pt for fish; written by `m2pt completion fish`."]
    lines += [
        f"complete -c m2pt -n __fish_use_subcommand -f -a {verb} -d {quote(text)}" for verb, text in verbs.items()
    ]
    for context in contexts:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in context.name.split())
        start = f"complete -c m2pt -n {quote(seen)}"
        if context.words:
            lines.append(f"{start} -f -a {listed(context.words)}")
        for flag, possible in context.flags.items():
            kind = "-l" if flag.startswith("--") else "-s"
            taken = f" -x -a {listed(possible)}" if possible else ""
            lines.append(f"{start} {kind} {quote(flag.lstrip('-'))}{taken}")
    return "\n".join(lines) + "\n"


SCRIPTS: Mapping[str, Callable[[Mapping[str, str], Sequence[Context]], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}
