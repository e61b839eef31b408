"""Lightning's way to our checkpoint writer, for a single device and DDP.

FSDP, FSDP2 and DeepSpeed ignore such plug-ins.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.checkpoint import read_checkpoint, step_of, write_checkpoint, write_folder


class VerifiedCheckpointIO(CheckpointIO):
    """Saves to and loads from folders named ``step=000500``; never pickles."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a step's folder.

        Raises:
            BadInputError: If a callback keeps what no checkpoint can hold.
        """
        folder = Path(path)
        with what_cannot_be_held(folder):
            write_checkpoint(folder.parent, step_of(folder), checkpoint)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        shutil.rmtree(path)


class FolderCheckpointIO(VerifiedCheckpointIO):
    """Saves to and loads from folders of any name, for a Trainer's own ``ModelCheckpoint``; never pickles."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a folder.

        Raises:
            BadInputError: If a callback keeps what no checkpoint can hold.
        """
        folder = Path(path)
        with what_cannot_be_held(folder):
            write_folder(folder, checkpoint)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a folder.

        Raises:
            BadInputError: If it is a file, or no complete checkpoint.
        """
        if Path(path).is_file():
            raise BadInputError(
                "this is a file, which could only be unpickled",
                where=str(path),
                expected="a folder that a Trainer wrote while it tuned a TuningModule",
            )
        return super().load_checkpoint(path, map_location, weights_only)


@contextmanager
def what_cannot_be_held(folder: Path) -> Iterator[None]:
    """Turns the refusal of what is neither a plain value nor a tensor into three lines.

    Raises:
        BadInputError: If a callback keeps such a thing.
    """
    try:
        yield
    except TypeError as error:
        what, _, instead = str(error).partition(": ")
        raise BadInputError(what, where=str(folder), expected=instead or "plain values and tensors") from error
