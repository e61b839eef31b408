"""What must not leave this machine: its paths, tokens, and the names of people, machines and private sets.

Every text of what is sent is read line by line. Tokens are known by their exact forms, which the services document; a
text that only looks secret is nobody's business here.
"""

import getpass
import os
import re
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.configuration.paths import FOR_CONFIGURATIONS
from lightning_m2pt.errors import BadInputError

TOKENS = {
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{30,}\b|\bapi_org_[A-Za-z0-9]{30,}\b",
    "a key of AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{50,}\b",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a token of Slack": r"\bxox[abprs]-[\w-]{10,}",
    "a key of Google": r"\bAIza[\w-]{35}(?![\w-])",
    "a key of OpenAI or Anthropic": r"\bsk-(?:[a-z]+[\w-]*-)?[A-Za-z0-9_-]{20,}",
    "a signed token (JWT)": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/@\"']+@",
}
ANY_HOME = (
    r"/(?:home|Users|users|root|scratch|mnt|media|gpfs|lustre|nfs|work|data|tmp|var/tmp|private/tmp|workspace|opt|srv"
    r"|export|storage|Volumes|projects?|cluster|content|kaggle|dev/shm|run/user|var/lib)/"
)
"""Where people's files lie on most machines; an address of the web has a name in front of it."""
ESCAPED = r"(?![nrtbf\"])"
"""Behind a single backslash: what JSON writes for a line's end and the like is no folder of Windows."""
PATHS = {
    "a path of a machine": "|".join(
        (
            rf"(?<![\w./~-]){ANY_HOME}[^\s\"',;)\]]+",
            r"\bfile:/[^\s\"',;)\]]+",
            rf"(?<!\w)[A-Za-z]:(?:\\\\|\\{ESCAPED}|/(?!/))[\w.$-][^\s\"']*",  # a drive of Windows
            r"(?<!\\)(?:\\\\){1,2}[\w.-]+\\{1,2}[\w$][^\s\"']*",  # a share of Windows
            r"(?<!\w)~(?:[A-Za-z_][\w.-]*)?/[\w.]+",
        )
    ),
    "a path that leads out of the folder": rf"(?:\.\.(?:/|\\{ESCAPED}))+[^\s\"',;)\]]+",
}
EVERYWHERE = frozenset(
    (
        "root",
        "user",
        "admin",
        "ubuntu",
        "debian",
        "runner",
        "jovyan",
        "nobody",
        "docker",
        "localhost",
        "container",
        "vscode",
    )
)
"""Names of users and machines that say nothing about anybody."""
SHORTEST_NAME = 3
"""Shorter names stand in every text."""
SHOWN_OF_TOKEN = 6


@dataclass(frozen=True)
class Leak:
    """A place where something private stands.

    Attributes:
        file: The file.
        line: Its line, from 1.
        what: What it is.
        shown: It, or the beginning of a token.
        name: The name, if it is one that may be allowed.
    """

    file: str
    line: int
    what: str
    shown: str
    name: str = ""


def refuse_leaks(texts: Mapping[str, str], sets: Collection[str], allowed: Collection[str]) -> None:
    """Looks for what is private in the texts of files.

    Args:
        texts: Texts by the names of their files.
        sets: Names of data sets that do not come with the project.
        allowed: Names that may be sent all the same.

    Raises:
        BadInputError: At the first that is found; nothing has been sent.
    """
    found = list(leaks(texts, sets, allowed))
    if not found:
        return
    first = found[0]
    others = f"; {len(found) - 1} more below it" if len(found) > 1 else ""
    raise BadInputError(
        f"{first.what} stands here: {first.shown:.80}{others}",
        where=f"{first.file}:{first.line}",
        expected="nothing that tells of this machine or of data of your own",
        hint=f"--name-ok {first.name} sends it all the same"
        if first.name
        else "take it out of the file; nothing was sent",
    )


def leaks(texts: Mapping[str, str], sets: Collection[str], allowed: Collection[str]) -> Iterator[Leak]:
    """Yields what is private, file by file and line by line.

    Args:
        texts: Texts by the names of their files.
        sets: Names of data sets that do not come with the project.
        allowed: Names that may be sent all the same.
    """
    tokens = {what: re.compile(pattern) for what, pattern in TOKENS.items()}
    paths = {what: re.compile(pattern) for what, pattern in PATHS.items()}
    own = [(what, path, whole_path(path)) for what, path in own_paths()]
    names = {name: f"the name of this {of}" for of, name in people_and_machines()}
    names |= dict.fromkeys(sets, "the name of a data set of your own")
    known = {name.casefold() for name in allowed}
    wanted = {name: (what, whole_word(name)) for name, what in names.items() if name.casefold() not in known}
    for file, text in texts.items():
        for number, line in enumerate(map(unescaped, text.splitlines()), start=1):
            for what, pattern in tokens.items():
                if match := pattern.search(line):
                    yield Leak(file, number, what, match[0][:SHOWN_OF_TOKEN] + "...")
            for what, path, pattern in own:
                if pattern.search(line):
                    yield Leak(file, number, what, path)
            for what, pattern in paths.items():
                if match := pattern.search(line):
                    yield Leak(file, number, what, match[0])
            for name, (what, pattern) in wanted.items():
                if pattern.search(line):
                    yield Leak(file, number, what, name, name)


def own_paths() -> list[tuple[str, str]]:
    """Returns this machine's places as texts, each with what it is."""
    places = [("the home folder's path", Path.home()), ("the working directory's path", Path.cwd())]
    places.append(("the path of temporary files", Path(tempfile.gettempdir())))
    places += [(f"the path in {name}", Path(os.environ[name])) for name in FOR_CONFIGURATIONS if os.environ.get(name)]
    texts = [(what, str(path)) for what, each in places for path in {each.absolute(), each.resolve()}]
    # "/" and "/x" stand in fractions and addresses.
    return [(what, text) for what, text in texts if len(text) > SHORTEST_NAME]


def people_and_machines() -> list[tuple[str, str]]:
    """Returns the names of this user and this machine that tell something, each behind ``user`` or ``machine``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        user = ""
    host = socket.gethostname()
    named = [("user", user), ("machine", host), ("machine", host.partition(".")[0])]
    return [(of, name) for of, name in named if len(name) >= SHORTEST_NAME and name.lower() not in EVERYWHERE]


def whole_word(name: str) -> re.Pattern[str]:
    """Returns what finds a name, in whatever case, where it stands by itself."""
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)


def whole_path(path: str) -> re.Pattern[str]:
    """Returns what finds a path, and what lies below it; ``/app`` is none in an address's ``/application``."""
    return re.compile(rf"(?<!\w){re.escape(path)}(?![\w-])")


def unescaped(line: str) -> str:
    """Returns a line of JSON with its letters as people read them."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), line).replace("\\/", "/")
