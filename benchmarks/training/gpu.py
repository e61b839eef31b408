"""The same steps on a GPU at the shape of CLIP ViT-L/14 and Vicuna-7B, from random weights drawn on the device.

    python -m benchmarks.training.gpu          # writes benchmarks/results/gpu.json and the table of docs/speed.md

bf16 frozen weights, prompts and projector in float32, TF32 allowed as the published script has it. Peers run one after
another on one set of frozen weights, since only then is the peak memory a peer's own; times are wall time around
synchronised steps. The floor is the formula's ideal at the rate of one large bf16 matrix product measured in the
same run.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import gc
import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from benchmarks.answering.gpu import QuestionSet, evaluation_speed
from benchmarks.report.machine import machine
from benchmarks.report.speed import write_report
from benchmarks.training import own_step, peft_steps
from benchmarks.training.flop_formula import ideal_step
from benchmarks.training.inputs import batch_of, random_backbone
from benchmarks.training.peer import Peer
from benchmarks.training.peers import CHARITABLE, HEAD_FROZEN, LARGE_RANK, PREFIX, PUBLISHED, lora_name
from benchmarks.training.published_step import published_peer
from benchmarks.training.sizes import VICUNA_7B, TrainingSize
from benchmarks.training.timing import wall_seconds
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say

RESULTS = Path("benchmarks/results/gpu.json")
BATCHES = (16, 32, 64)
MATMUL_SIDE, MATMUL_REPEATS = 8192, 10
QUESTION, ANSWER = (90.0, 0.6), (12.0, 1.2)
"""Median and deviation (of the logarithm) of question and answer lengths: our stand-in for Vision-Flan's mix of short
and long answers, no statistics of the set."""
LONGEST_TEXT = 1024

Lengths = list[tuple[int, int]]


def fixed_lengths(size: TrainingSize) -> Lengths:
    """Returns the size's own length for every sample."""
    return [(size.text_tokens, size.supervised)] * size.batch


def mixed_lengths(size: TrainingSize) -> Lengths:
    """Returns log-normal questions and answers, cut at ``LONGEST_TEXT`` tokens; the same for everybody."""
    generator = random.Random(0)

    def drawn(median: float, deviation: float) -> int:
        return max(1, round(median * generator.lognormvariate(0.0, deviation)))

    lengths = []
    for _ in range(size.batch):
        question, answer = drawn(*QUESTION), drawn(*ANSWER)
        total = min(size.system_tokens + question + answer, LONGEST_TEXT)
        lengths.append((total, min(answer, total - size.system_tokens)))
    return lengths


LENGTHS: dict[str, Callable[[TrainingSize], Lengths]] = {"fixed": fixed_lengths, "mixed": mixed_lengths}


def matmul_rate(device: str, side: int) -> float:
    """Returns operations per second of one square bf16 matrix product."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / wall_seconds(lambda: left @ right, device, MATMUL_REPEATS)


def ideal_flops(size: TrainingSize, lengths: Lengths) -> float:
    """Returns the formula's operations of a batch of mixed lengths: every term is per sample or shared by the batch."""
    each = [replace(size, batch=len(lengths), text_tokens=tokens, supervised=answer) for tokens, answer in lengths]
    return sum(ideal_step(one, trained_head=True) for one in each) / len(lengths)


def padding_share(size: TrainingSize, lengths: Lengths) -> float:
    """Returns the share of the decoder's rows that only fill up shorter samples."""
    rows = [size.visual_length + size.patches + tokens for tokens, _ in lengths]
    return 1 - sum(rows) / (max(rows) * len(rows))


