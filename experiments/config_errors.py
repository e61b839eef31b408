"""Turns a parser's complaint into three lines that name file, line, key and the nearest key there is.

jsonargparse says which key and why; ``yaml.compose`` says in which file and line it stands; difflib knows what was
probably meant.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_m2pt.errors import BadInputError

OUR_PACKAGES = ("lightning_m2pt", "data_modules", "callbacks", "experiments")
TOP_LEVEL_KEYS = ("seed_everything", "trainer", "model", "data", "benchmarks", "save_every_n_steps", "output_root")
KEYS_LISTED = 16


def check_files_first(files: list[Path]) -> None:
    """Reads the configuration files as YAML trees: syntax, duplicate keys and tags are found with their line.

    Raises:
        BadInputError: At the first file that is not a mapping of plain values.
    """
    for path in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
            refuse_aliases(text, path)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise BadInputError(
                f"cannot be read: {error.strerror}", where=str(path), expected="an experiment's YAML file"
            ) from error
        except UnicodeDecodeError as error:
            raise BadInputError("not UTF-8 text", where=str(path), expected="an experiment's YAML file") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise BadInputError(str(error.problem), where=f"{path}:{line}", expected="YAML") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise BadInputError(" ".join(str(error).split())[:200], where=str(path), expected="YAML") from error
        if not isinstance(node, yaml.MappingNode):
            raise BadInputError("no keys in here", where=str(path), expected="an experiment's YAML file")
        check_keys(node, path)


def refuse_aliases(text: str, path: Path) -> None:
    """Refuses YAML aliases, which can refer to themselves or swell to any size.

    Raises:
        BadInputError: At the first one.
    """
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadInputError(
                f"the alias *{event.anchor} is not allowed",
                where=f"{path}:{text[: text.index('*')].count(chr(10)) + 1}",
                expected="the value itself",
            )


def check_keys(node: yaml.Node, path: Path) -> None:
    """Refuses a key that is written twice, and every YAML tag.

    Raises:
        BadInputError: Naming file and lines.
    """
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise BadInputError(
            f"the tag {node.tag} is not allowed", where=f"{path}:{node.start_mark.line + 1}", expected="plain values"
        )
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadInputError("a key is a list or a mapping", where=f"{path}:{line}", expected="a word")
            if key.value in lines:
                raise BadInputError(
                    f"also written on line {lines[key.value]}",
                    where=f"{path}:{line}: {key.value}",
                    expected="every key once",
                )
            lines[key.value] = line
            check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            check_keys(item, path)


def keys_with_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Yields every dotted key of a file with its line, ``init_args`` left out as on the command line."""

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, int]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = prefix if key.value == "init_args" else f"{prefix}.{key.value}".lstrip(".")
                yield name, key.start_mark.line + 1
                yield from walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from walk(item, f"{prefix}.{class_name(item)}".rstrip("."))

    root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    if root is not None:
        yield from walk(root, "")


def class_name(node: yaml.Node) -> str:
    """Returns the class an item of a list is made of, so that messages can tell items apart; empty if it says none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "class_path":
                return str(value.value).rpartition(".")[2]
    return ""


def as_bad_input(error: Exception, files: list[Path], words: list[str]) -> BadInputError:
    """Returns the three-line form of a parser's or constructor's error.

    Args:
        error: What was raised.
        files: Configuration files, later ones win.
        words: The command line.
    """
    own = innermost(error)
    complaint = (
        Complaint(own.where, own.what, own.expected, own.hint)
        if isinstance(own, BadInputError)
        else complaint_of(str(error))
    )
    return BadInputError(
        complaint.what,
        where=place_of(complaint.key, files, words),
        expected=complaint.expected or "a value this key accepts",
        hint=complaint.hint,
    )


def innermost(error: BaseException) -> BaseException:
    """Follows the chain of causes to our own error, if there is one in it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BadInputError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


@dataclass(frozen=True)
class Complaint:
    """What a parser's message says, taken apart."""

    key: str
    what: str
    expected: str = ""
    hint: str = ""


