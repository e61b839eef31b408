"""How much memory training takes, by arithmetic, before any weight is loaded.

What autograd keeps of a layer follows from what is trained. A frozen linear layer keeps no input. Per row, a frozen
Llama layer keeps both norms' inputs in float32, queries, keys, values and the attention's output, and three widths of
the MLP (gate, its activation, up); for Vicuna-7B in bfloat16 that is 16 times the model's width. Flash or
memory-efficient attention is assumed: the square of the sequence length is never kept, but for shorter sequences in
bfloat16 on a CPU, whose attention is computed by plain products.
"""

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.methods.base import Place
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.plain_attention import MOST_KEPT, kept_bytes

FLOAT32 = 4
TRAINED_COPIES = 4
"""Float32 numbers for each trained one: itself, its gradient and AdamW's two moments."""
USABLE_SHARE = 0.9
"""Of a device's memory; the rest is for gradients in flight, kernels' workspaces and what the allocator wastes."""

USUAL_HEAD_WIDTH = 64
"""Of a tower's heads, whose number a shape does not say."""

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Holds the container's limit, or no number."""

VISION_PLACES: frozenset[Place] = frozenset(
    {"pixels", "visual prompts", "vision tower's linear layers", "vision tower's norms", "vision tower's other tensors"}
)


@dataclass(frozen=True)
class MicroBatchSize:
    """The largest micro-batch of an epoch.

    Attributes:
        samples: Its samples.
        text_rows: Tokens of its longest text, the picture not counted.
        supervised_rows: Rows with a label, over all samples.
        tiles: How often the tower runs for a sample, or its patches where pictures have grids of their own; on the
            average of all samples, rounded up.
        picture_rows: Rows of a sample's pictures in the decoder with the tokens around them, prompts not counted; None
            for one picture of one tile.
    """

    samples: int
    text_rows: int
    supervised_rows: int
    tiles: int = 1
    picture_rows: int | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one device beyond what a process has before it loads anything.

    Loading takes no more: each tensor goes from the mapped file to where it stays.

    Attributes:
        weights: The frozen model, or the device's share of it.
        trained: Trained tensors in float32 with gradient and AdamW's moments, or the device's share of these.
        activations: What the forward pass keeps for the backward pass.
        recomputed_activations: The same with activation checkpointing.
        logits: Logits on supervised rows, their copies and gradients.
        gathered: What is whole of a shared-out model for the moment, beside the share.
    """

    weights: int
    trained: int
    activations: int
    recomputed_activations: int
    logits: int
    gathered: int = 0

    def total(self, *, recomputes: bool) -> int:
        """Returns the sum of all parts."""
        activations = self.recomputed_activations if recomputes else self.activations
        return self.weights + self.gathered + self.trained + activations + self.logits


def estimated_memory(
    shape: BackboneShape,
    attachment: Attachment,
    places: Collection[Place],
    parameters: tuple[int, int],
    dtype: torch.dtype,
    micro_batch: MicroBatchSize,
    base_bytes: int | None = None,
    hidden_width: int = 0,
    *,
    on_cpu: bool = False,
) -> MemoryEstimate:
    """Estimates a training step.

    Args:
        shape: The backbone's sizes.
        attachment: What the method puts in; only lengths are read, so meta tensors will do.
        places: Where the method changes the backbone.
        parameters: Numbers of the frozen model, and trained numbers.
        dtype: Type of the frozen weights.
        micro_batch: The largest one.
        base_bytes: What the frozen model takes where that is not ``dtype`` for each number, as if it is quantised.
        hidden_width: Numbers of a row in the connector's hidden layers; 0 of a linear one.
        on_cpu: Whether it trains on a CPU, where attention in bfloat16 keeps shares of every row in every key.
    """
    base, trained = parameters
    size = dtype.itemsize
    # Without a gradient in it, a tower or decoder keeps nothing.
    vision_layers = shape.vision_layers - 1 if VISION_PLACES & set(places) else 0
    text_layers = 0 if set(places) <= {"head"} else shape.text_layers
    prompts = 0 if attachment.visual_prompts is None else attachment.visual_prompts.length
    rows_of_a_tile = shape.patches + shape.vision_rows_in_front + prompts
    if shape.tiles_are_patches and micro_batch.picture_rows is not None:
        rows_of_a_tile = 1
    vision_rows = micro_batch.samples * micro_batch.tiles * rows_of_a_tile
    picture_rows = shape.connected_patches if micro_batch.picture_rows is None else micro_batch.picture_rows
    image_rows = picture_rows + attachment.rows_beside_patches(has_cls=shape.vision_rows_in_front > 0)
    text_rows = micro_batch.samples * (micro_batch.text_rows + image_rows + attachment.rows_before_text())
    vision_layer = vision_rows * vision_layer_bytes(shape, places, size)
    text_layer = text_rows * text_layer_bytes(shape, attachment, places, size)
    if on_cpu and dtype == torch.bfloat16:
        text_layer += kept_shares(micro_batch.samples, shape.text_heads, text_rows)
        if prompts:  # without them a tower's attention is its library's
            heads = max(1, shape.vision_width // USUAL_HEAD_WIDTH)
            pictures = micro_batch.samples if rows_of_a_tile == 1 else vision_rows // rows_of_a_tile
            vision_layer += kept_shares(pictures, heads, vision_rows)
    inputs = vision_layers * vision_rows * shape.vision_width * size + text_layers * text_rows * shape.text_width * size
    outside = text_rows * shape.text_width * (size + FLOAT32) if text_layers else 0  # embeddings and the final norm
    outside += micro_batch.samples * image_rows * hidden_width * hidden_bytes(places, size)
    largest_layer = max(vision_layer if vision_layers else 0, text_layer if text_layers else 0)
    return MemoryEstimate(
        weights=base * size if base_bytes is None else base_bytes,
        trained=trained * TRAINED_COPIES * FLOAT32,
        activations=vision_layers * vision_layer + text_layers * text_layer + outside,
        recomputed_activations=inputs + largest_layer + outside,
        logits=micro_batch.supervised_rows * shape.vocabulary_size * logit_bytes(size),
    )


def kept_shares(sequences: int, heads: int, rows: int) -> int:
    """Returns the bytes that attention by plain products keeps in a layer; a smaller batch may keep the bound.

    Args:
        sequences: How many.
        heads: Of a layer.
        rows: Of all sequences together.
    """
    return min(MOST_KEPT, kept_bytes(sequences, heads, rows // sequences, rows // sequences))


def hidden_bytes(places: Collection[Place], size: int) -> int:
    """Returns what the connector keeps of a number of a hidden layer: its activation's input, and output if trained."""
    if "projector" in places:
        return 2 * FLOAT32
    return size if VISION_PLACES & set(places) else 0


