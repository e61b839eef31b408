"""Folders of models that ask for code which is no part of the installed libraries: refused, never asked about."""

from pathlib import Path

from lightning_m2pt.backbones.config_values import one_of
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.visible_text import counted

CONFIG_FILE, TOKENIZER_SETTINGS = "config.json", "tokenizer_config.json"
FILES_OF_CODE = ("configuration_*.py", "modeling_*.py", "tokenization_*.py", "image_processing_*.py", "processing_*.py")
"""What the hub calls a model's own code."""
CODE = "the folder asks to run its own code, which is never done"
KERNEL = "kernels and attention functions of other packages are neither proven nor fetched"

INSTALLED_CODE_ONLY: dict[str, tuple[tuple[object, ...], str]] = {
    "auto_map": ((None,), CODE),
    "trust_remote_code": ((None, False), CODE),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        ((None, "eager", "sdpa"), KERNEL),
    ),
    **dict.fromkeys(
        ("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
        ((None, "eager"), KERNEL),
    ),
    "use_kernels": ((None, False), KERNEL),
    "kernel_config": ((None,), KERNEL),
}
"""Keys of ``config.json``, the values that are accepted, and why no other is."""


def refuse_foreign_code(folder: Path, key: str) -> None:
    """Refuses a folder that brings code or names some, whether or not anything would run it.

    Args:
        folder: A language model's folder; files that are missing are for others to miss.
        key: The setting that named the folder, for messages.

    Raises:
        BadInputError: Naming file and key.
    """
    code = sorted(path.name for pattern in FILES_OF_CODE for path in folder.glob(pattern))
    if code:
        raise BadInputError(
            f"the folder brings code: {counted(code)}",
            where=str(folder),
            expected="a model whose code is part of transformers",
            hint=CODE,
        )
    config, settings = folder / CONFIG_FILE, folder / TOKENIZER_SETTINGS
    if config.is_file():
        content = read_json(config, key)
        for name, (accepted, reason) in INSTALLED_CODE_ONLY.items():
            one_of(content, name, config, accepted, reason)
    if settings.is_file():
        one_of(read_json(settings, key), "auto_map", settings, (None,), CODE)
