"""A run's folder with a small adapter of random numbers in it, as if it had been tuned."""

import json
from pathlib import Path

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import save_adapter


def randomised(backbone: Backbone, method: Method, size: float = 0.03) -> None:
    """Builds a method on a loaded backbone, its numbers moved a little from where they start."""
    method.build(backbone, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.add_(size * torch.randn(tensor.shape, generator=generator))
    method.eval()


def write_adapter(folder: Path, backbone: Backbone, method: Method) -> Path:
    """Writes a built method as an adapter's folder."""
    dtype = backbone.dtype_name
    save_adapter(folder, method, AdapterBase("base", backbone.fingerprint(), dtype), "", template="plain")
    return folder


def write_run(
    folder: Path, method: Method, whole_model: Path | None = None, *, is_trained: bool = True, **backbone: object
) -> Path:
    """Writes a run on the testbed's backbone, or on a folder of a whole model.

    Args:
        folder: The run's.
        method: Not built; it is afterwards.
        whole_model: The base's folder; None takes the testbed's backbone.
        is_trained: Whether it has an adapter; else it is no more than its configuration.
        backbone: Further arguments of the backbone.
    """
    place = EMBEDDED / "testbed"
    arguments = {
        "vision_config": str(place / "vision/open_clip_config.json"),
        "vision_weights": str(place / "vision/open_clip_model.safetensors"),
        "language_config": str(place / "language"),
        "language_model": str(place / "language"),
        "projector_weights": str(place / "projector/model.safetensors"),
    }
    base: Backbone = embedded_backbone()
    if whole_model is not None:
        arguments, base = {"model": str(whole_model)}, VisionLanguageModel(str(whole_model), dtype="float32")
    if is_trained:
        base.load()
        randomised(base, method)
        write_adapter(folder / "adapter", base, method)
    folder.mkdir(parents=True, exist_ok=True)
    kind = OpenClipLlama if whole_model is None else VisionLanguageModel
    named = {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": {**arguments, **backbone}}
    (folder / "config.yaml").write_text(json.dumps({"model": {"backbone": named, "method": section_of(method)}}))
    return folder


def section_of(method: Method) -> dict[str, object]:
    """Returns how a configuration says a method."""
    arguments = method.adapter_config()
    if isinstance(method, Combined):
        arguments = {"methods": [section_of(member) for member in method.methods()]}
    return {"class_path": f"{type(method).__module__}.{type(method).__name__}", "init_args": arguments}
