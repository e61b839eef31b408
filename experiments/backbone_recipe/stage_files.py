"""The recipe's work folder: resumable checkpoints and finished stages, as safetensors and JSON."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_m2pt.errors import EnvironmentFailure


@dataclass
class StageRecord:
    """What a stage did.

    Attributes:
        stage: Its name.
        fingerprint: Hash of everything that decides its result.
        step: Steps done.
        losses: For each recorded step, the mean of every loss since the last one.
        wall_seconds: Time on the clock, over all attempts.
        cpu_seconds: Processor time, over all attempts.
        file_sha256: Hash of the finished weights; empty until then.
    """

    stage: str
    fingerprint: str
    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    file_sha256: str = ""


def fingerprint_of(*parts: object) -> str:
    """Returns a hash of JSON-able parts: settings, versions, and hashes of input files."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a text file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file so that it is there whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors so that the file is there whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, temporary, metadata=metadata)
        os.replace(temporary, path)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write: {error}", where=str(path)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns a file's tensors and metadata."""
    with safe_open(path, framework="pt") as opened:
        names = opened.keys()
        return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}


class StageFiles:
    """The files of one stage in the work folder."""

    def __init__(self, work: Path, stage: str, fingerprint: str) -> None:
        self.stage = stage
        self.fingerprint = fingerprint
        self.weights_path = work / f"{stage}.safetensors"
        self.record_path = work / f"{stage}.json"
        self.checkpoint_path = work / f"{stage}.checkpoint.safetensors"
        work.mkdir(parents=True, exist_ok=True)

    def finished(self) -> StageRecord | None:
        """Returns the record of a finished stage with these settings and unharmed weights, if there is one."""
        if not (self.record_path.exists() and self.weights_path.exists()):
            return None
        record = StageRecord(**json.loads(self.record_path.read_text(encoding="utf-8")))
        if record.fingerprint != self.fingerprint or record.file_sha256 != sha256_of(self.weights_path):
            return None
        return record

    def weights(self) -> dict[str, Tensor]:
        """Returns the finished weights."""
        return read_tensors(self.weights_path)[0]

    def checkpoint(self) -> tuple[dict[str, Tensor], StageRecord] | None:
        """Returns the last checkpoint of a stage with these settings, if there is one."""
        if not self.checkpoint_path.exists():
            return None
        tensors, metadata = read_tensors(self.checkpoint_path)
        record = StageRecord(**json.loads(metadata["record"]))
        return (tensors, record) if record.fingerprint == self.fingerprint else None

    def write_checkpoint(self, tensors: Mapping[str, Tensor], record: StageRecord) -> None:
        """Replaces the checkpoint. The record travels inside the file, so that the two cannot differ."""
        write_tensors(self.checkpoint_path, tensors, {"record": json.dumps(asdict(record))})

    def finish(self, weights: Mapping[str, Tensor], record: StageRecord) -> StageRecord:
        """Writes the finished weights, then the record, then removes the checkpoint."""
        write_tensors(self.weights_path, weights)
        record.file_sha256 = sha256_of(self.weights_path)
        content: dict[str, Any] = asdict(record)
        write_json(self.record_path, content)
        self.checkpoint_path.unlink(missing_ok=True)
        return record
