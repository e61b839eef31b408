"""Lightning's way to our checkpoint writer, for a single device and DDP.

FSDP, FSDP2 and DeepSpeed ignore such plug-ins.
"""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.checkpoint import read_checkpoint, step_of, write_checkpoint


class VerifiedCheckpointIO(CheckpointIO):
    """Saves to and loads from folders named ``step=000500``; never pickles."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a step's folder.

        Raises:
            BadInputError: If a callback keeps what no checkpoint can hold.
        """
        folder = Path(path)
        try:
            write_checkpoint(folder.parent, step_of(folder), checkpoint)
        except TypeError as error:
            what, _, instead = str(error).partition(": ")
            raise BadInputError(what, where=str(folder), expected=instead or "plain values and tensors") from error

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        shutil.rmtree(path)
