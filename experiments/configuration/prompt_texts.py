"""``--prompt-text FILE``: a prompt's words around every question of an experiment's sets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_modules.base import DataModule
from data_modules.mixture import sets_inside
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.inputs.named_templates import read_prompt


def put_words(config: dict[str, Any], path: str | None, sets: Iterable[DataModule]) -> None:
    """Puts a prompt's words around the questions of sets.

    Args:
        config: The resolved configuration; without a prompt it has no key for one, as those of before had none.
        path: The prompt's file; None leaves everything as it is.
        sets: Their templates are changed.

    Raises:
        BadInputError: If the file holds no prompt, or a set's template has a prompt's words already.
    """
    if path is None:
        config.pop(PROMPT_TEXT, None)
        return
    prompt = read_prompt(Path(path))
    for each in (inside for given in sets for inside in sets_inside(given)):
        each.template = prompt.on(each.template)
