"""What an adapter says of its conversation template: a name of ours, or everything that a file said.

The adapter may be anybody's: nothing here names a file, and texts are looked at as those of a file are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import (
    SAYS_NATIVE,
    BaseTemplate,
    NativeTemplate,
    RewordedTemplate,
    Template,
    is_known,
    template_named,
)
from lightning_m2pt.inputs.reworded_template import QUESTION, prompt_text
from lightning_m2pt.inputs.written_template import WrittenTemplate, written_template

TEMPLATE, CONTENT = "template", "template_content"
"""Keys of an adapter's configuration: a template's name, and what it says where no name does."""
NAME, BASE, SYSTEM = "name", "based_on", "system"


def template_content(template: Template) -> dict[str, Any] | None:
    """Returns what decides a template and is not in its name, as JSON values; None if there is no such thing.

    Args:
        template: As it was tuned with.
    """
    if is_known(template.name) and template == template_named(template.name):
        return None
    if isinstance(template, RewordedTemplate):
        base = template_content(template.base)
        return {
            QUESTION: template.text.question,
            SYSTEM: template.text.system,
            BASE: template.base.name if base is None else {NAME: template.base.name, **base},
        }
    if isinstance(template, NativeTemplate):
        return {SAYS_NATIVE: True, SYSTEM: template.system}
    if isinstance(template, WrittenTemplate):
        return {key: value for key, value in vars(template).items() if key != NAME}
    return None  # an object from Python: whoever reads the adapter is told that its name is unknown


def adapter_template(config: Mapping[str, Any], where: str) -> Template | None:
    """Returns the template that an adapter was tuned with; None if it does not say one.

    Args:
        config: The adapter's configuration.
        where: Its file, for messages.

    Raises:
        BadInputError: If it names none of ours and does not say what the template is, or says what no template is.
    """
    name, content = config.get(TEMPLATE), config.get(CONTENT)
    if name is None and content is None:
        return None
    if not isinstance(name, str):
        raise BadInputError(f"{name!r:.60} is no name", where=f"{where}: {TEMPLATE}", expected="a template's name")
    return template_in(name, content, where)


def template_in(name: str, content: object, where: str) -> Template:
    """Returns the template of a name and of what an adapter says besides.

    Args:
        name: The template's.
        content: As ``template_content`` gives it; None: the name is one of ours.
        where: The adapter's configuration, for messages.

    Raises:
        BadInputError: If there is no such template.
    """
    place = f"{where}: {CONTENT}"
    if content is None:
        if not is_known(name):
            raise BadInputError(
                f"the adapter does not say what its template {name!r:.60} is",
                where=f"{where}: {TEMPLATE}",
                expected="a template's name, or its texts beside it",
                hint="adapters from before format 3 do not; name the file with the set's template",
            )
        return template_named(name)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadInputError(f"{content!r:.60} is no template", where=place, expected="an object of texts")
    if BASE in content:
        return reworded_in(name, content, where)
    if content.get(SAYS_NATIVE) is True:
        if set(content) != {SAYS_NATIVE, SYSTEM} or not isinstance(content[SYSTEM], str):
            raise BadInputError(f"{content!r:.60} is no template", where=place, expected=f"{SAYS_NATIVE} and {SYSTEM}")
        return NativeTemplate(name, content[SYSTEM])
    return written_template(content, name, Path(place))


def reworded_in(name: str, content: Mapping[str, Any], where: str) -> RewordedTemplate:
    """Returns a template with a prompt's words around every question.

    Raises:
        BadInputError: If the words, or what they are written on top of, are none.
    """
    place, said = f"{where}: {CONTENT}", content[BASE]
    text = prompt_text({key: value for key, value in content.items() if key != BASE}, Path(place))
    if isinstance(said, str):
        base = template_in(said, None, f"{place}.{BASE}")
    elif isinstance(said, dict) and isinstance(said.get(NAME), str):
        base = template_in(said[NAME], {key: value for key, value in said.items() if key != NAME}, f"{place}.{BASE}")
    else:
        raise BadInputError(f"{said!r:.60} is no template", where=f"{place}.{BASE}", expected="a name, or a template")
    if isinstance(base, RewordedTemplate):
        raise BadInputError(
            f"{base.name!r:.60} has a prompt's words already", where=f"{place}.{BASE}", expected="a template without"
        )
    kept: BaseTemplate = base
    return RewordedTemplate(name, kept, text)
