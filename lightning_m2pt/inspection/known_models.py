"""The models that can be taken as a base, as the code itself knows them: what ``m2pt models list`` and the page say."""

from dataclasses import dataclass

from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS, ProvenForm

WINDOWS = {"none": "none", "every layer": "of every layer", "sliding layers": "of the layers named sliding"}


@dataclass(frozen=True)
class KnownModel:
    """A family or architecture.

    Attributes:
        name: The class that ``config.json`` names.
        parts: What it is made of, or what it does beyond Llama.
    """

    name: str
    parts: str


def language_models() -> list[KnownModel]:
    """Returns the language models that a tower can be paired with, and that whole models may have inside."""
    return [KnownModel(form.architecture, beyond_llama(form)) for form in PROVEN_FORMS.values()]


def beyond_llama(form: ProvenForm) -> str:
    """Returns what an architecture may say that Llama does not, in words."""
    parts = [] if form.window == "none" else [f"a window {WINDOWS[form.window]}"]
    parts += ["layers without rotation"] if form.skips_rotation else []
    parts += list(form.numbers)
    return ", ".join(parts) or "Llama's form"
