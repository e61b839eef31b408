"""Two small bases with batches, and adapters of stock PEFT for them: made and run by a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.origins.named import named_base
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.testing.random_backbone import random_batch
from tests.support.whole_models import llava_config, write_whole_model

ROOT = Path(__file__).parents[3]
PICTURE_TOKEN = 59
SECONDS = 240


@dataclass(frozen=True)
class Bases:
    """A folder with bases, what they are given, and PEFT's adapters of them.

    ``llava`` is a whole model, which PEFT gets pictures and tokens for; ``language`` the language model of the embedded
    ``testbed`` alone, which it gets our rows for.

    Attributes:
        folder: Where all of it lies.
        forms: For each adapter its base, PEFT's type and configuration.
    """

    folder: Path
    forms: Mapping[str, Mapping[str, Any]]

    def name_of_base(self, form: str) -> str:
        """Returns what ``--base`` calls the base of an adapter."""
        return str(self.folder / "llava") if self.forms[form]["base"] == "llava" else "testbed"

    def backbone(self, form: str) -> Backbone:
        """Returns the loaded base of an adapter in float64."""
        backbone = named_base(self.name_of_base(form), dtype="float64")
        backbone.load()
        return backbone

    def batch(self, backbone: Backbone) -> Batch:
        """Returns three questions, one of them shorter."""
        pixels, _ = backbone.invented_pictures(3, torch.Generator().manual_seed(0))
        return replace(random_batch(answer=1, dtype=torch.float64), pixel_values=pixels.double())

    def expected(self, form: str) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Returns PEFT's logits (B, S, V), which of the rows are no padding, and greedy tokens of each sample."""
        given = load_file(self.folder / f"{self.forms[form]['base']}.given.safetensors")
        made = load_file(self.folder / f"{form}.expected.safetensors")
        return made["logits"], given["attention_mask"].bool(), made["greedy"].tolist()


def written_bases(folder: Path, forms: Mapping[str, Mapping[str, Any]]) -> Bases:
    """Writes both bases and lets PEFT make and run its adapters."""
    write_whole_model(folder / "llava", llava_config())
    shutil.copytree(EMBEDDED / "testbed" / "language", folder / "language")
    bases = Bases(folder, {"whole": {"base": "llava"}, "alone": {"base": "language"}, **forms})
    whole, alone = bases.backbone("whole"), bases.backbone("alone")
    batch = bases.batch(whole)
    save_file({**ids_of_library(batch, whole.shape.patches)}, folder / "llava.given.safetensors")
    with torch.no_grad():
        rows, _, spans = alone.assemble(bases.batch(alone))
    mask = (spans != Span.PADDING).long()
    save_file({"inputs_embeds": rows.contiguous(), "attention_mask": mask}, folder / "language.given.safetensors")
    (folder / "forms.json").write_text(json.dumps(forms))
    command = [sys.executable, "-m", "tests.support.peft.stock_adapters", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return bases


def ids_of_library(batch: Batch, rows: int) -> dict[str, Tensor]:
    """Returns what a LLaVA of transformers is given: its picture's token once for each of a picture's rows."""
    ids = [
        torch.cat([torch.full((rows,), PICTURE_TOKEN) if token == IMAGE_TOKEN_ID else token[None] for token in sample])
        for sample in batch.input_ids
    ]
    real = torch.nn.functional.pad(batch.spans != Span.PADDING, (rows - 1, 0), value=True)
    return {"input_ids": torch.stack(ids), "attention_mask": real.long(), "pixel_values": batch.pixel_values}
