"""What another tool's adapter is in this project's words: a method, and where each of its tensors comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.with_interaction import INTERACTION
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder
from lightning_m2pt.storage.foreign.recognition import PROJECTOR_NAMES
from lightning_m2pt.visible_text import counted

CONNECTORS = ("multi_modal_projector", "mm_projector", "projector", "connector", "merger")
"""What models call the module between vision and language."""
OF_SEQUENCE = {"0.": "linear_1.", "2.": "linear_2."}
"""LLaVA's own names of the projector's layers, and those of transformers."""


@dataclass(frozen=True)
class Translation:
    """An adapter in this project's words.

    Attributes:
        method: Not built.
        sources: For each tensor of the method the name that it has in the file.
        unused: Tensors of the file that nothing depends on.
        notes: What the file does not say.
    """

    method: Method
    sources: Mapping[str, str]
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def interaction_sources(peft: PeftFolder, names: Mapping[str, str], backbone: Backbone) -> dict[str, str]:
    """Returns the tensors of a trained projector, which PEFT keeps whole; none if it has none.

    Args:
        peft: The folder.
        names: Of its tensors that no tuner made, the names in the library's model, and those in the file.
        backbone: The base, built.

    Raises:
        BadInputError: If a tensor is of another module, or the projector is not whole.
    """
    if not names:
        return {}
    wanted = dict(backbone.projector.named_parameters())
    found: dict[str, str] = {}
    for name, stored in names.items():
        own = name_in_projector(name, wanted)
        if own is None:
            raise BadInputError(
                f"{counted([name])} was trained, too: of whole modules only the projector can be",
                where=str(peft.tensor_file),
                expected="modules_to_save that names the projector of this base, or nothing",
            )
        found[f"{INTERACTION}.{own}"] = stored
    missing = [name for name in wanted if f"{INTERACTION}.{name}" not in found]
    if missing:
        raise BadInputError(
            f"of the projector {counted(missing)} is missing", where=str(peft.tensor_file), expected="all of it"
        )
    return found


def name_in_projector(name: str, wanted: Mapping[str, object]) -> str | None:
    """Returns the name inside the base's projector of a tensor with this name in some model; None if it has none."""
    steps = name.split(".")
    if PROJECTOR_NAMES.fullmatch(name):  # a file of the projector alone
        steps = [CONNECTORS[0], *steps]
    for connector in CONNECTORS:
        if connector in steps:
            inside = ".".join(steps[steps.index(connector) + 1 :])
            others = [
                theirs + inside.removeprefix(own) for own, theirs in OF_SEQUENCE.items() if inside.startswith(own)
            ]
            others += [
                own + inside.removeprefix(their) for own, their in OF_SEQUENCE.items() if inside.startswith(their)
            ]
            return next((each for each in (inside, *others) if each in wanted), None)
    return None
