"""The figures behind test_parity.py and test_shortcuts.py: how far paths and shortcuts are from the reference.

python -m benchmarks.training.parity
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from tests.backbones.test_shortcuts import EVERY_SHORTCUT, m2pt_on
from tests.prompts.test_parity import float64_islands, largest_relative, three_paths

OUTPUT = Path("benchmarks/results/parity.json")


def distances(dtype: torch.dtype) -> dict[str, dict[str, float]]:
    """Returns the largest relative differences in outputs and over every gradient, by path."""
    with tempfile.TemporaryDirectory() as folder:
        results = three_paths(Path(folder), dtype)
    logits, gradients = results["reference"]
    return {
        path: {
            "outputs": float((results[path][0] - logits).abs().max() / logits.abs().max()),
            "gradients": largest_relative(gradients, results[path][1]),
        }
        for path in ("token", "prefix")
    }


def distances_of_shortcuts(dtype: torch.dtype) -> dict[str, float]:
    """Returns the largest relative differences of the prefix path with all shortcuts from the token path."""
    with tempfile.TemporaryDirectory() as folder:
        reference, gradients = m2pt_on(Path(folder), dtype, "token", EVERY_ROW)
        rows, found = m2pt_on(Path(folder), dtype, "prefix", EVERY_SHORTCUT)
    return {
        "losses": float(((rows.losses - reference.losses) / reference.losses).detach().abs().max()),
        "gradients": largest_relative(gradients, found),
    }


def main() -> None:
    """Measures all three settings and stores them."""
    with pytest.MonkeyPatch.context() as monkeypatch, float64_islands(monkeypatch):
        exact = distances(torch.float64) | {"shortcuts": distances_of_shortcuts(torch.float64)}
    content = {
        "float64, float32 islands replaced": exact,
        "float64, untouched classes": distances(torch.float64) | {"shortcuts": distances_of_shortcuts(torch.float64)},
        "float32, untouched classes": distances(torch.float32) | {"shortcuts": distances_of_shortcuts(torch.float32)},
    }
    OUTPUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
