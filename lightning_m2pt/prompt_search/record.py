"""A search on disk: its record, from which it goes on after a stop, and the prompt's file that comes out of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template, is_known
from lightning_m2pt.prompt_search.placing import Position, question_text, system_text
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

SETTINGS, STATES, MEASURED, DIGEST = "settings", "states", "measured", "sha256"


@dataclass
class SearchRecord:
    """What is kept of a search beside the prompt's file.

    Attributes:
        path: Its file.
        settings: All that decides what is found, as plain values; a budget is not among it.
        states: Where each search stands, by its proposer.
        measured: What was measured of the result in the end.
    """

    path: Path
    settings: dict[str, Any]
    states: dict[str, SearchState] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        """Writes the record; a stop at any point leaves the one before or this one.

        Raises:
            EnvironmentFailure: If it cannot be written.
        """
        states = {name: state.to_json() for name, state in self.states.items()}
        content: dict[str, Any] = {SETTINGS: self.settings, STATES: states, MEASURED: self.measured}
        content[DIGEST] = digest_of(content)
        write_atomically(self.path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def record_path(output: Path) -> Path:
    """Returns where the record of a prompt's file stands.

    Raises:
        BadInputError: If the prompt's file could not be given to ``--prompt-text``.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise BadInputError(
            f"{output.name!r:.80} is no name for a prompt's file",
            where="command line: --output",
            expected="a name that ends in .yaml",
        )
    return output.with_suffix(".json")


def found_record(path: Path, settings: Mapping[str, Any]) -> SearchRecord:
    """Returns the record of the same search, or an empty one.

    Args:
        path: Its file, which may not be there.
        settings: Of the search that shall go on.

    Raises:
        BadInputError: If the file is no record, was changed since a search wrote it, or is one of another search.
    """
    plain = json.loads(json.dumps(settings))
    if not path.exists():
        return SearchRecord(path, plain)
    content = parse_json(path.read_bytes(), path)
    try:
        known, states, measured = content[SETTINGS], content[STATES], content[MEASURED]
        read = {str(name): SearchState.from_json(state) for name, state in states.items()}
        other = sorted(key for key in {*known, *plain} if known.get(key) != plain.get(key))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            "this is no record of a search", where=str(path), expected="what m2pt search-prompt wrote, or no file"
        ) from error
    if DIGEST in content and content[DIGEST] != digest_of(content):  # records of before have none
        raise BadInputError(
            "its numbers are not those that the search wrote",
            where=str(path),
            expected="the record as it was, or another --output",
            hint="without this file the search begins anew",
        )
    if other:
        shown = known.get(other[0]), plain.get(other[0])
        raise BadInputError(
            f"it is of another search: {other[0]} is {shown[0]!r:.60}, and {shown[1]!r:.60} now",
            where=str(path),
            expected="the same settings, with which it goes on, or another --output",
        )
    return SearchRecord(path, plain, read, dict(measured))


def digest_of(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a record holds: of its values, not of how they are laid out."""
    kept = {key: content[key] for key in (SETTINGS, STATES, MEASURED)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def prompt_file(words: str, position: Position, template: Template) -> bytes:
    """Returns the prompt's file: a template of words, as ``--prompt-text`` and ``data.template`` take it.

    Args:
        words: The prompt.
        position: Where it stands.
        template: What it was searched in. One of ours is named, so that the file is a template by itself.
    """
    content = {"based_on": template.name} if is_known(template.name) else {}
    content["question"] = question_text(position, words)
    if position == "system":
        content["system"] = system_text(template, words)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000).encode()