def text_layer_bytes(shape: BackboneShape, attachment: Attachment, places: Collection[Place], size: int) -> int:
    """Returns what a decoder layer keeps of one row.

    Grouped keys and values are repeated for every head where learned ones stand before them, and a mask with them.
    """
    attended = shape.text_heads * shape.text_head_width
    grouped = shape.text_key_value_heads * shape.text_head_width
    keys = attended if attachment.rows_before_text() else grouped
    kept = size * (2 * attended + 2 * keys + 3 * shape.text_mlp_width) + 2 * FLOAT32 * shape.text_width
    if "language model's norms" in places:
        kept += 2 * FLOAT32 * shape.text_width
    if "language model's sublayer outputs" in places:
        kept += 2 * FLOAT32 * shape.text_width
    if "language model's linear layers" in places:
        kept += linear_inputs(5 * shape.text_width + attended + shape.text_mlp_width)
    return kept


def vision_layer_bytes(shape: BackboneShape, places: Collection[Place], size: int) -> int:
    """Returns what a block of the tower keeps of one row.

    Both norms' inputs, the joint projection of which queries are a part, keys and values behind the prompts', the
    attention's output, and the MLP's one or two widths, or three of a gated one.
    """
    widths = 3 if shape.vision_gated_mlp else 2 if shape.vision_quick_gelu else 1
    kept = size * (8 * shape.vision_width + widths * shape.vision_mlp_width)
    if shape.vision_gated_mlp:
        kept += 2 * FLOAT32 * shape.vision_width
    if "vision tower's norms" in places:
        kept += 2 * FLOAT32 * shape.vision_width
    if "vision tower's linear layers" in places:
        kept += linear_inputs((4 if shape.vision_gated_mlp else 3) * shape.vision_width + shape.vision_mlp_width)
    return kept


def linear_inputs(widths: int) -> int:
    """Returns what adapted linear layers keep of their inputs: float32, and as much again for low-rank dropout.

    That much is an upper bound: fully trained layers share inputs and drop nothing.
    """
    return 2 * FLOAT32 * widths


def logit_bytes(size: int) -> int:
    """Returns what one logit costs: itself, a float32 copy if it is narrower, its log-softmax and their gradients."""
    wide = max(size, FLOAT32)
    copy = wide if size < FLOAT32 else 0
    return size + copy + 2 * wide + size


def device_memory(device: torch.device, processes: int = 1) -> int:
    """Returns the bytes that training may take on a device: all of a GPU's, or what is free for a CPU process.

    Of a GPU all and not what is free, and of a CPU's memory its part of all where several processes share it, so that
    every process of a run decides alike.

    Args:
        device: The device.
        processes: How many of a run are on this machine.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if processes > 1:
        return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), container_memory(CONTAINER)) // processes
    return available_memory()


def container_memory(container: Path) -> int:
    """Returns the limit of the container that this process is in; more than any machine has where there is none."""
    try:
        return int(container.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return sys.maxsize


def available_memory(information: Path = Path("/proc/meminfo"), container: Path = CONTAINER) -> int:
    """Returns the bytes of main memory that can be had without swapping; where the kernel does not say, all of it.

    Args:
        information: The kernel's figures, which inside a container are those of the whole machine.
        container: Holds the container's limit, or no number.
    """
    try:
        lines = information.read_text(encoding="utf-8").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(available, container_memory(container))
