"""Compares everything a killed and restarted run has left with what an undisturbed one left."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.storage.run_record import MADE_WITH, RECORD_FILE

LOG, RESULTS, EVENTS, CARD = "log.txt", "results.json", "events.out.tfevents", "README.md"
OF_A_START = ("started", "host", "command", "git_commit")
"""What differs from one start of a command to the next."""
OF_A_MACHINES_STATE = ("seconds", "peak_memory_bytes")
EXCEPTIONS = (
    f"{LOG}: times, and what every start says again",
    f"{RECORD_FILE}: how often, when and as which command the run was started; seconds and peak memory",
    f"{CARD} of an adapter: how often, when and as which command the run was started",
    f"{RESULTS}: seconds and peak memory",
    "tb: events are compared by content, after those that a later start has purged are gone",
)


@dataclass(frozen=True)
class Compared:
    """One file.

    Attributes:
        name: Its path inside the run's folder, steps and hashes left out.
        problem: What differs; empty if nothing does.
    """

    name: str
    problem: str = ""


def compare(whole: Path, cut: Path) -> list[Compared]:
    """Compares two folders of runs, file by file.

    Args:
        whole: What the undisturbed command wrote.
        cut: What the killed one wrote under the same path.
    """
    files = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (whole, cut)]
    boards = [{path.parent for path in named if path.name.startswith(EVENTS)} for named in files]
    compared = [
        Compared(
            label(path / EVENTS),
            "" if tensorboard_steps(whole / path) == tensorboard_steps(cut / path) else "other events",
        )
        for path in sorted(boards[0] | boards[1])
    ]
    for path in sorted(files[0] | files[1]):
        if path.name.startswith(EVENTS):
            continue
        if path not in files[1] or path not in files[0]:
            compared.append(Compared(label(path), "missing" if path in files[0] else "left over"))
        elif path.name not in (LOG, CARD):
            compared.append(Compared(label(path), difference(whole / path, cut / path)))
    return compared


def label(path: Path) -> str:
    """Returns a file's path inside its run."""
    inside = path.parts[2:] or path.parts[-1:]
    return "/".join(inside)


def difference(whole: Path, cut: Path) -> str:
    """Returns what differs between two files of one name, exceptions left out; empty if nothing does."""
    left, right = whole.read_bytes(), cut.read_bytes()
    if whole.name in (RECORD_FILE, RESULTS):
        return "" if lasting_fields(json.loads(left)) == lasting_fields(json.loads(right)) else "other values"
    if left == right:
        return ""
    lines = [content.split(b"\n") for content in (left, right)]
    first = next((number for number, (a, b) in enumerate(zip(*lines, strict=False), start=1) if a != b), 0)
    return f"{len(left):,} and {len(right):,} bytes, line {first} is the first that differs"


def lasting_fields(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what a record says of a run whenever and wherever it ran."""
    left = {key: value for key, value in record.items() if key not in OF_A_MACHINES_STATE}
    if MADE_WITH in left:
        left[MADE_WITH] = {key: value for key, value in left[MADE_WITH][-1].items() if key not in OF_A_START}
    if isinstance(left.get("completed"), dict):
        left["completed"] = lasting_fields(left["completed"])
    return left


def tensorboard_steps(folder: Path) -> Counter[tuple[str, int, bytes]]:
    """Returns how often TensorBoard shows every (tag, step, value) of a folder, as its reader purges them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    shown: list[tuple[str, int, bytes]] = []
    # By time, for their names begin with a second, in which several may have started.
    for file in sorted(folder.glob(f"{EVENTS}*"), key=lambda file: file.stat().st_mtime_ns):
        for event in EventFileLoader(str(file)).Load():
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                shown = [entry for entry in shown if entry[1] < event.step]
            for value in event.summary.value:
                shown.append((value.tag, event.step, value.tensor.SerializeToString()))
    return Counter(shown)
