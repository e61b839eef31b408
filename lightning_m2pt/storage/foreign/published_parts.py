"""The tensors of a checkpoint of M2PT's published code, sorted by what they are.

The published trainer saves the whole model: language model, vision tower, projector, head, and the prompts among them.
Files of trained tensors alone are read as well: a flat dictionary with the same names, or a list of prompts whose names
are just 0, 1, 2, ... Lengths follow from shapes, never from a file's name. Axis 0 of every prompt is 1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.recognition import LLAVA_TOWER, kind_of
from lightning_m2pt.storage.foreign.sources import names_in, read_source
from lightning_m2pt.visible_text import counted

TEXTUAL, VISUAL = "model.prompts.", f"{LLAVA_TOWER}vision_model.encoder.prompts."
PROJECTOR, HEAD = "model.mm_projector.", "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
DECODER = re.compile(r"model\.(?:embed_tokens\.weight|norm\.weight|layers\.\d+\..+)")
LISTED = re.compile(r"\d+")
INDEX = "pytorch_model.bin.index.json"
PROMPT_NAMES = f"{TEXTUAL}N, {VISUAL}N"


@dataclass
class PublishedParts:
    """What stands in a checkpoint, each tensor under a name of its own part.

    Attributes:
        textual: Prompts (1, P, D_text) by the decoder's layers.
        visual: Prompts (1, P, D_vision) by the tower's layers.
        projector: ``weight`` and ``bias``.
        head: ``weight``, or nothing.
        decoder: The language model without its head, under transformers' names.
        tower: The tower in transformers' layout, names without ``vision_model.``.
        lists: Prompts that are numbered and nothing else, by their file.
        files: Every file, in order.
        places: File of each of the language model's tensors, the head among them.
    """

    textual: dict[int, Tensor] = field(default_factory=dict)
    visual: dict[int, Tensor] = field(default_factory=dict)
    projector: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    decoder: dict[str, Tensor] = field(default_factory=dict)
    tower: dict[str, Tensor] = field(default_factory=dict)
    lists: dict[Path, dict[int, Tensor]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    places: dict[str, Path] = field(default_factory=dict)

    @property
    def has_base(self) -> bool:
        """Tells whether the frozen model stands in it, too."""
        return EMBEDDING in self.decoder

    def add(self, path: Path) -> None:
        """Sorts the tensors of one file; their numbers stay in it.

        Raises:
            BadInputError: If it cannot be read, or holds a tensor of no known name or one that is there already.
        """
        tensors = read_source(path).tensors
        self.files.append(path)
        if all(LISTED.fullmatch(name) for name in tensors):
            self.lists[path] = {int(name): tensor for name, tensor in tensors.items()}
            return
        unknown, before = [], self.count()
        for name, tensor in tensors.items():
            if not self.sort(name, tensor, path):
                unknown.append(name)
        if unknown:
            raise BadInputError(
                f"tensors of no known name: {counted(unknown)}",
                where=str(path),
                expected=f"a checkpoint of M2PT's published code ({PROMPT_NAMES}, ...), or perturbation: TVP's prompt",
            )
        if self.count() != before + len(tensors):
            raise BadInputError(
                "some of its tensors stand in another file as well", where=str(path), expected="every tensor once"
            )

    def count(self) -> int:
        """Returns how many tensors have been sorted."""
        prompts = len(self.textual) + len(self.visual)
        return prompts + len(self.projector) + len(self.head) + len(self.decoder) + len(self.tower)

    def sort(self, name: str, tensor: Tensor, path: Path) -> bool:
        """Puts one tensor where it belongs; tells whether there is such a place."""
        if name.startswith(TEXTUAL) and LISTED.fullmatch(name.removeprefix(TEXTUAL)):
            self.textual[int(name.removeprefix(TEXTUAL))] = tensor
        elif name.startswith(VISUAL) and LISTED.fullmatch(name.removeprefix(VISUAL)):
            self.visual[int(name.removeprefix(VISUAL))] = tensor
        elif name.startswith(PROJECTOR):
            self.projector[name.removeprefix(PROJECTOR)] = tensor
        elif name == HEAD:
            self.head["weight"], self.places[name] = tensor, path
        elif DECODER.fullmatch(name):
            self.decoder[name], self.places[name] = tensor, path
        elif name.startswith(f"{LLAVA_TOWER}vision_model."):
            self.tower[name.removeprefix(f"{LLAVA_TOWER}vision_model.")] = tensor
        else:
            return False
        return True


def is_published(sources: Sequence[Path]) -> bool:
    """Tells whether there are prompts among the tensors of some files and folders; what cannot be read has none."""
    for source in sources:
        files = sorted(source.glob("*.bin")) if source.is_dir() else [source]
        for path in files:
            names = names_in(path)
            if names and (kind_of(names) == "published_m2pt" or all(LISTED.fullmatch(name) for name in names)):
                return True
    return False


def read_published(sources: Sequence[Path]) -> PublishedParts:
    """Reads a checkpoint's folder, or files of it.

    Raises:
        BadInputError: If a file is missing or cannot be read, or holds something else.
    """
    parts = PublishedParts()
    for source in sources:
        for path in checkpoint_files(source) if source.is_dir() else [source]:
            parts.add(path)
    return parts


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the files of a checkpoint's folder: the shards of its index, or every ``.bin`` that there is.

    Raises:
        BadInputError: If there is none, or a shard is missing.
    """
    index = folder / INDEX
    if index.is_file():
        places = read_json(index, str(folder)).get("weight_map")
        if not isinstance(places, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in places.values()
        ):
            raise BadInputError("this is no index of weights", where=str(index), expected="file names by tensor")
        names = sorted(set(places.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise BadInputError(f"missing {counted(missing)}", where=str(index), hint="download them again")
        return [folder / name for name in names]
    found = sorted(folder.glob("pytorch_model*.bin")) or sorted(folder.glob("*.bin"))
    if not found:
        raise BadInputError(
            "there is no checkpoint in it", where=str(folder), expected="pytorch_model-*.bin, or files of prompts"
        )
    return found


def assign_lists(parts: PublishedParts, vision: tuple[int, int], text: tuple[int, int]) -> None:
    """Finds out which tower lists of numbered prompts belong to, by their number and width.

    Args:
        parts: What was read; its lists become textual and visual prompts.
        vision: Layers and width of the vision tower.
        text: Those of the language model.

    Raises:
        BadInputError: If they fit neither, both, or the same one twice.
    """
    for path, prompts in parts.lists.items():
        sizes = len(prompts), next(iter(prompts.values())).shape[-1]
        fitting = [
            place for place, wanted in ((parts.visual, vision), (parts.textual, text)) if sizes == wanted and not place
        ]
        if len(fitting) != 1:
            verdict = "they fit both towers" if fitting else "they fit neither tower"
            raise BadInputError(
                f"{sizes[0]} prompts of width {sizes[1]}: {verdict}",
                where=str(path),
                expected=f"{vision[0]} of width {vision[1]} for the vision tower, or {text[0]} of width {text[1]}",
                hint=f"a file with the names {PROMPT_NAMES} says it",
            )
        fitting[0].update(prompts)
    parts.lists.clear()


def prompt_length(prompts: Mapping[int, Tensor], layers: int, width: int, what: str) -> int:
    """Returns the rows of every layer's prompt; 0 without prompts.

    Raises:
        BadInputError: If layers are missing, or a prompt has another shape.
    """
    if not prompts:
        return 0
    first = next(iter(prompts.values()))
    length = first.shape[1] if first.dim() == 3 else 0
    wrong = [f"{layer} {list(one.shape)}" for layer, one in prompts.items() if tuple(one.shape) != (1, length, width)]
    missing = sorted(set(range(layers)) - set(prompts))
    left_over = sorted(set(prompts) - set(range(layers)))
    if wrong or missing or left_over or not length:
        found = [*wrong, *(f"{layer} missing" for layer in missing), *(f"{layer} left over" for layer in left_over)]
        raise BadInputError(
            f"{what}: {counted(found)}",
            where="the checkpoint",
            expected=f"{layers} of shape [1, P, {width}], P alike and above 0",
        )
    return length
