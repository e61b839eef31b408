"""An adapter of the Hugging Face hub as a folder on this machine.

As everywhere in this project a network is used only when it is asked for; otherwise what was fetched before is read
from the hub's cache. Fetched are the configuration, the tensors and the card: no code, no pickles.
"""

from pathlib import Path

from lightning_m2pt.application.publishing import ADAPTER_FILES
from lightning_m2pt.backbones.hub_ids import COMMIT, DEFAULT_REVISION, cache_of, cached_folder, refuse_odd_name
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, TENSOR_FILE
from lightning_m2pt.system.hub_download import HubRepository, download_to_cache, planned, refuse_offline


def adapter_of_hub(name: str, revision: str | None = None, *, fetch: bool = False, where: str = "load") -> Path:
    """Returns the folder of an adapter in the hub's cache; its name is the commit.

    Args:
        name: ``owner/name``.
        revision: Branch, tag or commit; None for ``main``.
        fetch: Whether the hub is asked for the newest files of the revision; a commit that is here is never asked for.
        where: What names it, for messages.

    Raises:
        BadInputError: If the name or revision is none, was not fetched, or holds no adapter.
        EnvironmentFailure: If it shall be fetched and there is no network or room.
    """
    refuse_odd_name(name, revision, where)
    is_here = revision is not None and COMMIT.fullmatch(revision) and is_whole(commit_folder(name, revision))
    if fetch and not is_here:
        return fetched(name, revision)
    try:
        folder = cached_folder(name, revision, where)
    except BadInputError as error:
        or_here = f"{error.hint}, or fetch=True" if error.hint else ""
        raise BadInputError(error.what, where=where, expected=error.expected, hint=or_here) from error
    if not is_whole(folder):
        raise BadInputError(
            f"{name} holds no adapter",
            where=where,
            expected=f"{CONFIG_FILE} and {TENSOR_FILE} in {folder}",
            hint=f"a whole model is a base: base='hub:{name}'",
        )
    return folder


def fetched(name: str, revision: str | None) -> Path:
    """Fetches an adapter's files into the hub's cache, compares them with what the hub says, returns their folder."""
    from huggingface_hub import constants

    refuse_offline()
    repository = HubRepository(name, ADAPTER_FILES, "model")
    plan = planned(repository, revision)
    missing = [file for file in (CONFIG_FILE, TENSOR_FILE) if file not in plan.sizes]
    if missing:
        raise BadInputError(
            f"the repository has no {missing[0]}",
            where=f"{name} at {plan.revision}",
            expected="an adapter",
            hint="another revision may have it",
        )
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    return download_to_cache(repository, plan, cache, cache_of(name), revision or DEFAULT_REVISION)


def commit_folder(name: str, commit: str) -> Path:
    """Returns where the hub's cache keeps a commit, whether or not it does."""
    return cache_of(name) / "snapshots" / commit


def is_whole(folder: Path) -> bool:
    """Tells whether a folder has an adapter's configuration and tensors."""
    return (folder / CONFIG_FILE).is_file() and (folder / TENSOR_FILE).is_file()


def hub_commit(folder: Path) -> str | None:
    """Returns the commit that a folder of the hub's cache holds; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None
