"""A prompt in pixels of TVP's published code as an adapter: one picture under one name, around zeros.

Zhang et al., *Exploring the Transferability of Visual Prompting for Multimodal Large Language Models*, CVPR 2024, store
the whole square under ``perturbation``, as a torch file: 3 x 224 x 224 numbers of 0..1 before normalisation, of which
the outermost 30 pixels were trained. What the file does not say, how the picture is composed, is as they have it unless
an experiment of ``PixelPrompting`` says otherwise.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.weight_files import stored_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.storage.adapter_base import adapter_base_of
from lightning_m2pt.storage.adapter_folder import save_adapter
from lightning_m2pt.storage.foreign.sources import container_of, names_in, read_source
from lightning_m2pt.storage.foreign.weights import origin_of
from lightning_m2pt.storage.foreign.written import new_folder, refuse_not_finite
from lightning_m2pt.visible_text import counted

PERTURBATION = "perturbation"
"""The published name."""
ADAPTER = "adapter"
EXACT = (torch.float32, torch.bfloat16, torch.float16)
"""Types whose numbers float32 has all."""
CARD = """# A prompt in pixels, imported

Made of {file}. {width} pixels of border, {compose}. It was trained on another model; the base in `adapter_config.json`
is the one it was imported for.
"""


def is_pixel_prompt(sources: Sequence[Path]) -> bool:
    """Tells whether there is one source, a file with a tensor of the published name."""
    (first, *others) = sources
    if others or not first.is_file():
        return False
    return PERTURBATION in (stored_tensors(first) if container_of(first) == "safetensors" else names_in(first))


def import_pixel_prompt(path: Path, output: Path, backbone: Backbone, configured: Method) -> Path:
    """Makes an adapter of a published prompt, for a base whose picture has the prompt's size.

    Args:
        path: The file.
        output: The folder that is made, with ``adapter`` in it.
        backbone: The base; its weights are not loaded.
        configured: The experiment's method. One of pixels says how a picture is composed; of another one nothing is
            used.

    Returns:
        The adapter's folder.

    Raises:
        BadInputError: If the file holds something else, its numbers are no border, or base or experiment do not fit.
    """
    delta = published_delta(path)
    side, width = delta.shape[-1], width_of(delta, path)
    if backbone.shape.image_size != side and not backbone.shape.tiles_are_patches:
        read = backbone.shape.image_size
        raise BadInputError(
            f"the prompt has {side} x {side} pixels, and this base reads {read} x {read}",
            where=str(path),
            expected=f"--config FILE, an experiment on a base that reads {side} x {side}",
            hint="m2pt transfer --prompt DIR/adapter carries it from there to pictures of other sizes",
        )
    method = method_of(configured, side, width, path)
    method.check(backbone.shape)
    backbone.build_on_meta()
    method.build(backbone, torch.Generator())
    method.built_shapes = {name: tuple(each.shape) for name, each in method.named_tensors().items()}
    method.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in method.named_tensors().values():
            parameter.copy_(delta)
    card = CARD.format(file=path.name, width=width, compose=method.compose)
    with new_folder(output) as draft:
        save_adapter(draft / ADAPTER, method, adapter_base_of(backbone), card, converted_from=origin_of(path))
    return output / ADAPTER


def published_delta(path: Path) -> Tensor:
    """Returns (3, S, S) float32, the numbers of a published file.

    Raises:
        BadInputError: If there is something else in it, or they are no finite square picture.
    """
    tensors = read_source(path).tensors
    others = [name for name in tensors if name != PERTURBATION]
    if others:
        raise BadInputError(
            f"there is more in it: {counted(others)}", where=str(path), expected=f"{PERTURBATION} and nothing else"
        )
    delta = tensors[PERTURBATION]
    is_square = delta.dim() == 3 and delta.shape[0] == 3 and delta.shape[1] == delta.shape[2] > 0
    if not is_square or delta.dtype not in EXACT:
        raise BadInputError(
            f"{PERTURBATION} is {str(delta.dtype).removeprefix('torch.')} of shape {list(delta.shape)}",
            where=str(path),
            expected="float32, or shorter, of shape [3, S, S]",
        )
    refuse_not_finite(tensors, str(path))
    return delta.float()


def width_of(delta: Tensor, path: Path) -> int:
    """Returns how many of the outermost pixels are not 0 in any channel: the border that was trained.

    Args:
        delta: (3, S, S).
        path: Its file.

    Raises:
        BadInputError: If everything is 0, or numbers stand inside of what is 0.
    """
    side = delta.shape[-1]
    distances = torch.minimum(torch.arange(side), torch.arange(side).flip(0))
    depths = torch.minimum(distances[:, None], distances[None, :])
    stand = set(depths[delta.ne(0).any(dim=0)].tolist())
    width = next(depth for depth in range(side + 1) if depth not in stand)
    inside = max(stand, default=-1)
    if width == 0 or inside >= width or side - 2 * width < 1:
        what = f"its numbers are not 0 as far as {inside + 1} pixels from the edge"
        raise BadInputError(
            f"{what}, and 0 at {width + 1}" if inside >= width > 0 else what if stand else "all of its numbers are 0",
            where=str(path),
            expected="a border that was trained, and zeros inside",
        )
    return width


def method_of(configured: Method, side: int, width: int, path: Path) -> PixelPrompting:
    """Returns a method for a prompt: as the experiment says, or composed as published.

    Raises:
        BadInputError: If the experiment's border is another one.
    """
    if not isinstance(configured, PixelPrompting):
        return PixelPrompting(width / side, compose="shrink")
    own = round(configured.border * side)
    if own != width:
        raise BadInputError(
            f"the outermost {width} pixels are not 0, and the experiment's border has {own} of {side}",
            where=str(path),
            expected=f"model.method.border {width / side:.6g}, or an experiment of another method",
        )
    return configured
