"""An M2PT adapter and its base as a checkpoint that M2PT's published code loads.

The published evaluation reads the vision tower's prompts from the second of two shards, by its name. So there are two:
the word embedding and as many of the decoder's layers as ten gigabytes hold, and everything else.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.weight_files import stored_in_folder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_folder import check_adapter, read_tensors
from lightning_m2pt.storage.foreign.clip_layouts import (
    OPEN_CLIP,
    POSITION_IDS,
    TRANSFORMERS,
    VISUAL_PROJECTION,
    sizes_of,
    to_transformers,
)
from lightning_m2pt.storage.foreign.published_config import LARGE_CLIP, LARGE_CLIP_336, published_config
from lightning_m2pt.storage.foreign.published_import import PUBLISHED_CONFIG, as_json, tokenizer_files
from lightning_m2pt.storage.foreign.published_parts import EMBEDDING, HEAD, INDEX, PROJECTOR, TEXTUAL, VISUAL
from lightning_m2pt.storage.foreign.recognition import LLAVA_TOWER
from lightning_m2pt.storage.foreign.sources import read_source
from lightning_m2pt.storage.foreign.written import new_folder

SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
FIRST_SHARD_BYTES = 10 * 10**9
LAYERS = "model.layers."
PUBLISHED_ARGUMENTS = {
    "visual_layers": "all",
    "textual_layers": "all",
    "visual_depth": "deep",
    "textual_depth": "deep",
    "visual_position": "before_cls",
}
"""What the published code does, and cannot do otherwise."""


def export_checkpoint(adapter: Path, method: Method, backbone: Backbone, output: Path) -> list[Path]:
    """Writes a checkpoint's folder.

    Args:
        adapter: The adapter's folder.
        method: Its method, not built.
        backbone: Its base, not loaded.
        output: The folder that is made.

    Returns:
        Its files.

    Raises:
        BadInputError: If adapter and base do not belong together, or the published code cannot express them.
        EnvironmentFailure: If it cannot be written.
    """
    if not isinstance(backbone, OpenClipLlama):
        raise BadInputError(
            f"the published code knows no {type(backbone).__name__}",
            where="model.backbone",
            expected="OpenClipLlama: a CLIP tower, a linear projector and a Llama",
        )
    language = read_json(backbone.language_folder / "config.json", "model.backbone.language_model")
    refuse_what_is_not_published(method, language, adapter)
    fingerprints = backbone.fingerprint(), backbone.former_fingerprint()
    check_adapter(adapter, method, *fingerprints)
    backbone.check_files()
    tensors = published_tensors(read_tensors(adapter / "adapter_model.safetensors"), backbone)
    shards = in_two_shards(tensors)
    kept = backbone.language_folder.parent / PUBLISHED_CONFIG
    config = kept.read_bytes() if kept.is_file() else as_json(made_config(backbone, language))
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    total = sum(tensor.nbytes for tensor in tensors.values())
    with new_folder(output) as draft:
        for shard, part in shards.items():
            torch.save(part, draft / shard)
        (draft / INDEX).write_bytes(as_json({"metadata": {"total_size": total}, "weight_map": weight_map}))
        (draft / "config.json").write_bytes(config)
        for path in tokenizer_files(backbone.language_folder):
            (draft / path.name).write_bytes(path.read_bytes())
    return sorted(output.iterdir())


def refuse_what_is_not_published(method: Method, language: Mapping[str, object], adapter: Path) -> None:
    """Refuses methods and arguments that the published code has no form for.

    Raises:
        BadInputError: Naming the first.
    """
    if not isinstance(method, M2PT):
        raise BadInputError(
            f"an adapter of {method.name}", where=str(adapter), expected="m2pt, which the published code knows alone"
        )
    if language.get("model_type") != "llama":
        raise BadInputError(
            f"a language model of the form {language.get('model_type')!r:.40}",
            where="model.backbone.language_model",
            expected="llama, which the published code knows alone",
        )
    wanted = dict(PUBLISHED_ARGUMENTS)
    if method.visual_length:
        wanted["visual_rows_to_text"] = "official"
    arguments = method.adapter_config()
    for key, value in wanted.items():
        if arguments[key] != value:
            raise BadInputError(
                f"{key} is {json.dumps(arguments[key])}, which the published code cannot do",
                where=str(adapter),
                expected=value,
            )


def published_tensors(trained: Mapping[str, Tensor], backbone: OpenClipLlama) -> dict[str, Tensor]:
    """Returns every tensor of the model under its published name, trained ones in the place of the base's.

    A trained tensor has the type of the base's that it belongs to where that loses nothing, else float32.
    """
    files = dict.fromkeys(one.file for one in stored_in_folder(backbone.language_folder).values())
    decoder = {name: one for path in files for name, one in read_source(path).tensors.items()}
    tower = read_source(backbone.vision_weights).tensors
    projector = read_source(backbone.projector_weights).tensors
    bare = {name.removeprefix(OPEN_CLIP): one for name, one in tower.items() if name.startswith(OPEN_CLIP)}
    in_place = to_transformers(bare, str(backbone.vision_weights))
    in_place.pop(VISUAL_PROJECTION)
    table = f"{TRANSFORMERS}{POSITION_IDS}"
    if table in tower:
        in_place[table] = tower[table]
    head = decoder.pop(HEAD, decoder[EMBEDDING])
    types = {
        "visual_prompts.rows.": (VISUAL, tower[f"{OPEN_CLIP}class_embedding"].dtype),
        "textual_prompts.rows.": (TEXTUAL, decoder[EMBEDDING].dtype),
        "interaction.": (PROJECTOR, projector["weight"].dtype),
        "lm_head.": ("lm_head.", head.dtype),
    }
    published = {
        **decoder,
        **{LLAVA_TOWER + name: one for name, one in in_place.items()},
        **{PROJECTOR + name: one for name, one in projector.items()},
        HEAD: head,
    }
    for name, tensor in trained.items():
        ours = next(beginning for beginning in types if name.startswith(beginning))
        theirs, dtype = types[ours]
        published[theirs + name.removeprefix(ours)] = without_loss(tensor, dtype)
    return published


def without_loss(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a tensor in another type if every number stays what it is, else as it is."""
    other = tensor.to(dtype)
    return other if torch.equal(other.to(tensor.dtype), tensor) else tensor


def in_two_shards(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of both shards by file."""
    first: dict[str, Tensor] = {}
    size, is_full = 0, False
    for name, tensor in tensors.items():
        is_full = is_full or (name.startswith(LAYERS) and size + tensor.nbytes > FIRST_SHARD_BYTES)
        if not is_full and (name == EMBEDDING or name.startswith(LAYERS)):
            first[name] = tensor
            size += tensor.nbytes
    second = {name: tensor for name, tensor in tensors.items() if name not in first}
    return dict(zip(SHARDS, (first, second), strict=True))


def made_config(backbone: OpenClipLlama, language: Mapping[str, object]) -> dict[str, object]:
    """Returns the published form of a base's configuration; a tower that is not OpenAI's goes by its folder."""
    tower = read_source(backbone.vision_weights).tensors
    bare = {name.removeprefix(OPEN_CLIP): one for name, one in tower.items() if name.startswith(OPEN_CLIP)}
    sizes = sizes_of(bare, str(backbone.vision_weights))
    is_large = (sizes.width, sizes.layers, sizes.patch_size) == (1024, 24, 14)
    known = {224: LARGE_CLIP, 336: LARGE_CLIP_336}.get(sizes.image_size) if is_large else None
    return published_config(language, sizes.width, known or str(backbone.vision_weights.parent))
