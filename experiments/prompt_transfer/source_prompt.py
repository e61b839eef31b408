"""A trained pixel prompt, read from the folder of a run or of an adapter; no model is made for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.bound_template import labelled
from lightning_m2pt.methods.pixel_prompting import PIXEL_PROMPT
from lightning_m2pt.prompts.pixel_prompt import (
    Interpolation,
    border_width,
    refuse_other_normalisation,
    resized_delta,
)
from lightning_m2pt.runs.adapter_settings import TOGETHER, is_plain
from lightning_m2pt.runs.loading import evaluated_adapter
from lightning_m2pt.runs.model_of_run import model_of_run
from lightning_m2pt.storage import run_record
from lightning_m2pt.storage.adapter_folder import (
    CONFIG_FILE,
    CONVERTED_FROM,
    TEMPLATE_DIGEST,
    TENSOR_FILE,
    read_adapter_config,
    read_tensors,
)
from lightning_m2pt.storage.adapter_manifest import check_tensor_file
from lightning_m2pt.storage.run_record import is_unfinished, read_run_record
from lightning_m2pt.system.tensor_hashes import hash_tensors

DELTA = "pixel_prompt.delta"
"""How a prompt's tensor is named in an adapter of its own, and how its name ends in one of several methods."""


@dataclass(frozen=True)
class SourcePrompt:
    """A pixel prompt and what is known of the base it was trained on.

    Attributes:
        folder: The folder it was named by.
        adapter: The adapter's folder.
        delta: (3, S, S) float32, the learned numbers.
        arguments: The method's arguments: border, compose, space, fill, clip.
        others: Names of the methods that were trained together with it, and do not travel.
        base: Readable name of the base.
        base_fingerprint: Fingerprint of the base.
        template: Label of the template it was trained in; empty where the adapter does not say it.
        is_converted: Whether nobody tuned it here: its base is the one it was made for, not the one it was trained on.
    """

    folder: Path
    adapter: Path
    delta: Tensor
    arguments: Mapping[str, Any]
    others: tuple[str, ...]
    base: str
    base_fingerprint: str
    template: str
    is_converted: bool

    @property
    def is_of_run(self) -> bool:
        """Whether it was named by a run's folder, which knows its base."""
        return self.folder != self.adapter

    @property
    def side(self) -> int:
        """Side of the picture it was trained for."""
        return int(self.delta.shape[-1])

    @property
    def sha256(self) -> str:
        """Hash of the learned numbers."""
        return hash_tensors({DELTA: self.delta})


def read_prompt(folder: Path) -> SourcePrompt:
    """Reads the pixel prompt of a run, the adapter that the run is evaluated with, or of an adapter's folder.

    Args:
        folder: The run's folder, or the adapter's.

    Raises:
        BadInputError: If the folder is neither, its method has no pixel prompt, or the files are damaged.
    """
    is_run = (folder / run_record.CONFIG_FILE).is_file()
    adapter = evaluated_adapter(folder) if is_run else folder
    config, path = read_adapter_config(adapter), adapter / CONFIG_FILE
    names, arguments = str(config.get("peft_type")).lower().split(TOGETHER), config.get("arguments")
    if PIXEL_PROMPT not in names:
        raise BadInputError(
            f"the method {'+'.join(names)} has no pixel prompt",
            where=str(path),
            expected="a run, or an adapter, of the method pixel_prompt",
            hint="rows of prompts and weights belong to their base: m2pt evaluate --run DIR",
        )
    own = arguments if len(names) == 1 else arguments.get(PIXEL_PROMPT) if isinstance(arguments, dict) else None
    if not isinstance(own, dict) or not all(is_plain(name, value) for name, value in own.items()):
        raise BadInputError(
            "no arguments of a pixel prompt in here", where=str(path), expected="names and plain values"
        )
    check_tensor_file(adapter / TENSOR_FILE, config)
    return SourcePrompt(
        folder,
        adapter,
        delta_of(adapter / TENSOR_FILE),
        own,
        tuple(name for name in names if name != PIXEL_PROMPT),
        str(config.get("base_model_name_or_path")),
        str(config.get("base_fingerprint")),
        labelled(str(config["template"]), config.get(TEMPLATE_DIGEST)) if config.get("template") else "",
        CONVERTED_FROM in config,
    )


def delta_of(path: Path) -> Tensor:
    """Returns the learned numbers of an adapter's file.

    Raises:
        BadInputError: If there are none, or they are no square picture of finite float32 numbers.
    """
    tensors = read_tensors(path)
    found = [tensor for name, tensor in tensors.items() if name == DELTA or name.endswith(f".{DELTA}")]
    if len(found) != 1:
        raise BadInputError(f"{len(found)} tensors end in {DELTA}", where=str(path), expected="one")
    (delta,) = found
    if delta.dim() != 3 or delta.shape[0] != 3 or delta.shape[1] != delta.shape[2] or delta.dtype != torch.float32:
        raise BadInputError(
            f"{DELTA} is {delta.dtype} of shape {tuple(delta.shape)}",
            where=str(path),
            expected="torch.float32 of shape (3, S, S)",
        )
    if not bool(torch.isfinite(delta).all()):
        raise BadInputError(f"{DELTA} holds numbers that are not finite", where=str(path), expected="finite numbers")
    return delta


