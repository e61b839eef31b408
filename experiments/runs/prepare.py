"""What every verb does before weights are loaded: files are there, testbed data are rendered."""

import os
from pathlib import Path

from data_modules.index.kept import index_folder_of
from data_modules.instruction import InstructionDataModule
from data_modules.mixture import sets_inside
from data_modules.vision_flan_held_out import VisionFlanHeldOut, refuse_tuned_questions
from experiments.configuration.cli import Experiment
from experiments.testbed.manifest import PROMPTING_FOLDER, PROMPTING_SETS, is_complete
from experiments.trainer.accelerators import devices_left_open
from experiments.trainer.surface import configured_devices, configured_processes
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_lock import locked
from lightning_m2pt.system.ranks import started_processes
from lightning_m2pt.tuning.regularisers.base import pixel_prompting

TESTBED_ROOT = Path(__file__).resolve().parents[2] / "data" / "testbed"
TESTBED_SEED = 0


def check_experiment(experiment: Experiment) -> None:
    """Looks for the backbone's files, renders the testbed if the experiment uses it, and connects the data modules.

    Raises:
        BadInputError: If files are missing, or an evaluation set asks what is tuned on.
    """
    connect_experiment(experiment)
    refuse_tuned_benchmarks(experiment)


def connect_experiment(experiment: Experiment) -> None:
    """Does what ``check_experiment`` does before any annotation is read.

    Raises:
        BadInputError: If files of the backbone are missing, or a text that prompts start from cannot be read.
    """
    backbone, method = experiment.model.backbone, experiment.model.method
    backbone.check_files()
    method.check_words(backbone)
    pixels = pixel_prompting(method)
    if pixels is not None and not backbone.shape.tiles_are_patches:
        pixels.check_pictures(backbone.shape.image_size, backbone.processor().no_pixels().shape[1:])
    render_testbed_if_used(experiment)
    experiment.connect()
    let_one_process_read(experiment)


def let_one_process_read(experiment: Experiment) -> None:
    """Has sets of any size keep what is read and found right, where several processes would do it all at once.

    One of them does it, and the others wait for what it keeps, in the folder of indexes in the user's cache.
    """
    trainer = experiment.config["trainer"]
    left_open = devices_left_open(trainer.get("accelerator"), configured_devices(trainer))
    if max(configured_processes(trainer), started_processes(os.environ)[1], left_open) == 1:
        return
    folder = index_folder_of(True, None, 0, 0)
    for data_module in [*sets_inside(experiment.data), *experiment.benchmarks]:
        data_module.checks_folder = folder
        if isinstance(data_module, InstructionDataModule) and folder is not None and data_module.index_folder is None:
            data_module.index_folder = str(folder)


def render_testbed_if_used(experiment: Experiment) -> None:
    """Renders the testbed's data if a data module reads them; does nothing if they are complete.

    The sets that prompts in pixel space are trained on are rendered where one of them is read.
    """
    roots = [data_module.root for data_module in [*sets_inside(experiment.data), *experiment.benchmarks]]
    if any(is_of_testbed(root) for root in roots) and not is_complete(TESTBED_ROOT, TESTBED_SEED):
        from experiments.testbed import render as testbed  # what draws is imported where something is drawn

        with locked(TESTBED_ROOT, lambda: say("waiting: another process is rendering the testbed")):
            if not is_complete(TESTBED_ROOT, TESTBED_SEED):  # another process did it while we waited
                testbed.render_testbed(TESTBED_ROOT, TESTBED_SEED)
    prompting = TESTBED_ROOT / PROMPTING_FOLDER
    is_read = any(root.resolve().is_relative_to(prompting.resolve()) for root in roots)
    if is_read and not is_complete(prompting, TESTBED_SEED, PROMPTING_SETS):
        from experiments.testbed.prompting_render import render_prompting

        with locked(prompting, lambda: say("waiting: another process is rendering the sets for prompts")):
            render_prompting(TESTBED_ROOT, TESTBED_SEED)


def is_of_testbed(root: Path) -> bool:
    """Tells whether a set's folder is one of the testbed's, whatever links lead there."""
    return root.resolve().is_relative_to(TESTBED_ROOT.resolve())


def refuse_tuned_benchmarks(experiment: Experiment) -> None:
    """Looks for questions of a held-out set in the training part of the tuning set.

    Raises:
        BadInputError: If there are any.
    """
    held_out = [benchmark for benchmark in experiment.benchmarks if isinstance(benchmark, VisionFlanHeldOut)]
    if held_out and isinstance(experiment.data, InstructionDataModule):
        training, _ = experiment.data.read_once()
        for benchmark in held_out:
            refuse_tuned_questions(benchmark, training)


def require_benchmarks(experiment: Experiment) -> None:
    """Raises BadInputError if the experiment names no evaluation set."""
    if not experiment.benchmarks:
        raise BadInputError(
            "no evaluation sets",
            where="benchmarks",
            expected="a list of data modules in the experiment's file, or --benchmarks FILE",
        )