def peers_of(size: TrainingSize, backbone: OpenClipLlama, batch: Batch) -> dict[str, Callable[[], Peer]]:
    """Returns the peers as functions, so that only one exists at a time."""
    method = own_step.method_of(size, backbone)
    bare = own_step.method_of(size, backbone, lm_head=False)
    inputs = peft_steps.llava_inputs(batch, size.patches)
    rank = peft_steps.rank_for(backbone, sum(parameter.numel() for parameter in bare.parameters()))

    def published(name: str, recompute: bool, attention: str) -> Callable[[], Peer]:
        return lambda: published_peer(name, backbone, method, batch, recompute=recompute, attention=attention)

    def ours(name: str, template: M2PT, rung: own_step.Rung) -> Callable[[], Peer]:
        return lambda: own_step.own_peer(name, backbone, template, batch, rung)

    def adapted(name: str, model_of: Callable[[OpenClipLlama, int], PeftModel], number: int) -> Callable[[], Peer]:
        return lambda: peft_steps.peft_peer(name, model_of(backbone, number), inputs)

    return {
        PUBLISHED: published(PUBLISHED, True, "eager"),
        CHARITABLE: published(CHARITABLE, False, "sdpa"),
        **{rung.name: ours(rung.name, method, rung) for rung in own_step.RUNGS},
        HEAD_FROZEN: ours(HEAD_FROZEN, bare, own_step.ALL_SHORTCUTS),
        **{lora_name(each): adapted(lora_name(each), peft_steps.lora_model, each) for each in (rank, LARGE_RANK)},
        PREFIX: adapted(PREFIX, peft_steps.prefix_model, size.textual_length),
    }


def measured(make: Callable[[], Peer], device: str, samples: int, repeats: int) -> dict[str, Any]:
    """Returns one peer's loss, samples per second and peak memory, or that it did not fit."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        peer = make()
        with torch.no_grad():
            loss = float(peer.loss())
        seconds = wall_seconds(peer.step, device, repeats)
    except torch.cuda.OutOfMemoryError:
        return {"out_of_memory": True}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"loss": loss, "samples_per_second": samples / seconds, "peak_bytes": peak}


def measure(
    size: TrainingSize, batches: tuple[int, ...], device: str, repeats: int, side: int, asked: QuestionSet
) -> dict[str, Any]:
    """Measures every batch size, kind of lengths and peer.

    Args:
        size: Shape of the model.
        batches: Samples in a batch.
        device: ``cuda``; ``cpu`` for trying this script out.
        repeats: Timed steps of each peer.
        side: Of the matrices whose product sets the floor.
        asked: Questions of the evaluation.
    """
    backbone = random_backbone(size, device, "bfloat16")
    rate = matmul_rate(device, side)
    cells = []
    for samples in batches:
        for kind, lengths_of in LENGTHS.items():
            own = replace(size, batch=samples)
            lengths = lengths_of(own)
            batch = batch_of(own, lengths, device)
            batch.pixel_values = batch.pixel_values.to(backbone.dtype)
            floor = samples / (ideal_flops(own, lengths) / rate)
            rows = {}
            for name, make in peers_of(own, backbone, batch).items():
                rows[name] = measured(make, device, samples, repeats)
                say(f"batch {samples}, {kind} lengths: {name}: {rows[name]}")
            share = padding_share(own, lengths)
            cells.append({"batch": samples, "lengths": kind, "padding_share": share, "floor": floor, "peers": rows})
    evaluation = evaluation_speed(size, backbone, device, repeats, asked)
    say(f"evaluation: {evaluation['questions_per_second']}")
    return {
        "size": asdict(size),
        "made_with": machine(),
        "matmul_flops_per_second": rate,
        "cells": cells,
        "evaluation": evaluation,
    }


def main() -> None:
    """Measures at the 7B shape and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--repeats", type=int, default=7)
    own = parser.parse_args()
    if not torch.cuda.is_available():
        raise BadInputError(
            "no GPU", where="benchmarks.training.gpu", expected="a CUDA device with about 80 GB of memory"
        )
    torch.backends.cuda.matmul.allow_tf32 = True  # of this process alone: tests call ``measure``
    content = measure(VICUNA_7B, tuple(own.batches), "cuda", own.repeats, MATMUL_SIDE, QuestionSet())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS, (json.dumps(content, indent=1) + "\n").encode())
    write_report()


if __name__ == "__main__":
    main()
