"""What transformers and peft alone make of folders, in a process that has never seen this project."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span

NEW_TOKENS = 6
GUARD = Path(__file__).parents[3] / "lightning_m2pt" / "torchvision_guard.py"
PROGRAM = """
import importlib.util, json, sys

spec = importlib.util.spec_from_file_location("torchvision_guard", sys.argv[2])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText


def opened(job):
    kind = AutoModelForImageTextToText if job["extent"] == "whole" else AutoModelForCausalLM
    model = kind.from_pretrained(job["model"], dtype=job["loads_as"] or "auto")
    assert str(model.dtype) == job["dtype"], model.dtype
    if job["adapter"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"])
    return model.eval()


def asked(model, given, mask, job):
    named = {"attention_mask": mask, **given}
    if job["gives_positions"]:
        named["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(**named).logits[:, -mask.shape[1] :]
    settings = {"max_new_tokens": job["new_tokens"], "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    if job["suppressed"]:
        settings["suppress_tokens"] = job["suppressed"]
    answers = model.generate(attention_mask=mask, **given, **settings)
    return logits, answers[:, mask.shape[1] if "input_ids" in given else 0 :]


for job in json.load(open(sys.argv[1])):
    model, inputs, found = opened(job), load_file(job["inputs"]), {}
    pictures = {"pixel_values"} & set(inputs)
    mask = inputs.pop("mask")
    with torch.no_grad():
        for name in ("batch", *range(len(mask))):
            if name == "batch":
                given, seen = inputs, mask
            else:
                real = mask[name].bool()
                seen = mask[name : name + 1, real]
                given = {
                    key: one[name : name + 1] if key in pictures else one[name : name + 1, real]
                    for key, one in inputs.items()
                }
            found[f"{name} logits"], found[f"{name} answers"] = asked(model, given, seen, job)
    save_file({key: one.contiguous() for key, one in found.items()}, job["found"])
assert "lightning_m2pt" not in sys.modules
"""


def stock_inputs(batch: Batch, patches: int, picture: int) -> tuple[dict[str, Tensor], Tensor]:
    """Returns what a whole model of transformers is given of a batch, padded on the left, and the mask of what is real.

    Args:
        batch: Questions with one picture each.
        patches: Rows of a picture.
        picture: The token that stands for each of them.
    """
    samples = []
    for ids, spans in zip(batch.input_ids, batch.spans, strict=True):
        real = [
            torch.full((patches,), picture) if token == IMAGE_TOKEN_ID else token[None]
            for token, span in zip(ids, spans, strict=True)
            if span != Span.PADDING
        ]
        samples.append(torch.cat(real))
    longest = max(map(len, samples))
    padded = [torch.nn.functional.pad(sample, (longest - len(sample), 0)) for sample in samples]
    mask = [torch.nn.functional.pad(torch.ones_like(sample), (longest - len(sample), 0)) for sample in samples]
    return {"input_ids": torch.stack(padded), "pixel_values": batch.pixel_values}, torch.stack(mask)


def stock_job(
    folder: Path,
    model: Path,
    inputs: dict[str, Tensor],
    mask: Tensor,
    adapter: Path | None = None,
    extent: str = "whole",
    dtype: str = "float32",
    gives_positions: bool = True,
) -> dict[str, Any]:
    """Returns one model to be asked; its inputs are written below ``folder``, which is made."""
    folder.mkdir(parents=True)
    save_file({"mask": mask, **{name: one.contiguous() for name, one in inputs.items()}}, folder / "inputs.safetensors")
    return {
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "inputs": str(folder / "inputs.safetensors"),
        "found": str(folder / "found.safetensors"),
        "extent": extent,
        "dtype": f"torch.{dtype}",
        "loads_as": None if adapter is None else dtype,
        "gives_positions": gives_positions,
        "new_tokens": NEW_TOKENS,
        "suppressed": [],
    }


def stock_results(folder: Path, jobs: Sequence[dict[str, Any]], timeout: int = 400) -> list[dict[str, Tensor]]:
    """Asks models in one fresh process, each one question by one and all together; returns logits and answers."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(list(jobs)))
    words = [sys.executable, "-c", PROGRAM, str(path), str(GUARD)]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(
        words, cwd=folder, env=environment, timeout=timeout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [load_file(job["found"]) for job in jobs]
