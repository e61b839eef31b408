"""What lmms-eval's entry-point group ``lmms_eval.models`` finds: the name of our model and where its class is.

Kept apart from the class, because lmms-eval loads every entry point whenever it starts, whatever model it runs; this
imports neither torch nor Lightning. Read in lmms-eval 0.7.3: ``models/registry_v2.py``.
"""

from typing import Any

MODEL_ID = "m2pt"
CLASS_PATH = "lightning_m2pt.runs.lmms_eval_model.M2PTModel"


def manifest() -> Any:
    """Returns lmms-eval's description of our model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, simple_class_path=CLASS_PATH)
