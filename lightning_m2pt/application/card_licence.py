"""The licence in the header of a model card, which is what the hub shows and filters by."""

import re

LICENCE = re.compile(r"^license:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
LICENCE_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""A short name of the hub's list, such as ``apache-2.0``."""
HEADER = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)


def licence_of(card: str) -> str | None:
    """Returns the licence that a card's header names; None if it names none."""
    header = HEADER.match(card)
    found = LICENCE.search(header[1]) if header else None
    return (found[1].strip("'\"") or None) if found else None


def with_licence(card: str, licence: str) -> str:
    """Returns a card whose header names a licence, and is otherwise as it was; without a header it gets one."""
    header = HEADER.match(card)
    if header is None:
        return f"---\nlicense: {licence}\n---\n{card}"
    lines = LICENCE.sub("", header[1]) if LICENCE.search(header[1]) else header[1]
    kept = "".join(line for line in lines.splitlines(keepends=True) if line.strip())
    return f"---\nlicense: {licence}\n{kept}---{card[header.end() :]}"
