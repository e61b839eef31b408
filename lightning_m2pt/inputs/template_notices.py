"""What is worth knowing of the templates in use, said once."""

from collections.abc import Iterable

from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.system.console import say


def say_notices(processor: Processor, templates: Iterable[Template]) -> None:
    """Says, a line each, where a template is not the model's own, or asks or ends otherwise than one would think.

    Args:
        processor: The model's.
        templates: What conversations are written in.

    Raises:
        BadInputError: If one of them cannot be used with this model.
    """
    notices = (notice for template in templates for notice in processor.bound(template).notices)
    for notice in dict.fromkeys(notices):
        say(f"note: {notice}")
