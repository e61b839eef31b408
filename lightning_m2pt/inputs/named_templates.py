"""Conversation templates by what a configuration says: a name, or the path of a YAML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from lightning_m2pt.configuration.paths import NameOrFile, is_yaml
from lightning_m2pt.configuration.strict_yaml import plain, read_mapping
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.reworded_template import BASED_ON, QUESTION, PromptText, prompt_text
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

BaseTemplate: TypeAlias = ConversationTemplate | NativeTemplate | WrittenTemplate
"""What a prompt's words are written on top of."""


@dataclass(frozen=True)
class RewordedTemplate:
    """A template with a prompt's words around every question.

    Attributes:
        name: The base's name and the prompt's.
        base: What the words are written on top of.
        text: The words.
    """

    name: str
    base: BaseTemplate
    text: PromptText


Template: TypeAlias = BaseTemplate | RewordedTemplate
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


def is_known(name: str) -> bool:
    """Tells whether a name is one of ours: no file's, and no prompt's."""
    return name in TEMPLATES or name in shipped_names()


def shipped_names() -> list[str]:
    """Returns the names of the forms that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_template(path: Path, name: str) -> Template:
    """Reads a template's file.

    Args:
        path: The file: texts (``WrittenTemplate``), ``native: true`` with a ``system`` text, or a prompt's words that
            say which template they are based on.
        name: What the template is called.

    Raises:
        BadInputError: If the file is missing, no YAML, or says something else.
    """
    content = plain(read_mapping(path))
    if QUESTION in content or BASED_ON in content:
        return read_prompt_template(path)
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


@dataclass(frozen=True)
class PromptFile:
    """What a prompt's file says.

    Attributes:
        name: The file's name without its ending.
        text: The words.
        based_on: The template that they are written on top of; None leaves it to what they are used for.
    """

    name: str
    text: PromptText
    based_on: BaseTemplate | None

    def on(self, template: Template) -> Template:
        """Returns a template with the prompt's words; words that change nothing leave it as it is.

        Args:
            template: What the conversations would be written in without; it gives way to ``based_on``.

        Raises:
            BadInputError: If it has a prompt's words already.
        """
        if isinstance(template, RewordedTemplate):
            raise BadInputError(
                f"the template {template.name} has a prompt's words already",
                where=f"prompt text {self.name}",
                expected="one prompt around a question",
            )
        base = self.based_on or template
        return base if self.text.says_nothing else RewordedTemplate(f"{base.name}+{self.name}", base, self.text)


def read_prompt(path: Path) -> PromptFile:
    """Reads a prompt's file: ``question`` with the mark ``{question}``, ``system`` and ``based_on``, all texts.

    Raises:
        BadInputError: If the file is missing, no YAML, says something else, or is based on what is no template.
    """
    content = plain(read_mapping(path))
    text = prompt_text(content, path)
    if not content:
        raise BadInputError("there are no words in it", where=str(path), expected=f"{QUESTION} and a text")
    based_on = content.get(BASED_ON)
    if based_on is None:
        return PromptFile(path.stem, text, None)
    base_file = path.parent / based_on
    # Before it is read as a template: a prompt's file could be based on itself, without an end.
    is_prompt = is_yaml(based_on) and not {QUESTION, BASED_ON}.isdisjoint(plain(read_mapping(base_file)))
    base = None if is_prompt else template_named(str(base_file) if is_yaml(based_on) else based_on)
    if base is None or isinstance(base, RewordedTemplate):
        raise BadInputError(
            f"{based_on!r:.80} has a prompt's words already",
            where=f"{path}: {BASED_ON}",
            expected="a template without any",
        )
    return PromptFile(path.stem, text, base)


def read_prompt_template(path: Path) -> Template:
    """Reads a prompt's file as a template of its own.

    Raises:
        BadInputError: If it does not say which template it is based on; as ``read_prompt`` does.
    """
    prompt = read_prompt(path)
    if prompt.based_on is None:
        raise BadInputError(
            "it does not say what the words are written on top of",
            where=f"{path}: {BASED_ON}",
            expected=f"one of {', '.join([*TEMPLATES, *shipped_names()])}, or a YAML file",
            hint=f"or give it with --prompt-text {path.name}: every set's own template is the base then",
        )
    return prompt.on(prompt.based_on)
