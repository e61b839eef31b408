"""The card of an adapter that PEFT wrote and that was imported: what its own configuration says, in plain words."""

import re

from lightning_m2pt.backbones.hub_ids import ID, LONGEST_ID
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder

CARD = """# An adapter of PEFT, imported

Made of {file}, PEFT's {kind}, as the method {method}. It says that it was trained on {base}; the base in
`adapter_config.json` is the one that it was imported for.

Its own configuration says: {settings}.

Its licence is not known here: whoever made it says it, and the licences of its base and of its data bind it as well.
"""
SETTINGS = ("r", "lora_alpha", "target_modules", "num_virtual_tokens")
"""Keys of PEFT's that say how much was trained, and where."""
PLAIN_NAME = re.compile(r"[A-Za-z_][\w.]{0,99}")
NAMED = 12


def imported_card(peft: PeftFolder, method: str) -> str:
    """Returns the text of the card.

    Args:
        peft: What was read.
        method: Name of the method that it has become.
    """
    said = [f"{key} {text}" for key in SETTINGS if (text := setting_text(peft.config.get(key)))]
    return CARD.format(
        file=peft.tensor_file.name,
        kind=peft.kind,
        method=method,
        base=base_text(peft),
        settings="; ".join(said) or "nothing of how much was trained",
    )


def base_text(peft: PeftFolder) -> str:
    """Returns what an adapter says of its base, for others to read: a name of the hub, and nobody's folders."""
    base = peft.config.get("base_model_name_or_path")
    if isinstance(base, str) and "/" in base and ID.fullmatch(base) and len(base) <= LONGEST_ID:
        return f"`{base}`"
    return "a base in a folder" if base else "a base that it does not name"


def setting_text(value: object) -> str:
    """Returns a number, or names of modules; what is neither is named as what it is, and never repeated."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, str):
        return f"`{value}`" if PLAIN_NAME.fullmatch(value) else "by a pattern"
    if isinstance(value, list) and value and all(isinstance(one, str) and PLAIN_NAME.fullmatch(one) for one in value):
        shown = ", ".join(f"`{one}`" for one in value[:NAMED])
        return shown if len(value) <= NAMED else f"{shown} and {len(value) - NAMED} more"
    return ""
