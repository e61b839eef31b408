"""An adapter that PEFT wrote as an adapter of this project, for a base that is there."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.weight_files import opened
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import PUBLISHED, Template
from lightning_m2pt.storage.adapter_base import adapter_base_of
from lightning_m2pt.storage.adapter_folder import save_adapter
from lightning_m2pt.storage.adapter_template import template_content
from lightning_m2pt.storage.foreign.peft.imported_card import imported_card
from lightning_m2pt.storage.foreign.peft.low_rank import translated_low_rank
from lightning_m2pt.storage.foreign.peft.names import LN_TUNING, LORA, PREFIX_TUNING, PROMPT_TUNING
from lightning_m2pt.storage.foreign.peft.norms import translated_norms
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder, read_peft_folder, shown
from lightning_m2pt.storage.foreign.peft.soft_prompts import translated_prompt
from lightning_m2pt.storage.foreign.peft.translation import Translation
from lightning_m2pt.storage.foreign.weights import origin_of
from lightning_m2pt.storage.foreign.written import new_folder, refuse_not_finite
from lightning_m2pt.visible_text import counted, visible

TRANSLATIONS: Mapping[str, Callable[[PeftFolder, Backbone], Translation]] = {
    LN_TUNING: translated_norms,
    LORA: translated_low_rank,
    PREFIX_TUNING: translated_prompt,
    PROMPT_TUNING: translated_prompt,
}
ADAPTER = "adapter"
NO_TEMPLATE = (
    "which template it was trained with, its files do not say: an evaluation takes that of its sets, and whoever loads "
    "it in a program needs --template NAME here"
)


def import_peft(folder: Path, output: Path, backbone: Backbone, template: Template | None = None) -> list[str]:
    """Makes an adapter of one that PEFT wrote.

    Args:
        folder: PEFT's, with ``adapter_config.json`` and ``adapter_model.safetensors``.
        output: The folder that is made, with ``adapter`` in it.
        backbone: The base; its weights are not loaded.
        template: The conversation form that it was trained with, which its files do not say; None leaves it unsaid.

    Returns:
        What its files do not say, or was left out.

    Raises:
        BadInputError: If a file is damaged, has no form here, or does not fit the base.
    """
    peft = read_peft_folder(folder)
    backbone.build_on_meta()
    made = TRANSLATIONS[peft.kind](peft, backbone)
    method = made.method
    method.check(backbone.shape)
    method.build(backbone, torch.Generator())
    method.built_shapes = {name: tuple(each.shape) for name, each in method.named_tensors().items()}
    tensors = translated_tensors(peft, made, method.built_shapes)
    card = imported_card(peft, method.name)
    digest = "" if template is None or template in PUBLISHED else backbone.processor().bound(template).digest
    with new_folder(output) as draft:
        save_adapter(
            draft / ADAPTER,
            method,
            adapter_base_of(backbone),
            card,
            template=None if template is None else template.name,
            template_sha256=digest,
            content_of_template=None if template is None else template_content(template),
            tensors=tensors,
            converted_from=origin_of(peft.tensor_file),
        )
    unsaid = [NO_TEMPLATE] if template is None else []
    return [*base_notes(peft, backbone), *made.notes, *unsaid]


def translated_tensors(peft: PeftFolder, made: Translation, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Returns the method's tensors, (as built) float32, with the file's numbers.

    Raises:
        BadInputError: If a tensor is of another size, or not finite.
        RuntimeError: If a translation forgot a tensor.
    """
    forgotten = {*peft.stored} - {*made.sources.values(), *made.unused}
    if forgotten or shapes.keys() != made.sources.keys():
        raise RuntimeError(
            f"a translation is not whole: {counted(sorted(forgotten | (shapes.keys() ^ made.sources.keys())))}"
        )
    for name, shape in shapes.items():
        stored = peft.stored[made.sources[name]].shape
        if stored not in (shape, shape[1:] if shape[0] == 1 else shape):
            raise BadInputError(
                f"{counted([made.sources[name]])} is {list(stored)}",
                where=str(peft.tensor_file),
                expected=f"{list(shape)} on this base",
                hint="was it tuned on another one?",
            )
    tensors: dict[str, Tensor] = {}
    for path in dict.fromkeys(one.file for one in peft.stored.values()):
        with opened(path) as file:
            for name, shape in shapes.items():
                if peft.stored[made.sources[name]].file == path:
                    tensors[name] = file.get_tensor(made.sources[name]).float().reshape(shape)
    refuse_not_finite({made.sources[name]: tensor for name, tensor in tensors.items()}, str(peft.tensor_file))
    return tensors


def said_base(peft: PeftFolder) -> str:
    """Returns what an adapter says of its base, fit to show."""
    base = peft.config.get("base_model_name_or_path")
    return shown(base) if base else "a base that it does not name"


def base_notes(peft: PeftFolder, backbone: Backbone) -> list[str]:
    """Returns a sentence about what an adapter calls its base, unless that is what this base is called.

    Nobody follows the name: it is compared, letter by letter.
    """
    base, own = peft.config.get("base_model_name_or_path"), backbone.readable_name()
    if isinstance(base, str) and base and base.rstrip("/").rpartition("/")[2] == own.rstrip("/").rpartition("/")[2]:
        return []
    return [
        f"it says that it was trained on {said_base(peft)}; this base is {visible(own)!r}, and whether that is the "
        "same, only you know"
    ]
