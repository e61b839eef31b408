"""The one writer and reader of training state: verified folders, never half written, never pickled.

``checkpoints/step=000500/`` holds ``state.safetensors`` (tensors), ``state.json`` (everything else) and
``manifest.json`` with size and SHA-256 of both. A checkpoint is written in a draft folder, manifest last, verified,
and renamed to its name in one step, so a folder of that name was complete once; the manifest says whether it still is.
A step that is written again has its old folder beside it, as ``replaced-step=000500``, until the new one stands there;
whoever finds one without the other gives it its name back.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.state_codec import decode_state, encode_state
from lightning_m2pt.system.atomic_files import cannot_write, sync_folder, write_atomically
from lightning_m2pt.system.strict_json import parse_json

FORMAT_VERSION = 1
KEPT = 2
TENSOR_FILE, TEXT_FILE, MANIFEST_FILE = "state.safetensors", "state.json", "manifest.json"
STEP_FOLDER = re.compile(r"step=(\d{6,})")
LEFTOVERS = ("writing-step=*", "replaced-step=*", "removing-step=*")
REPLACED = "replaced-"

log = logging.getLogger(__name__)


def step_folder(checkpoints_dir: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return checkpoints_dir / f"step={step:06d}"


def step_of(folder: Path) -> int:
    """Returns the step a checkpoint folder is named after.

    Raises:
        BadInputError: If it is not named after one.
    """
    match = STEP_FOLDER.fullmatch(folder.name)
    if match is None:
        raise BadInputError("not a checkpoint's name", where=str(folder), expected="a folder like step=000500")
    return int(match.group(1))


def write_checkpoint(checkpoints_dir: Path, step: int, checkpoint: dict[str, Any]) -> Path:
    """Writes a checkpoint, verifies it, and only then removes older ones.

    Args:
        checkpoints_dir: Where a run's checkpoints are; made if missing.
        step: Optimizer steps done.
        checkpoint: The state; see ``state_codec`` for what it may hold.

    Returns:
        The checkpoint's folder.

    Raises:
        EnvironmentFailure: If it cannot be written; older checkpoints are untouched then.
        TypeError: If the state holds something that is neither text, number, container nor tensor.
    """
    tensors, text = encode_state(checkpoint)
    files = {TENSOR_FILE: safetensors.torch.save(tensors), TEXT_FILE: text.encode()}
    folder = step_folder(checkpoints_dir, step)
    draft, replaced = (folder.with_name(f"{stage}{folder.name}") for stage in ("writing-", REPLACED))
    try:
        checkpoints_dir.mkdir(parents=True, exist_ok=True)
        _restore_replaced(checkpoints_dir)
        _remove_leftovers(checkpoints_dir)
        draft.mkdir()
        _write_files(draft, step, files)
        if (problem := damage(draft)) is not None:
            raise OSError(f"it does not read back ({problem})")
        if os.path.lexists(folder):
            folder.rename(replaced)
        draft.rename(folder)
        sync_folder(checkpoints_dir)
    except OSError as error:
        raise cannot_write(folder, sum(map(len, files.values())), error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(OSError):
            _restore_replaced(checkpoints_dir)
    _remove_old(checkpoints_dir, newest=folder)
    return folder


def write_folder(folder: Path, checkpoint: dict[str, Any]) -> None:
    """Writes a checkpoint under a name of somebody's own, verifies it, and leaves all others alone.

    Args:
        folder: Its folder; one that is there is replaced once the new one is complete.
        checkpoint: The state; see ``state_codec`` for what it may hold.

    Raises:
        EnvironmentFailure: If it cannot be written.
        TypeError: If the state holds something that is neither text, number, container nor tensor.
    """
    tensors, text = encode_state(checkpoint)
    files = {TENSOR_FILE: safetensors.torch.save(tensors), TEXT_FILE: text.encode()}
    draft, replaced = (folder.with_name(f".{stage}-{os.getpid()}-{folder.name}") for stage in ("writing", "replaced"))
    try:
        draft.mkdir(parents=True)
        _write_files(draft, int(checkpoint["global_step"]), files)
        if (problem := damage(draft)) is not None:
            raise OSError(f"it does not read back ({problem})")
        if os.path.lexists(folder):
            folder.rename(replaced)
        draft.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, sum(map(len, files.values())), error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Returns the state in a checkpoint's folder, its tensors on the CPU.

    Raises:
        BadInputError: If it is damaged or not a checkpoint.
    """
    if (problem := damage(folder)) is not None:
        raise BadInputError(f"damaged checkpoint: {problem}", where=str(folder), expected="a complete checkpoint")
    try:
        tensors = safetensors.torch.load((folder / TENSOR_FILE).read_bytes())
    except safetensors.SafetensorError as error:
        raise BadInputError(f"damaged checkpoint: {error}", where=str(folder)) from error
    state = decode_state(tensors, (folder / TEXT_FILE).read_bytes(), folder / TEXT_FILE)
    if not isinstance(state, dict):
        raise BadInputError("damaged checkpoint: not a dict", where=str(folder / TEXT_FILE))
    return state


