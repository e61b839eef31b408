"""Features of a frozen vision tower, kept on disk.

A picture's features are the same in every epoch and every run as long as nothing in the tower is trained. One file
holds one picture's. Its name is the hash of the pixels the tower reads and of what computes on them, so a cache may be
shared by runs, processes and data sets. A damaged file counts as missing and is replaced.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system.atomic_files import draft_of, remove_dead_drafts
from lightning_m2pt.system.tensor_hashes import hash_tensors

FEATURES, DIGEST = "features", "sha256"
COUNTER = "bytes"
COUNTER_DIGITS = 20

log = logging.getLogger(__name__)


class FeatureCache:
    """Reads and writes the features of single pictures.

    Args:
        folder: Where the files lie; made when the first one is written.
        maximum_bytes: Size of all files together, over all processes, beyond which nothing more is written.
        computing: What the tower's tensors do not tell of how it computes: activation function, heads.

    Raises:
        BadInputError: If the size is not positive.
    """

    def __init__(self, folder: Path, maximum_bytes: int, computing: str) -> None:
        if maximum_bytes < 1:
            raise BadInputError(
                f"the feature cache may have {maximum_bytes} bytes",
                where="model.backbone.feature_cache_bytes",
                expected="at least 1",
            )
        self.folder = folder
        self.maximum_bytes = maximum_bytes
        self.computing = computing
        self._tower_name = ""
        self._writes = True

    def check(self) -> None:
        """Makes the folder, and removes what killed processes have left half written in it.

        Raises:
            EnvironmentFailure: If nothing can be written there.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            remove_dead_drafts(self.folder)
        except OSError as error:
            raise EnvironmentFailure(
                f"features cannot be kept there: {error.strerror}",
                where=f"model.backbone.feature_cache: {self.folder}",
                expected="a folder that can be written",
            ) from error

    @staticmethod
    def may_serve(tower: nn.Module, pixel_values: Tensor) -> bool:
        """Tells whether the features of a training step are constants.

        They are not where a tensor of the tower or the pixels get a gradient, or where a hook changes or reads what
        the tower computes. Questions are asked once: answering neither reads nor fills the cache.
        """
        if not torch.is_grad_enabled() or pixel_values.requires_grad:
            return False
        if any(parameter.requires_grad for parameter in tower.parameters()):
            return False
        return not any(module._forward_hooks or module._forward_pre_hooks for module in tower.modules())

    def features(
        self,
        tower: nn.Module,
        pixel_values: Tensor,
        compute: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
    ) -> Tensor:
        """Returns the features of every picture, from disk where they are, else computed and stored.

        Args:
            tower: What computes them; its tensors are part of the key and must not change afterwards.
            pixel_values: (B, 3, H, W).
            compute: Maps (M, 3, H, W) to (M, N, D); called once, with the pictures that are not on disk.
            shape: (N, D); features of any other count as missing.

        Returns:
            (B, N, D).
        """
        keys = self._keys(tower, pixel_values)
        first_places: dict[str, int] = {}
        for place, key in enumerate(keys):
            first_places.setdefault(key, place)
        found = {key: self._read(key, shape) for key in first_places}
        missing = [key for key, features in found.items() if features is None]
        if missing:
            computed = compute(pixel_values[[first_places[key] for key in missing]])
            for key, features in zip(missing, computed, strict=True):
                found[key] = features
                self._write(key, features)
        rows = [features.to(pixel_values.device) for key in keys if (features := found[key]) is not None]
        return torch.stack(rows)

    def path_of(self, key: str) -> Path:
        """Returns where the features of a key lie."""
        return self.folder / self._tower_name / key[:2] / f"{key}.safetensors"

    def _keys(self, tower: nn.Module, pixel_values: Tensor) -> list[str]:
        """Returns the names of the pictures, by the bytes that the tower reads and the type it computes in."""
        if not self._tower_name:
            named = self.computing + hash_tensors(tower.state_dict())
            self._tower_name = hashlib.sha256(named.encode()).hexdigest()[:16]
        device = pixel_values.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        computing = f"{torch.__version__}|{device}|{autocast}|{pixel_values.dtype}|{tuple(pixel_values.shape[1:])}|"
        pictures = pixel_values.detach().cpu().contiguous().view(torch.uint8)
        return [hashlib.sha256(computing.encode() + picture.numpy().tobytes()).hexdigest() for picture in pictures]

    def _read(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        try:
            tensors = load(self.path_of(key).read_bytes())
            features, digest = tensors[FEATURES], tensors[DIGEST]
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if tuple(features.shape) != shape or digest.dtype != torch.uint8:
            return None
        return features if torch.equal(digest, digest_of(features)) else None

    def _write(self, key: str, features: Tensor) -> None:
        """Stores one picture's features if there is room; what the disk refuses is said once and costs no training."""
        if not self._writes:
            return
        stored = features.detach().cpu().contiguous()
        content, path = save({FEATURES: stored, DIGEST: digest_of(stored)}), self.path_of(key)
        draft = draft_of(self.folder / path.name)  # all in one folder, where those of killed processes are found
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writes = reserve(self.folder, len(content), self.maximum_bytes)
            if not self._writes:
                log.info("the feature cache %s is full at %d bytes", self.folder, self.maximum_bytes)
                return
            # Without fsync, which would cost more than the features: what a power cut tears is a miss.
            draft.write_bytes(content)
            draft.replace(path)
        except OSError as error:
            self._writes = False
            with contextlib.suppress(OSError):
                draft.unlink()
            log.warning("the feature cache %s takes nothing more: %s", self.folder, error)


def digest_of(features: Tensor) -> Tensor:
    """Returns the SHA-256 of a tensor's type, shape and bytes as (32,) uint8."""
    return torch.tensor(list(bytes.fromhex(hash_tensors({FEATURES: features}))), dtype=torch.uint8)


def reserve(folder: Path, size: int, maximum_bytes: int) -> bool:
    """Adds to the bytes that all processes have written into a cache, unless they would become too many.

    The count stands in a file of fixed length, so a kill leaves an old or a new one; if it says nothing, the files are
    counted. A damaged file that is replaced counts twice: the cache may end smaller than allowed, never larger.

    Args:
        folder: The cache's folder.
        size: Bytes to come.
        maximum_bytes: Limit.

    Returns:
        Whether there is room.
    """
    descriptor = os.open(folder / COUNTER, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        text = os.read(descriptor, COUNTER_DIGITS)
        counted = int(text) if text.isdigit() and len(text) == COUNTER_DIGITS else bytes_below(folder)
        if counted + size > maximum_bytes:
            return False
        os.pwrite(descriptor, f"{counted + size:0{COUNTER_DIGITS}d}".encode(), 0)
        return True
    finally:
        os.close(descriptor)  # which releases the lock


def bytes_below(folder: Path) -> int:
    """Returns the bytes of all feature files."""
    return sum(path.stat().st_size for path in folder.glob("*/*/*.safetensors"))
