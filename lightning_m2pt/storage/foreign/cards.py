"""What stands in the ``README.md`` of a tuned model in others' form."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.named_templates import is_known, template_named
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import ConversationTemplate
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_folder import read_adapter_config

MERGED = """---
library_name: transformers
pipeline_tag: image-text-to-text
---
# {title}

{what}
{left_out}{left_behind}
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(FOLDER)
processor = AutoProcessor.from_pretrained(FOLDER{backend})
```

{rounding}{pictures}{template}"""
LEFT_OUT = """
Left out, though it was trained: {parts}. The answers are those of `m2pt evaluate --knock-out {knocked}`, not those of
the whole tuned model.
"""
LEFT_BEHIND = """
Of the base's folder these files are not here: {files}. Settings and texts are carried over, code never is.
"""
PICTURES = """
Pictures were read with Pillow in tuning. `backend="pil"` reads them so; without it transformers takes torchvision's
resizing, whose pixels differ a little. The token `<image>` was added for this format: it has no weights, and
`generation_config.json` keeps it out of answers.
"""
TEMPLATE = """
Tuned with the template `{name}`{text}
"""


def merged_card(
    adapter: Path, method: Method, backbone: Backbone, left_out: AbstractSet[str], left_behind: Sequence[str] = ()
) -> str:
    """Returns the card of a merged model.

    Args:
        adapter: The adapter's folder.
        method: Its method.
        backbone: Its base.
        left_out: Parts that are not in it.
        left_behind: Names of files of the base's folder that are not in it.

    Raises:
        BadInputError: If the adapter's configuration cannot be read.
    """
    merged = [part for part in method.part_names() if part not in left_out]
    converted = isinstance(backbone, OpenClipLlama)
    if merged:
        title = f"A base with {method.name} merged into it"
        what = f"Weights of the frozen base, with these trained parts put into them: {', '.join(merged)}."
    else:
        title, what = "A frozen base", "Weights of the frozen base, none of them changed."
    what += " CLIP, projector and language model stand in the form of `LlavaForConditionalGeneration`." * converted
    narrow = bool(merged) and backbone.dtype_name not in ("float32", "float64")
    return MERGED.format(
        title=title,
        what=what,
        left_out=left_out_text(method, left_out),
        left_behind=LEFT_BEHIND.format(files=", ".join(f"`{name}`" for name in left_behind)) if left_behind else "",
        backend=', backend="pil"' if converted else "",
        rounding=f"The trained numbers, float32 in tuning, are rounded to {backbone.dtype_name} here.\n" * narrow,
        pictures=PICTURES if converted else "",
        template=template_text(adapter) if method.part_names() else "",
    )


def left_out_text(method: Method, left_out: AbstractSet[str]) -> str:
    """Returns what a card says of parts that are not there; empty if all are."""
    parts: Sequence[str] = [part for part in method.part_names() if part in left_out]
    return LEFT_OUT.format(parts=", ".join(parts), knocked=",".join(parts)) if parts else ""


def template_text(adapter: Path) -> str:
    """Returns what a card says of the words around a question; empty if the adapter does not say them."""
    name = read_adapter_config(adapter).get("template")
    if not isinstance(name, str):
        return ""
    template = template_named(name) if is_known(name) else None
    if not isinstance(template, ConversationTemplate):
        return TEMPLATE.format(name=name, text=".")
    asked = "".join(piece.text for piece in template.pieces([Turn("QUESTION", "")]))
    return TEMPLATE.format(name=name, text=f":\n\n```text\n{asked}\n```")
