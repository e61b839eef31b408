"""Lightning's way to our checkpoint writer, for a single device and DDP.

FSDP, FSDP2 and DeepSpeed ignore such plug-ins.
"""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from lightning_m2pt.checkpoint import STEP_FOLDER, read_checkpoint, step_folder, step_of, write_checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Saves to and loads from folders named ``step=000500``; never pickles."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        folder = as_step_folder(Path(path))
        write_checkpoint(folder.parent, step_of(folder), checkpoint)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(as_step_folder(Path(path)))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        shutil.rmtree(path)


def as_step_folder(path: Path) -> Path:
    """Returns where the checkpoint of a path stands.

    The launchers of ``ddp_spawn`` and ``ddp_fork`` hand the weights to the parent process in a file of their own name:
    that path becomes a folder with one checkpoint in it.
    """
    return path if STEP_FOLDER.fullmatch(path.name) else step_folder(path, 0)
