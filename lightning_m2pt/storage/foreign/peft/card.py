"""What stands in the ``README.md`` of a folder for PEFT."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.foreign.cards import left_out_text, template_text
from lightning_m2pt.storage.foreign.library_names import Extent
from lightning_m2pt.storage.foreign.peft.carried import Plan
from lightning_m2pt.storage.foreign.peft.names import PREFIX_TUNING, PROMPT_TUNING

CARD = """---
library_name: peft
tags: [{tag}]
---
# {parts} of {method} as {peft_type}

Written by lightning_m2pt for PEFT. The frozen base is `{base}`, fingerprint `{fingerprint}`.
{left_out}
```python
from peft import PeftModel
from transformers import {model_class}

base = {model_class}.from_pretrained(BASE)
model = PeftModel.from_pretrained(base, FOLDER).eval()
```

{base_form}{batches}{beside}{template}"""
CLASSES = {"whole": "AutoModelForImageTextToText", "language": "AutoModelForCausalLM"}
BASE_FORMS = {
    "converted": """BASE is the folder that `m2pt merge RUN --output BASE` makes with every part left out: CLIP, \
projector and language
model in the form of `LlavaForConditionalGeneration`.
""",
    "whole": """BASE is the folder, or the hub's repository, of the base itself. This project never answers with the \
token of a picture;
`generate(..., suppress_tokens=[...])` with that token does the same.
""",
    "language": "BASE is the language model's folder; rows of pictures go in as `inputs_embeds`.\n",
}
PREFIX = """
The keys and values are those of positions 0 to {last}; the first token has position {length}. `generate` counts so by
itself, in batches that are padded on the left as well; whoever calls the model with such a batch gives `position_ids`
that begin at 0 behind the padding.
"""
PROMPT = """
PEFT puts the rows in front of the padding of a batch that is padded on the left, and gives no other positions: ask one
question at a time, or questions of one length. As a prefix (`m2pt export peft --as-prefix`) they stand in such batches,
too.
"""
BESIDE = """
Beside the adapter, and read by nothing of PEFT: {files}.
"""
FILES = {
    "visual_prompts.safetensors": "`visual_prompts.safetensors`, the prompt rows (1, P, D) that stand in front of the "
    "input of each of the vision tower's layers, by `rows.LAYER` ({arguments})",
    "projector.safetensors": "`projector.safetensors`, the tuned layers between vision tower and language model",
}
VISUAL_ARGUMENTS = ("visual_length", "visual_depth", "visual_position", "visual_rows_to_text")


def peft_card(
    adapter: Path,
    method: Method,
    backbone: Backbone,
    plan: Plan,
    left_out: AbstractSet[str],
    files: Sequence[str],
) -> str:
    """Returns the card.

    Args:
        adapter: The adapter's folder.
        method: Its method.
        backbone: Its base.
        plan: What is in the folder.
        left_out: Parts that are not in the adapter.
        files: Names of the files beside it.

    Raises:
        BadInputError: If the adapter's configuration cannot be read.
    """
    fingerprint = backbone.fingerprint()
    arguments = arguments_of(adapter, "visual_length")
    shown = ", ".join(f"{name}: {arguments[name]}" for name in VISUAL_ARGUMENTS if name in arguments)
    length = method.rows_before_text()
    batches = {PREFIX_TUNING: PREFIX.format(last=length - 1, length=length), PROMPT_TUNING: PROMPT}
    return CARD.format(
        tag=plan.peft_type.lower().replace("_", "-"),
        parts=", ".join([*plan.parts, *plan.modules]),
        method=method.name,
        peft_type=plan.peft_type,
        base=backbone.origin().readable_name(fingerprint),
        fingerprint=fingerprint,
        left_out=left_out_text(method, left_out),
        model_class=CLASSES[plan.extent],
        base_form=BASE_FORMS[form_of_base(backbone, plan.extent)],
        batches=batches.get(plan.peft_type, ""),
        beside=BESIDE.format(files="; ".join(FILES[name].format(arguments=shown) for name in files)) if files else "",
        template=template_text(adapter),
    )


def form_of_base(backbone: Backbone, extent: Extent) -> str:
    """Returns which sentence says what the base's folder is."""
    return "converted" if extent == "whole" and isinstance(backbone, OpenClipLlama) else extent


def arguments_of(adapter: Path, name: str) -> dict[str, object]:
    """Returns the arguments of the method that has one of this name, of several combined ones as well."""
    said = read_adapter_config(adapter).get("arguments")
    arguments = said if isinstance(said, dict) else {}
    members = [arguments, *(each for each in arguments.values() if isinstance(each, dict))]
    return next((each for each in members if name in each), {})
