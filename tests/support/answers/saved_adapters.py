"""Adapters that nobody has tuned, on disk, and what their models answer where each question is asked by itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.methods.base import Method
from lightning_m2pt.runs.loaded_model import Asked, LoadedModel
from lightning_m2pt.storage.adapter_base import adapter_base_of
from lightning_m2pt.storage.adapter_folder import save_adapter
from lightning_m2pt.tuning.module import TuningModule

TEMPLATE = "vicuna_v1"
TOKENS = 6
SIZE = 0.1


def write_pictures(folder: Path, number: int = 3) -> list[Path]:
    """Writes pictures of random colours and sizes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place in range(number):
        drawn = numpy.random.default_rng(place).integers(0, 256, (30 + 7 * place, 40, 3), numpy.uint8)
        paths.append(folder / f"{place}.png")
        Image.fromarray(drawn).save(paths[-1])
    return paths


def asked_of(pictures: Sequence[Path]) -> list[tuple[Path, str]]:
    """Returns several questions about every picture, in turn."""
    texts = ("What is this?", "Is there a red square? Please answer yes or no.", "Which number is it?")
    return [(picture, text) for text in texts for picture in pictures]


def save_invented(
    folder: Path, method: Method, questions: Sequence[tuple[Path, str]], backbone: Backbone | None = None, seed: int = 0
) -> list[str]:
    """Saves an adapter of random numbers and returns its model's answers, each question read by itself.

    Args:
        folder: The adapter's.
        method: Not built.
        questions: Pictures and texts.
        backbone: Not loaded; None makes the embedded one.
        seed: Of the random numbers.
    """
    model = TuningModule(backbone or embedded_backbone("testbed"), method)
    model.configure_model()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.add_(
                SIZE * tensor.std().nan_to_num(0.1).clamp(0.05) * torch.randn(tensor.shape, generator=generator)
            )
    if method.part_names():
        base = model.backbone
        save_adapter(
            folder,
            method,
            replace(adapter_base_of(base), name="a base", quantization=None),
            "",
            template=TEMPLATE,
        )
    asking = LoadedModel(model, template_named(TEMPLATE), torch.device("cpu"))
    asked = [Asked(text, numpy.asarray(open_image(picture)), "") for picture, text in questions]
    return [asking.answers([one], TOKENS)[0] for one in asked]
