"""The objects of a small run, as somebody makes them in Python: what ``small_words`` describes."""

from pathlib import Path
from typing import Any

from data_modules.vision_flan import VisionFlan
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW

RATES = {"visual_prompts": 2.0e-2, "textual_prompts": 1.0e-2, "interaction": 1.0e-3}
TRAINER: dict[str, Any] = {
    "max_epochs": -1,
    "max_steps": 3,
    "gradient_clip_val": 1.0,
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
}
QUIET: dict[str, Any] = {**TRAINER, "logger": False, "enable_model_summary": False}


def small_method() -> M2PT:
    """Returns the method of the shipped experiment."""
    return M2PT(visual_length=10, textual_length=10, init="normal", init_std=0.1)


def small_module(method: Method | None = None) -> TuningModule:
    """Returns a module with rates by part; another method's are one number."""
    rates = RATES if method is None else 1e-3
    return TuningModule(embedded_backbone(), method or small_method(), AdamW(rates))


def small_data(folder: Path, **settings: Any) -> VisionFlan:
    """Returns sixteen invented records below ``folder``, which ``small_words`` writes, too."""
    root = folder / "vision_flan"
    if not root.exists():
        VisionFlan.write_fake(root)
    return VisionFlan(str(root), "vicuna_v1", **{"batch_size": 8, "max_text_length": 160, **settings})