def latest_checkpoint(checkpoints_dir: Path) -> Path | None:
    """Returns the newest checkpoint that is complete and verified, or None if there is none at all.

    Damaged ones that are newer are renamed aside and reported, never deleted. Order is by step, not by time stamp.

    Raises:
        BadInputError: If there are checkpoints but all are damaged; then nothing is touched.
    """
    problems: dict[Path, str] = {}
    _restore_replaced(checkpoints_dir)
    for folder in reversed(_step_folders(checkpoints_dir)):
        if (problem := damage(folder)) is None:
            for damaged, reason in problems.items():
                _put_aside(damaged, reason, taken_instead=folder)
            return folder
        problems[folder] = problem
    if problems:
        reasons = "; ".join(f"{folder.name}: {reason}" for folder, reason in problems.items())
        raise BadInputError(
            f"every checkpoint is damaged ({reasons})",
            where=str(checkpoints_dir),
            expected="at least one complete checkpoint",
            hint="start over with --force, or move this folder away",
        )
    return None


def recover_checkpoints(checkpoints_dir: Path) -> None:
    """Finishes what a stop has cut off in a folder of checkpoints; nobody may be writing there.

    Raises:
        OSError: If a checkpoint's name cannot be given back to it.
    """
    _restore_replaced(checkpoints_dir)
    complete = [folder for folder in _step_folders(checkpoints_dir) if damage(folder) is None]
    if complete:
        _remove_old(checkpoints_dir, newest=complete[-1])
    _remove_leftovers(checkpoints_dir)


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's folder, or None if it is complete and verified."""
    try:
        manifest = parse_json((folder / MANIFEST_FILE).read_bytes(), folder / MANIFEST_FILE)
        version, files = manifest["format"], dict(manifest["files"])
        if version != FORMAT_VERSION:
            return f"format version {version} instead of {FORMAT_VERSION}"
        if STEP_FOLDER.fullmatch(folder.name) and manifest["step"] != step_of(folder):
            return f"it is of step {manifest['step']!r:.20}"
        if set(files) != {TENSOR_FILE, TEXT_FILE}:
            return f"{MANIFEST_FILE} does not list its two files"
        for name, recorded in files.items():
            if _fingerprint((folder / name).read_bytes()) != recorded:
                return f"{name} differs from its checksum"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST_FILE} is not readable"
    return None


def _write_files(draft: Path, step: int, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        write_atomically(draft / name, content)
    fingerprints = {name: _fingerprint(content) for name, content in files.items()}
    manifest = {"format": FORMAT_VERSION, "step": step, "files": fingerprints}
    write_atomically(draft / MANIFEST_FILE, json.dumps(manifest, indent=2).encode())


def _fingerprint(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _step_folders(checkpoints_dir: Path) -> list[Path]:
    if not checkpoints_dir.is_dir():
        return []
    return sorted((path for path in checkpoints_dir.iterdir() if STEP_FOLDER.fullmatch(path.name)), key=step_of)


def _restore_replaced(checkpoints_dir: Path) -> None:
    """Gives a checkpoint its name back whose successor was cut off between the two renames."""
    for replaced in checkpoints_dir.glob(f"{REPLACED}step=*"):
        folder = replaced.with_name(replaced.name.removeprefix(REPLACED))
        if not os.path.lexists(folder):
            with contextlib.suppress(FileNotFoundError):  # another rank was quicker
                replaced.rename(folder)


def _remove_old(checkpoints_dir: Path, newest: Path) -> None:
    """Removes all but the newest checkpoints; a new one that stands is not lost because an old one cannot go."""
    try:
        others = [folder for folder in _step_folders(checkpoints_dir) if folder != newest and damage(folder) is None]
        for folder in others[: len(others) - (KEPT - 1)]:
            # Renamed first, so that a kill in between leaves no half folder under a checkpoint's name.
            folder.rename(folder.with_name(f"removing-{folder.name}"))
    except OSError as error:
        log.warning("an old checkpoint cannot be removed (%s): %s", error.strerror, checkpoints_dir)
    _remove_leftovers(checkpoints_dir)


def _remove_leftovers(checkpoints_dir: Path) -> None:
    # What cannot be removed now (a network disk keeps the name of a file that is still open) goes the next time.
    for pattern in LEFTOVERS:
        for folder in checkpoints_dir.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def _put_aside(folder: Path, reason: str, taken_instead: Path) -> None:
    aside, number = folder.with_name(f"damaged-{folder.name}"), 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"damaged-{number}-{folder.name}")
    with contextlib.suppress(FileNotFoundError):  # another rank was quicker
        folder.rename(aside)
    log.warning("%s is damaged (%s), renamed to %s; using %s", folder, reason, aside.name, taken_instead.name)
