"""Bases whose costs on several devices are tabled: numbers of their published ``config.json``, and nothing else."""

from dataclasses import dataclass

import torch

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.methods.base import Place
from lightning_m2pt.parallel.costs import Model, Unit
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize, estimated_memory

BFLOAT16 = 2
TEXTUAL, VISUAL = 10, 20
"""Prompt rows, as the paper has them for 7B."""
TEXT_TOKENS, SUPERVISED = 300, 30
"""Of a sample, as on docs/speed.md."""
PLACES: frozenset[Place] = frozenset({"visual prompts", "textual prompts", "projector"})


@dataclass(frozen=True)
class Decoder:
    """A Llama-form language model.

    Attributes:
        name: What the tables call it.
        layers: Decoder layers.
        width: ``hidden_size``.
        hidden: ``intermediate_size``.
        heads: ``num_attention_heads``, 128 numbers wide each.
        key_value_heads: ``num_key_value_heads``.
        vocabulary: ``vocab_size``.
    """

    name: str
    layers: int
    width: int
    hidden: int
    heads: int
    key_value_heads: int
    vocabulary: int
    head_width: int = 128

    @property
    def layer_numbers(self) -> int:
        """Numbers of one layer: queries, output, keys, values, three layers of the MLP, two norms."""
        attended, grouped = self.heads * self.head_width, self.key_value_heads * self.head_width
        return self.width * (2 * attended + 2 * grouped + 3 * self.hidden + 2)


@dataclass(frozen=True)
class Tower:
    """open_clip's ViT-L/14, whose last block never runs."""

    layers: int = 24
    width: int = 1024
    patch_size: int = 14
    patches: int = 256

    @property
    def block_numbers(self) -> int:
        """Numbers of one block: four square layers, an MLP of four times the width, biases and two norms."""
        return 12 * self.width**2 + 13 * self.width

    @property
    def other_numbers(self) -> int:
        """Numbers outside of blocks: patches, class row, positions, norms in front and behind."""
        return self.width * (3 * self.patch_size**2 + 1 + self.patches + 1 + 4)


TOWER = Tower()
DECODERS = (
    Decoder("Vicuna-7B", 32, 4096, 11008, 32, 32, 32000),
    Decoder("Vicuna-13B", 40, 5120, 13824, 40, 40, 32000),
    Decoder("Yi-34B", 60, 7168, 20480, 56, 8, 64000),
    Decoder("Llama-2-70B", 80, 8192, 28672, 64, 8, 32000),
)


def model_of(decoder: Decoder) -> Model:
    """Returns a base in bfloat16 with M2PT 10/20: used vision blocks, embedding, decoder layers and head are units."""
    projector = TOWER.width * decoder.width + decoder.width
    embedding = Unit(BFLOAT16 * decoder.vocabulary * decoder.width, has_backward=False)
    head = Unit(embedding.size)
    units = [Unit(BFLOAT16 * TOWER.block_numbers)] * (TOWER.layers - 1) + [embedding]
    units += [Unit(BFLOAT16 * decoder.layer_numbers)] * decoder.layers + [head]
    kept = TOWER.block_numbers + TOWER.other_numbers + projector + decoder.width
    prompts = decoder.layers * TEXTUAL * decoder.width + TOWER.layers * VISUAL * TOWER.width
    return Model(tuple(units), BFLOAT16 * kept, prompts + projector)


def base_bytes(model: Model) -> int:
    """Returns the bytes of the whole base."""
    return sum(unit.size for unit in model.units) + model.kept


def activation_bytes(decoder: Decoder, samples: int) -> int:
    """Returns what a micro-batch of samples keeps with recomputed activations, logits included."""
    shape = BackboneShape(
        vision_layers=TOWER.layers,
        vision_width=TOWER.width,
        patches=TOWER.patches,
        patch_size=TOWER.patch_size,
        image_size=224,
        text_layers=decoder.layers,
        text_width=decoder.width,
        text_heads=decoder.heads,
        text_key_value_heads=decoder.key_value_heads,
        text_head_width=decoder.head_width,
        vocabulary_size=decoder.vocabulary,
        maximum_positions=4096,
        vision_mlp_width=4 * TOWER.width,
        vision_quick_gelu=True,
        text_mlp_width=decoder.hidden,
    )
    micro_batch = MicroBatchSize(samples, TEXT_TOKENS, samples * SUPERVISED)
    estimate = estimated_memory(shape, Attachment(), PLACES, (0, 0), torch.bfloat16, micro_batch)
    return estimate.total(recomputes=True)
