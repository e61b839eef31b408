"""Predictions under way: appended as they come, so that a killed evaluation goes on where it stopped.

Every process appends to a file of its own, ``<set>.jsonl.partial-<rank>``: the header, then one line an answer. A line
that a kill cut off is dropped when the file is opened again.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import OF_QUESTIONS, check_prediction, check_set
from lightning_m2pt.system.atomic_files import cannot_write, write_atomically
from lightning_m2pt.system.strict_json import parse_json


class PartialPredictions:
    """The partial files of one prediction file.

    Args:
        path: The prediction file they become.
        header: Its header: answers under another one are never mixed in.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = dict(header)
        self._opened: set[int] = set()

    def file_of(self, rank: int) -> Path:
        """Returns where a process appends."""
        return self.path.with_name(f"{self.path.name}.partial-{rank}")

    def files(self) -> list[Path]:
        """Returns the partial files that are there."""
        return sorted(self.path.parent.glob(f"{self.path.name}.partial-*"))

    def answered(self) -> dict[str, dict[str, Any]]:
        """Returns the lines of all questions that are answered already, by id.

        Raises:
            BadInputError: If a file was made with another adapter, data, template or decoding.
        """
        lines: dict[str, dict[str, Any]] = {}
        for path in self.files():
            header, *rows = whole_lines(path) or [self.header]
            refuse_other_header(path, header, self.header)
            lines |= {row["id"]: row for row in rows}
        return lines

    def append(self, lines: Iterable[Mapping[str, Any]], rank: int) -> None:
        """Adds answers to a process's file and sees them onto the disk.

        Raises:
            EnvironmentFailure: If they cannot be written.
        """
        path = self.file_of(rank)
        if rank not in self._opened:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json_lines(whole_lines(path) or [self.header]).encode())
            self._opened.add(rank)
        content = json_lines(lines).encode()
        try:
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, len(content), error) from error

    def finish(self, ids: Sequence[str]) -> None:
        """Writes the prediction file in the benchmark's order, then removes the partial ones.

        Args:
            ids: Every question's id, in order.

        Raises:
            KeyError: If a question has no answer.
        """
        answered = self.answered()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json_lines([self.header, *(answered[name] for name in ids)]).encode())
        self.remove()

    def remove(self) -> None:
        """Removes the partial files."""
        for path in self.files():
            path.unlink()


def json_lines(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns JSON lines."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file that are whole; none if the file is not there or ends within the first.

    Raises:
        BadInputError: If a whole line is none of a prediction file.
    """
    if not path.exists():
        return []
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(complete.split(b"\n") if complete else [], start=1):
        try:
            value = dict(parse_json(line, path, number))
            if number > 1:
                check_prediction(value, f"{path}:{number}")
                check_set(value, str(lines[0].get("benchmark")), f"{path}:{number}")
        except (ValueError, TypeError) as error:
            raise BadInputError(
                "this is no line of a prediction file", where=f"{path}:{number}", hint="--force answers all over again"
            ) from error
        lines.append(value)
    return lines


def refuse_other_header(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses answers that were made otherwise.

    Raises:
        BadInputError: Naming the first key that differs.
    """
    for key in {**wanted, **there}:
        if key != OF_QUESTIONS and there.get(key) != wanted.get(key):
            values = [shown(header.get(key), other.get(key)) for header, other in ((there, wanted), (wanted, there))]
            raise BadInputError(
                f"{key} is {values[0]} there and {values[1]} now",
                where=str(path),
                expected="answers of the same adapter, data, template and decoding",
                hint="--force answers all over again",
            )


def shown(value: Any, other: Any) -> str:  # noqa: ANN401  (what JSON holds)
    """Returns a header's value for a message; of two mappings only the keys that differ."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: one for key, one in value.items() if key not in other or one != other[key]}
    return json.dumps(value, ensure_ascii=False)[:80]
