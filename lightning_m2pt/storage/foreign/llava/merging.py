"""A tuned model as one folder that transformers loads by itself."""

import json
import shutil
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import HEAD as HEAD_WEIGHT
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.backbones.whole_model_files import described_model
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE, check_adapter, read_tensors
from lightning_m2pt.storage.foreign.clip_layouts import TRANSFORMERS, VISUAL_PROJECTION, to_transformers
from lightning_m2pt.storage.foreign.library_names import OUR_LANGUAGE, OUR_TOWER, refuse_other_extent
from lightning_m2pt.storage.foreign.llava.beside import GENERATION, files_beside, is_carried
from lightning_m2pt.storage.foreign.llava.described import (
    DECODER,
    FIRST_OF_CONNECTOR,
    HEAD,
    PICTURE_TOKEN,
    SECOND_OF_CONNECTOR,
    TOWER,
    on_meta,
    picture_token,
    processor_settings,
)
from lightning_m2pt.storage.foreign.merged_tensors import merged_tensors, refuse_not_finite, refuse_unmergeable
from lightning_m2pt.storage.foreign.written import new_folder
from lightning_m2pt.system.atomic_files import cannot_write, free_bytes

TIED = "tie_word_embeddings"
INNER = "model."


def merge(
    adapter: Path, method: Method, backbone: Backbone, output: Path, left_out: AbstractSet[str], card: str
) -> list[Path]:
    """Writes the folder of a whole model: the base with the trained tensors in it.

    Args:
        adapter: The adapter's folder.
        method: Its method, not built.
        backbone: Its base, not loaded; it is afterwards.
        output: The folder that is made.
        left_out: Parts that are not merged, so that the base's own stay.
        card: Text of its ``README.md``.

    Returns:
        Its files.

    Raises:
        BadInputError: If adapter and base do not belong together, a part cannot be merged, or something stands there.
        EnvironmentFailure: If it cannot be written.
    """
    refuse_unmergeable(method, left_out)
    refuse_other_extent(backbone, "whole")
    if backbone.quantization is not None:
        raise BadInputError(
            f"the base's weights are packed ({backbone.quantization})",
            where="model.backbone.quantization",
            expected="a base in its own type: what is packed cannot take an update in",
            hint="m2pt export peft writes low-rank updates beside a base" if "lora" in method.name else "",
        )
    check_adapter(adapter, method, backbone.fingerprint(), backbone.former_fingerprint(), backbone.quantization)
    backbone.check_files()
    trained = read_tensors(adapter / TENSOR_FILE) if method.part_names() else {}
    with new_folder(output) as draft:
        backbone.load()
        changed = merged_tensors(backbone, method, trained, left_out)
        refuse_not_finite(changed)
        model = filled_model(backbone, changed)
        write_model(model, draft, output)
        copy_beside(backbone, draft)
        if isinstance(backbone, OpenClipLlama):
            write_processor(backbone, model.config.image_token_id, draft)
        (draft / "README.md").write_text(card)
        described_model(draft).check()
    return sorted(output.iterdir())


def filled_model(backbone: Backbone, changed: Mapping[str, Tensor]) -> Any:  # noqa: ANN401  (transformers' model)
    """Returns the library's whole model with a base's tensors and those that changed in their place.

    Args:
        backbone: Loaded.
        changed: By name in the backbone.
    """
    if isinstance(backbone, VisionLanguageModel):
        model = backbone.files.on_meta(backbone.dtype)
        tensors = whole_tensors(backbone, changed)
    else:
        assert isinstance(backbone, OpenClipLlama)
        model = on_meta(backbone)
        tensors = llava_tensors(backbone, changed, len(model.get_input_embeddings().weight))
    head = f"{HEAD}.weight"
    if model.config.tie_word_embeddings and not torch.equal(tensors[head], tensors[f"{DECODER}.embed_tokens.weight"]):
        untie(model)
    wanted = dict(model.state_dict())
    tensors = {name: tensor for name, tensor in tensors.items() if name in wanted}
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        raise RuntimeError(f"{missing[0]} of the library's model stands nowhere in the base")
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    return model