def read_prompts(folders: Sequence[Path]) -> list[SourcePrompt]:
    """Reads prompts that are used as their mean.

    Raises:
        BadInputError: If one cannot be read, stands there twice, or they compose pictures differently.
    """
    prompts = [read_prompt(folder) for folder in folders]
    first = prompts[0]
    for number, other in enumerate(prompts[1:], start=1):
        differing = sorted(key for key in {*first.arguments, *other.arguments} if not same(first, other, key))
        if differing:
            key = differing[0]
            raise BadInputError(
                f"{key} is {other.arguments.get(key)} here and {first.arguments.get(key)} in {first.folder}",
                where=str(other.folder),
                expected="prompts that compose pictures alike: their mean is taken",
            )
        if any(earlier.sha256 == other.sha256 for earlier in prompts[:number]):
            raise BadInputError(
                "this prompt is there twice",
                where=f"command line: --prompt {other.folder}",
                expected="each prompt once: their mean is taken",
            )
    return prompts


def same(first: SourcePrompt, second: SourcePrompt, key: str) -> bool:
    """Tells whether two prompts have the same value of an argument."""
    return bool(first.arguments.get(key) == second.arguments.get(key))


def placed_delta(prompts: Sequence[SourcePrompt], side: int, border: float, interpolation: Interpolation) -> Tensor:
    """Returns the mean of prompts for pictures of a target's size, 0 inside the border.

    Args:
        prompts: One or several.
        side: Side T of the target's picture.
        border: Width of the border as a share of the side.
        interpolation: How a prompt is resized; not antialiased.

    Returns:
        (3, T, T) float32.

    Raises:
        BadInputError: If the border is no pixel wide there, or leaves nothing inside.
    """
    mean = torch.stack([resized_delta(prompt.delta, side, interpolation) for prompt in prompts]).mean(dim=0)
    return mean * border_of(side, border)


def border_of(side: int, border: float) -> Tensor:
    """Returns (1, T, T) float32, 1 in the border and 0 inside."""
    width = border_width(side, border)
    mask = torch.ones(1, side, side)
    mask[:, width : side - width, width : side - width] = 0
    return mask


def random_delta(like: Tensor, border: float, seed: int) -> Tensor:
    """Returns normal numbers in the border, of the same Euclidean norm as a prompt.

    Args:
        like: (3, T, T), the prompt.
        border: Width of the border as a share of the side.
        seed: Decides the draw.
    """
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    drawn *= border_of(like.shape[-1], border)
    return drawn * (torch.linalg.vector_norm(like.double()) / torch.linalg.vector_norm(drawn.double())).float()


def refuse_other_units(prompt: SourcePrompt, target: Backbone) -> None:
    """Refuses a prompt behind the normalisation of one base on a base with another one.

    Args:
        prompt: The prompt.
        target: The target base; nothing is loaded.

    Raises:
        BadInputError: If its numbers are in units of deviations that are not the target's, or of nobody knows what.
    """
    if prompt.arguments.get("space") != "normalised":
        return
    if prompt.base_fingerprint in (target.fingerprint(), target.former_fingerprint()):
        return
    if not prompt.is_of_run:
        raise BadInputError(
            "the prompt is in units of its base's deviations, and an adapter alone does not say which they are",
            where=str(prompt.adapter),
            expected="the run's folder, whose configuration names the base",
            hint="a prompt of space: pixels is the same on every base",
        )
    own = model_of_run(prompt.folder).backbone
    refuse_other_normalisation("normalised", own.pixel_normalisation(), target.pixel_normalisation())


def sentences_about(
    prompts: Sequence[SourcePrompt], fingerprints: Sequence[str], templates: Sequence[str]
) -> list[str]:
    """Returns what should be known about prompts on a target, one sentence each.

    Args:
        prompts: The prompts.
        fingerprints: Today's and the former fingerprint of the target base.
        templates: Labels of the templates that the target is asked in.
    """
    sentences = []
    for prompt in prompts:
        said = f"prompt {prompt.folder}"
        if prompt.is_converted:
            sentences.append(f"{said}: imported, so it is not known on which base and in which template it was trained")
        elif prompt.base_fingerprint in fingerprints:
            sentences.append(f"{said}: trained on this very base, so this is no transfer")
        if prompt.others:
            sentences.append(f"{said}: trained together with {', '.join(prompt.others)}, which stays behind")
        others = sorted({template for template in templates if template != prompt.template})
        if others and prompt.template:
            sentences.append(f"{said}: trained in the template {prompt.template}, asked in {', '.join(others)} here")
        if is_unfinished(read_run_record(prompt.adapter.parent)):
            sentences.append(f"{said}: its training was stopped before its last step")
    if len(prompts) > 1:
        sentences.append(f"the mean of {len(prompts)} prompts is used, each resized to the target's picture first")
    return sentences
