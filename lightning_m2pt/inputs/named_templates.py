"""Conversation templates by what a configuration says: a name, or the path of a YAML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from lightning_m2pt.configuration.paths import NameOrFile, is_yaml
from lightning_m2pt.configuration.strict_yaml import plain, read_mapping
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1, ConversationTemplate
from lightning_m2pt.inputs.written_template import WrittenTemplate, written_template

TemplateName: TypeAlias = (
    Literal["vicuna_v1", "plain", "native", "chatml", "gemma", "llama_3", "mistral", "phi_3"] | NameOrFile
)
"""What a configuration may say."""

SHIPPED = Path(__file__).parent / "conversations"
"""Forms of several model families, a file each."""
SAYS_NATIVE = "native"
"""Key of a file that asks for the model's own template, with a system's text."""


@dataclass(frozen=True)
class NativeTemplate:
    """The chat template that a model brings with it; what it writes is known where its tokenizer is.

    Attributes:
        name: The name users write, or the file's.
        system: Text of a system's message in front of every conversation; empty leaves the message out, and whatever
            the template writes without one stays.
    """

    name: str = SAYS_NATIVE
    system: str = ""


NATIVE = NativeTemplate()

Template: TypeAlias = ConversationTemplate | NativeTemplate | WrittenTemplate
"""How conversations become texts."""

PUBLISHED = (VICUNA_V1, PLAIN)
"""Templates whose names say everything."""

TEMPLATES: dict[str, Template] = {template.name: template for template in (*PUBLISHED, NATIVE)}


def template_named(name: str) -> Template:
    """Returns the template of a name, or the one that a YAML file holds.

    Args:
        name: One of ours, or a path that ends in ``.yaml`` or ``.yml``.

    Raises:
        BadInputError: If there is none, or the file does not say what one needs.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if is_yaml(name):
        return read_template(Path(name), Path(name).name)
    if name not in shipped_names():
        raise BadInputError(
            f"unknown conversation template {name!r:.80}",
            where="template",
            expected=f"{', '.join([*TEMPLATES, *shipped_names()])}, or a YAML file",
        )
    return read_template(SHIPPED / f"{name}.yaml", name)


def shipped_names() -> list[str]:
    """Returns the names of the forms that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_template(path: Path, name: str) -> Template:
    """Reads a template's file.

    Args:
        path: The file: either texts (``WrittenTemplate``), or ``native: true`` with a ``system`` text.
        name: What the template is called.

    Raises:
        BadInputError: If the file is missing, no YAML, or says something else.
    """
    content = plain(read_mapping(path))
    is_native = content.pop(SAYS_NATIVE, False)
    if is_native not in (True, False):
        raise BadInputError(f"{is_native!r:.60} is no switch", where=f"{path}: {SAYS_NATIVE}", expected="true or false")
    if not is_native:
        return written_template(content, name, path)
    other = next((key for key in content if key != "system"), None)
    if other is not None or not isinstance(content.get("system", ""), str):
        raise BadInputError(
            f"the model's own template takes no {other!r:.60}" if other else "the system's text is no text",
            where=f"{path}: {other or 'system'}",
            expected=f"{SAYS_NATIVE} and a text for system",
        )
    return NativeTemplate(name, content.get("system", ""))
