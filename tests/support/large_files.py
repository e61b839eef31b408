"""A backbone of hundreds of megabytes as files, and the memory that a process has of its own while it reads them."""

import json
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lightning_m2pt.backbones.language_model import model_on_meta
from lightning_m2pt.backbones.towers.open_clip_files import tower_on_meta
from lightning_m2pt.testing.random_backbone import write_configs
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.support.stored_backbone import CONFIG, PROJECTOR, TOWER, TOWER_CONFIG, WEIGHTS

SECONDS_BETWEEN = 0.002


def write_large(folder: Path, language: dict[str, Any], tower: dict[str, Any]) -> int:
    """Writes a backbone of random float16 weights in the form of ``stored``; returns how many numbers it has.

    Args:
        folder: Where to.
        language: Keys of the language model's configuration, ``hidden_size`` among them.
        tower: Keys of the tower's, ``width`` among them.
    """
    (folder / "vision").mkdir(parents=True)
    (folder / "language").mkdir()
    write_configs(folder, language, tower)
    (folder / "open_clip_config.json").rename(folder / TOWER_CONFIG)
    (folder / "config.json").rename(folder / CONFIG)
    model_cfg = json.loads((folder / TOWER_CONFIG).read_text())["model_cfg"]
    with torch.device("meta"):
        projector = nn.Linear(tower["width"], language["hidden_size"])
    parts = [
        (tower_on_meta(model_cfg), "visual.", TOWER),
        (projector, "", PROJECTOR),
        (model_on_meta(folder / "language"), "", WEIGHTS),
    ]
    for module, prefix, file in parts:
        state = module.state_dict()
        numbers = {f"{prefix}{name}": torch.empty(each.shape).normal_(0, 0.02).half() for name, each in state.items()}
        save_file(numbers, folder / file)
    word_tokenizer().save_pretrained(str(folder / "language"))
    return sum(each.numel() for module, _, _ in parts for each in module.state_dict().values())


def private_memory() -> int:
    """Returns the bytes that this process has of its own; pages of mapped files, which others share, do not count."""
    fields = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    match = re.search(r"^Anonymous: +(\d+) kB", fields, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


class PrivatePeak:
    """Looks, as long as it lasts, how much memory this process has beyond what it had at the beginning.

    Attributes:
        peak: The most of it, in bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "PrivatePeak":
        self._before = private_memory()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Looks no longer."""
        if not self._is_over.is_set():
            self._is_over.set()
            self._thread.join()
            self._note()

    def _note(self) -> None:
        self.peak = max(self.peak, private_memory() - self._before)

    def _look(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN):
            self._note()
