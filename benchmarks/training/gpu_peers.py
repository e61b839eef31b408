"""The published step, ours and peft's on a GPU, on one set of frozen weights and one batch of equal lengths.

bf16 frozen weights, prompts and projector in float32, TF32 allowed as the published script has it. Peers run one after
another, since only then is the peak memory a peer's own; times are wall time around synchronised steps.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel

from benchmarks.training import own_step, peft_steps
from benchmarks.training.gpu_setting import Setting
from benchmarks.training.inputs import batch_of, random_backbone
from benchmarks.training.lengths import fixed_lengths, ideal_flops
from benchmarks.training.peer import Peer
from benchmarks.training.peers import CHARITABLE, HEAD_FROZEN, LARGE_RANK, PREFIX, PUBLISHED, lora_name
from benchmarks.training.published_step import published_peer
from benchmarks.training.sizes import TrainingSize
from benchmarks.training.timing import wall_seconds
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.m2pt import M2PT


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


def measure_peers(setting: Setting, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measures every peer with the smallest batch.

    Args:
        setting: Shape, device, repeats.
        keep: Is given each peer's row as soon as it is measured.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    size = replace(setting.size, batch=setting.batches[0])
    backbone = random_backbone(size, setting.device, "bfloat16")
    lengths = fixed_lengths(size)
    batch = batch_of(size, lengths, setting.device)
    batch.pixel_values = batch.pixel_values.to(backbone.dtype)
    flops = ideal_flops(size, lengths, trained_head=True)
    for name, make in peers_of(size, backbone, batch).items():
        row = measured(make, setting.device, size.batch, setting.repeats)
        keep({"step": name, "batch": size.batch, "lengths": "fixed", "ideal_flops": flops, **row})
