"""Files of a sweep of seconds: an experiment on invented data with two evaluation sets, and a sweep over it."""

import json
from pathlib import Path
from typing import Any

from data_modules.mnist import MNIST
from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR


def write_experiment(folder: Path, name: str = "small", steps: int = 4, source: str = "projector", **top: Any) -> Path:
    """Writes a shipped experiment with its data replaced by invented ones below ``folder``."""
    for module, data in ((VisionFlan, "vision_flan"), (VSR, "vsr"), (MNIST, "mnist")):
        if not (folder / data).exists():
            module.write_fake(folder / data)
    settings = {"template": "vicuna_v1", "batch_size": 100, "max_new_tokens": 8}
    config = {
        "include": [str(Path("experiments", f"{source}.yaml").absolute())],
        "data": {
            "init_args": {
                "root": str(folder / "vision_flan"),
                "validation_file": None,
                "validation_fraction": 0.5,
                "questions_per_sample": 1,
                "batch_size": 8,
            }
        },
        "benchmarks": [
            {
                "class_path": f"data_modules.{each.name}.{each.__name__}",
                "init_args": {"root": str(folder / each.name), **settings},
            }
            for each in (VSR, MNIST)
        ],
        "trainer": {"max_steps": steps},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config | top, indent=1))
    return path


def write_sweep(folder: Path, **content: Any) -> Path:
    """Writes a sweep's file."""
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path
