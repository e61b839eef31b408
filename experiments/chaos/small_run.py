"""The run that is killed: a real command of seconds, on the embedded backbone and invented records."""

import json
from pathlib import Path

from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR

CONFIG = Path(__file__).resolve().parents[1] / "m2pt_base.yaml"


def write_records(folder: Path) -> None:
    """Writes the invented records that the run is tuned, validated and evaluated on."""
    VisionFlan.write_fake(folder / "vision_flan")
    VSR.write_fake(folder / "vsr")


def command_words(verb: str, records: Path, outputs: Path, workers: int) -> list[str]:
    """Returns the words of the command, made so that a wrong resume shows.

    With dropout, so that a random state that is not restored changes numbers; two micro-batches a step; a validation
    after every epoch, another inside it and one after the last step, by which an adapter is chosen; a save interval
    that divides neither epochs nor the run.

    Args:
        verb: ``fit``, or ``train``, which answers questions as well.
        records: Where ``write_records`` has written.
        outputs: Folder of all runs.
        workers: Loader processes.
    """
    questions = {"root": str(records / "vsr"), "template": "vicuna_v1", "batch_size": 1, "max_new_tokens": 3}
    best = {"class_path": "callbacks.best_adapter.BestAdapter", "init_args": {"evaluated": "best"}}
    sets = [{"class_path": "data_modules.vsr.VSR", "init_args": questions}] if verb == "train" else []
    settings = {
        "data.root": records / "vision_flan",
        "data.validation_file": "null",
        "data.validation_fraction": 0.4,
        "data.questions_per_sample": 1,
        "data.batch_size": 4,
        "data.micro_batch_size": 2,
        "data.num_workers": workers,
        "model.method.dropout": 0.2,
        "trainer.max_steps": 7,
        "trainer.val_check_interval": 0.5,
        "trainer.callbacks": json.dumps([best]),
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "save_every_n_steps": 2,
        "output_root": outputs,
        "benchmarks": json.dumps(sets),
    }
    words = [verb, "--config", str(CONFIG)]
    return words + [word for key, value in settings.items() for word in (f"--{key}", str(value))]