def complaint_of(message: str) -> Complaint:
    """Takes a message of jsonargparse apart, as its version in the constraints file words them."""
    lines = [line.strip(" -") for line in message.splitlines() if "<class 'NoneType'>" not in line]
    text = " ".join(lines)
    keys = re.findall(r'Parser key "([^"]+)"', text)
    class_path = re.findall(r"given class_path '([^']+)'", text)
    if keys[:1] == ["benchmarks"] and class_path:
        keys[0] = f"benchmarks.{class_path[0].rpartition('.')[2]}"
    missing = re.search(r"(?:the following arguments are required: |Key ['\"])([\w.]+)", text)
    unknown = re.search(r"Option '([^']+)' is not accepted", text)
    group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", text)
    unrecognised = re.search(r"unrecognized arguments?: -*([^\s=]+)", text)
    wrong = re.search(r"Expected an? (.+?)\. Got value: (.*?)(?: Given value|$)", text)
    if missing and "required" in text:
        return Complaint(missing.group(1), "this key is missing", "a value", "a shipped experiment shows how it looks")
    if unknown:
        return unknown_key([*keys, unknown.group(1)], class_path[-1] if class_path else "")
    if group:
        return unknown_key([group.group(1), *group.group(2).split(".")[:1]], "")
    if unrecognised:
        return unknown_key(unrecognised.group(1).split("."), "")
    if wrong:
        return Complaint(".".join(keys), f"{wrong.group(2)[:80]!r} does not fit", readable_type(wrong.group(1)))
    if class_path and "has no attribute" in text:
        return Complaint(".".join(keys), f"there is no class {class_path[-1]}", "a class path as in the shipped files")
    return Complaint(".".join(keys), text.split(":", 1)[-1].strip()[:200])


def unknown_key(parts: list[str], class_path: str) -> Complaint:
    """Returns the complaint about a key that does not exist, with the nearest one that does."""
    *groups, leaf = ".".join(parts).replace(".init_args", "").split(".")
    accepted = accepted_names(".".join(groups), class_path)
    near = difflib.get_close_matches(leaf, accepted, n=1)
    listed = ", ".join(accepted) if len(accepted) <= KEYS_LISTED else f"one of its {len(accepted)} keys"
    return Complaint(
        ".".join([*groups, leaf]),
        "unknown key",
        listed,
        f"did you mean {near[0]}?" if near else "`m2pt fit --help` lists all keys",
    )


def accepted_names(group: str, class_path: str) -> list[str]:
    """Returns the keys a group or a class of this project accepts, from the signature that is the schema."""
    from lightning.pytorch import Trainer

    from lightning_m2pt.module import TuningModule
    from lightning_m2pt.optim import AdamW, Schedule

    schemas: dict[str, Any] = {
        "trainer": Trainer,
        "model": TuningModule,
        "model.optimizer": AdamW,
        "model.schedule": Schedule,
    }
    owner = schemas.get(group)
    if class_path.split(".")[0] in OUR_PACKAGES:
        module, _, name = class_path.rpartition(".")
        owner = getattr(importlib.import_module(module), name)
    return list(TOP_LEVEL_KEYS) if owner is None else [name for name in inspect.signature(owner).parameters]


def readable_type(text: str) -> str:
    """Returns a type as people write it: ``int``, ``'cosine' or 'linear'``."""
    named = re.fullmatch(r"<class '(?:builtins\.)?([\w.]+)'>", text)
    literal = re.fullmatch(r"typing\.Literal\[(.+)\]", text)
    return named.group(1) if named else " or ".join(literal.group(1).split(", ")) if literal else text


def place_of(key: str, files: list[Path], words: list[str]) -> str:
    """Returns ``FILE:LINE: key``, or ``command line: key`` if the key was given there."""
    plain = re.sub(r"\.init_args\b", "", key)
    if any(
        word.removeprefix("--").replace(".init_args", "").split("=")[0] == plain for word in words if word[:2] == "--"
    ):
        return f"command line: {plain}"
    for path in reversed(files):
        lines = dict(keys_with_lines(path))
        parts = plain.split(".")
        for depth in range(len(parts), 0, -1):
            name = ".".join(parts[:depth])
            if name in lines:
                return f"{path}:{lines[name]}: {plain}"
    return plain or "command line"
