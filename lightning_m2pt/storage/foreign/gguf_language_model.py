"""A language model out of a GGUF file, by transformers' own reading, as a folder of safetensors.

transformers multiplies packed weights out while it reads; they are written in float32, in which that is exact. What it
does not take over of the tokenizer is put back: SmolLM's splits off every digit before anything else (``smollm`` in the
file's ``tokenizer.ggml.pre``), which decides how blanks in front of a digit are read.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.errors import EnvironmentFailure

DIGITS_FIRST = ("smollm",)
"""Kinds of ``tokenizer.ggml.pre`` that split off every digit."""
OF_THIS_READING = ("quantization_config", "_name_or_path", "_model_name_or_path", "dtype", "torch_dtype")
"""Keys of the configuration that say how it was read, not what the model is."""


def language_model(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns configuration and tensors, under transformers' names, in float32.

    Args:
        path: The GGUF file.

    Raises:
        EnvironmentFailure: If the package that reads such files is not installed.
    """
    refuse_missing_reader(path)
    from transformers import AutoModelForCausalLM

    with without_bars():
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    config = {key: value for key, value in model.config.to_dict().items() if key not in OF_THIS_READING}
    config["architectures"] = [type(model).__name__]
    tied = "lm_head.weight" if config.get("tie_word_embeddings") else ""
    return config, {name: each.contiguous() for name, each in model.state_dict().items() if name != tied}


def write_tokenizer(path: Path, folder: Path) -> None:
    """Writes the tokenizer's files, chat template included.

    Args:
        path: The GGUF file.
        folder: It is there.
    """
    refuse_missing_reader(path)
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoTokenizer

    with without_bars():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    kind = GGUFReader(path).fields["tokenizer.ggml.pre"].contents()
    if kind in DIGITS_FIRST:
        fast = tokenizer.backend_tokenizer
        fast.pre_tokenizer = Sequence([Digits(individual_digits=True), fast.pre_tokenizer])
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    kept = {
        key: value for key, value in json.loads(settings.read_text()).items() if not re.match(r"is_local|local_", key)
    }
    settings.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps transformers' bars, which it draws while it reads such files, out of what is no terminal."""
    with contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


def refuse_missing_reader(path: Path) -> None:
    """Raises EnvironmentFailure if the package that reads GGUF files is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise EnvironmentFailure(
            f"gguf cannot be imported ({error})",
            where=path.name,
            expected="the package that reads GGUF files",
            hint="pip install -c constraints.txt -e '.[real]'",
        ) from error