def untie(model: Any) -> None:  # noqa: ANN401
    """Lets a head that was trained by itself be another tensor than the word embeddings."""
    for config in (model.config, model.config.get_text_config()):
        setattr(config, TIED, False)
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))


def whole_tensors(backbone: VisionLanguageModel, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a model that the library has as one, by its own names."""
    state = backbone.language_model.state_dict()
    return {name: changed.get(f"{OUR_LANGUAGE}{name}", tensor) for name, tensor in state.items()}


def llava_tensors(backbone: OpenClipLlama, changed: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Returns the tensors of a LLaVA, by the names that transformers 5 has in memory.

    Args:
        backbone: Loaded.
        changed: By name in the backbone.
        rows: Of embeddings and head; those of the picture's token are zeros.
    """
    tensors = {name: changed.get(name, tensor) for name, tensor in backbone.state_dict().items()}
    vision = {name.removeprefix(OUR_TOWER): one for name, one in tensors.items() if name.startswith(OUR_TOWER)}
    in_place = to_transformers(vision, str(backbone.vision_weights))
    in_place.pop(VISUAL_PROJECTION)
    weight, bias = tensors["projector.weight"], tensors["projector.bias"]
    made = {f"{TOWER}.{name.removeprefix(TRANSFORMERS)}": one for name, one in in_place.items()}
    made |= {f"{FIRST_OF_CONNECTOR}.weight": weight, f"{FIRST_OF_CONNECTOR}.bias": bias}
    made |= {
        f"{SECOND_OF_CONNECTOR}.weight": torch.eye(len(bias), dtype=bias.dtype),
        f"{SECOND_OF_CONNECTOR}.bias": torch.zeros_like(bias),
    }
    for name, one in tensors.items():
        inside = name.removeprefix(OUR_LANGUAGE)
        if inside in (HEAD_WEIGHT, f"{INNER}embed_tokens.weight"):
            one = torch.cat([one, one.new_zeros(rows - len(one), one.shape[1])])
        if inside == HEAD_WEIGHT:
            made[HEAD_WEIGHT] = one
        elif inside != name:
            made[f"{DECODER}.{inside.removeprefix(INNER)}"] = one
    return made


def write_model(model: Any, draft: Path, output: Path) -> None:  # noqa: ANN401
    """Writes weights and configuration as the library does.

    Args:
        model: The library's.
        draft: Where.
        output: The name that the folder gets, for messages.

    Raises:
        EnvironmentFailure: If there is no room.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    needed, free = sum(each.nbytes for each in model.parameters()), free_bytes(draft)
    if free is not None and free < needed:
        raise cannot_write(output, needed, OSError("not enough room"))
    has_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(draft)
    except SafetensorError as error:
        raise cannot_write(output, needed, OSError(str(error))) from error
    finally:
        if has_bar:
            logging.enable_progress_bar()


def write_processor(backbone: OpenClipLlama, picture: int, draft: Path) -> None:
    """Writes tokenizer, image processor and how answers are made, in the library's form.

    Args:
        backbone: The base.
        picture: The token that stands for a picture's rows; it has no weights, and is never an answer.
        draft: Where.
    """
    import transformers

    settings = processor_settings(backbone)
    tokenizer, _, _ = picture_token(backbone)
    tokenizer.padding_side = "left"
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil.from_dict(settings),
        tokenizer=tokenizer,
        patch_size=backbone.shape.patch_size,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        image_token=PICTURE_TOKEN,
        num_additional_image_tokens=backbone.shape.vision_rows_in_front,
    ).save_pretrained(draft)
    own = backbone.language_folder / GENERATION
    content = read_json(own, "model.backbone.language_model") if own.is_file() else {}
    content.pop("_from_model_config", None)
    (draft / GENERATION).write_text(json.dumps({**content, "suppress_tokens": [picture]}, indent=2) + "\n")


def copy_beside(backbone: Backbone, draft: Path) -> None:
    """Copies what stands beside a base's weights: tokenizer, image processor, licence; not its README, and no code.

    Args:
        backbone: The base.
        draft: Where to; what is written there already stays, but for how answers are made.
    """
    for path in files_beside(backbone):
        is_free = path.name == GENERATION or not (draft / path.name).exists()
        if is_free and is_carried(path):
            shutil.copyfile(path, draft / path.name)
