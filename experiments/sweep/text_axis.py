"""The axis ``prompt_texts`` of a sweep's file: every row once with each prompt's words around its questions.

    prompt_texts:
      as it is: null                        what the experiment's file says: the questions themselves, usually
      one word: prompt_texts/one_word.yaml  a file for --prompt-text, named as seen from the sweep's

What is tuned on and what is asked have the same words: the model is tuned with a fixed prompt.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from experiments.sweep.variant import Variant, check_label
from lightning_m2pt.configuration.paths import from_here
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.configuration.yaml_nodes import pairs_of, place, text_of
from lightning_m2pt.errors import BadInputError

NULL = "tag:yaml.org,2002:null"


def with_texts(variants: Sequence[Variant], node: yaml.Node, path: Path) -> list[Variant]:
    """Returns every variant with every prompt, the prompts changing fastest.

    A variant that takes another one's searched rates takes those which were searched with the same prompt.

    Args:
        variants: The rows.
        node: What stands behind ``prompt_texts``.
        path: The sweep's file.

    Raises:
        BadInputError: If there is no prompt, a file is not there, or a variant names a prompt itself.
    """
    texts = {str(key.value): (text_of_file(value, path), place(path, key)) for key, value in pairs_of(node, path)}
    if not texts:
        raise BadInputError("there are no prompts", where=place(path, node), expected="a name and a file each, or null")
    own = next((each for each in variants for word in each.arguments if word.startswith(f"--{PROMPT_TEXT}=")), None)
    if own is not None:
        raise BadInputError(
            f"{own.label!r} has a {PROMPT_TEXT} of its own", where=own.where, expected="it among `prompt_texts` alone"
        )
    found = []
    for variant in variants:
        for name, (file, where) in texts.items():
            label, lender = f"{variant.label}, {name}", f"{variant.rates_of}, {name}" if variant.rates_of else ""
            check_label(label, where)
            found.append(replace(variant, label=label, rates_of=lender, prompt_text=file))
    return found


def text_of_file(node: yaml.Node, path: Path) -> Path | None:
    """Returns a prompt's file as seen from the working directory; None for ``null``.

    Raises:
        BadInputError: If it is not there.
    """
    if node.tag == NULL:
        return None
    word = text_of(node, path)
    file = path.parent / word
    if not file.is_file():
        raise BadInputError(
            f"there is no file {word}",
            where=place(path, node),
            expected="a prompt's YAML file, as seen from this one, or null",
        )
    return from_here(file)
