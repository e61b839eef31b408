"""An adapter in a run's folder, saved in a moment and of the form that tuning leaves, for tests of sending it."""

import json
from pathlib import Path

from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import save_adapter
from tests.support.small_training import module_with

CARD = """---
library_name: lightning_m2pt
tags: [prompt-tuning]
---
# m2pt adapter of experiment invented

Tuned for 3 steps.
"""


def write_run(folder: Path, scale: float = 1.0, card: str = CARD) -> Path:
    """Writes a complete run whose adapter's numbers are multiplied by ``scale``; returns the run's folder."""
    method = M2PT(visual_length=2, textual_length=2, init="normal", init_std=0.1)
    base = folder / "base"
    base.mkdir()
    module_with(base, method)
    tensors = {name: tensor.detach() * scale for name, tensor in method.named_tensors().items()}
    run = folder / "run"
    save_adapter(
        run / "adapter",
        method,
        AdapterBase("random", "sha256:" + "0" * 64),
        card,
        template="vicuna_v1",
        tensors=tensors,
    )
    (run / "run.json").write_text(json.dumps({"made_with": [{}], "completed": {"steps": 3, "seconds": 1.0}}))
    return run
