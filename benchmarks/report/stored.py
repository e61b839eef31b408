"""Stored results, read back."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")


def stored(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Returns stored results; empty if there are none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
