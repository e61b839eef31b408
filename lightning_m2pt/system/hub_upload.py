"""Sending files to a model repository of the Hugging Face hub: one commit of all of them, or none.

Only ``m2pt push --yes`` comes here. Large files are stored before the commit that names them: a push that was cut off
finds them there, and sends what is missing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError, EnvironmentFailure, M2PTError
from lightning_m2pt.system import hub_patience
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.hub_download import git_id_of
from lightning_m2pt.system.hub_patience import patient_hub

DEFAULT_BRANCH = "main"
DIGITS_OF_SHA256 = 64
"""Git's ids have 40, and are of small files: a large one is not read whole for nothing."""
AGAIN = "give the same command again: what was sent whole is not sent again"


@dataclass(frozen=True)
class PresentRepository:
    """What a repository is before anything is sent.

    Attributes:
        commit: The newest commit of the branch; None if there is no such branch yet.
        is_private: Whether only its owner sees it.
        files: SHA-256 of the branch's large files and Git's id of every other, by name.
    """

    commit: str | None
    is_private: bool
    files: Mapping[str, str]

    def has(self, name: str, path: Path) -> bool:
        """Tells whether a file is there with the same content."""
        present = self.files.get(name)
        if present is None:
            return False
        return present == (read_and_hash(path) if len(present) == DIGITS_OF_SHA256 else git_id_of(path))


def hub_client() -> Any:  # noqa: ANN401  (the library is optional)
    """Returns the hub's client with the token that ``hf auth login`` or ``HF_TOKEN`` gave.

    Raises:
        EnvironmentFailure: If there is no token.
    """
    import huggingface_hub

    token = huggingface_hub.get_token()
    if token is None:
        raise EnvironmentFailure(
            "there is no token of the hub on this machine",
            where="HF_TOKEN",
            expected="a token that may write",
            hint="hf auth login",
        )
    return huggingface_hub.HfApi(token=token, library_name="lightning_m2pt")


def present_repository(client: Any, name: str, branch: str) -> PresentRepository | None:  # noqa: ANN401
    """Asks the hub what a repository holds; None if there is none that the token may see.

    Args:
        client: What ``hub_client`` returned.
        name: ``owner/name``.
        branch: The branch that is meant.

    Raises:
        EnvironmentFailure: If the hub cannot be reached, or does not accept the token.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with talking(name):
        try:
            try:
                info = client.model_info(
                    name, revision=branch, files_metadata=True, timeout=hub_patience.SECONDS_WITHOUT_A_BYTE
                )
            except RevisionNotFoundError:
                info = client.model_info(name, timeout=hub_patience.SECONDS_WITHOUT_A_BYTE)
                return PresentRepository(None, bool(info.private), {})
        except RepositoryNotFoundError as error:
            if status_of(error) != 404:
                raise
            return None
    files = {one.rfilename: one.lfs.sha256 if one.lfs is not None else one.blob_id for one in info.siblings or []}
    return PresentRepository(info.sha, bool(info.private), files)


def is_where_main_is(client: Any, name: str, branch: str, present: PresentRepository) -> bool:  # noqa: ANN401
    """Tells whether another branch than ``main`` has no commit of its own: it was made, and nothing sent to it since.

    Args:
        client: What ``hub_client`` returned.
        name: ``owner/name``.
        branch: The branch.
        present: What it holds.

    Raises:
        EnvironmentFailure: If the hub cannot be reached.
    """
    if branch == DEFAULT_BRANCH or present.commit is None:
        return False
    beside = present_repository(client, name, DEFAULT_BRANCH)
    return beside is not None and beside.commit == present.commit


def send_files(
    client: Any,  # noqa: ANN401
    name: str,
    branch: str,
    files: Mapping[str, Path],
    *,
    present: PresentRepository | None,
    private: bool,
    message: str,
) -> str:
    """Makes the repository and the branch if they are not there, sends the files, and looks at what arrived.

    Args:
        client: What ``hub_client`` returned.
        name: ``owner/name``.
        branch: The branch; it comes into being where the newest commit of ``main`` is.
        files: The files by their names in the repository; ``README.md`` among them.
        present: What the repository held when it was looked at: a commit of somebody else since then stops this one.
        private: Whether a new repository is for its owner's eyes only.
        message: The commit's first line.

    Returns:
        The commit.

    Raises:
        BadInputError: If the hub refuses the card's header; known before anything is made.
        EnvironmentFailure: If the hub cannot be reached, refuses, or has something else afterwards.
    """
    from huggingface_hub import CommitOperationAdd

    refuse_bad_card(name, files["README.md"])
    with talking(name):
        if present is None:
            client.create_repo(name, private=private)
        if branch != DEFAULT_BRANCH and (present is None or present.commit is None):
            client.create_branch(name, branch=branch)
        made = client.create_commit(
            name,
            [CommitOperationAdd(path_in_repo=inside, path_or_fileobj=str(path)) for inside, path in files.items()],
            commit_message=message,
            revision=branch,
            parent_commit=present.commit if present is not None else None,
            num_threads=1,
        )
    commit = str(made.oid)
    arrived = present_repository(client, name, commit)
    wrong = [inside for inside, path in files.items() if arrived is None or not arrived.has(inside, path)]
    if wrong:
        raise EnvironmentFailure(
            f"{wrong[0]} is not there as it was sent",
            where=f"{name} at {commit}",
            expected="the same content",
            hint=AGAIN,
        )
    return commit


def refuse_bad_card(name: str, card: Path) -> None:
    """Asks the hub whether it takes a card.

    Raises:
        BadInputError: If it does not, such as for a licence that it does not know.
    """
    from huggingface_hub import ModelCard

    with talking(name):
        try:
            ModelCard(card.read_text(encoding="utf-8")).validate()
        except ValueError as error:
            if status_of(error) is not None:
                raise
            raise BadInputError(
                f"the hub refuses its header: {error!s:.160}",
                where=str(card.name),
                expected="a header as the hub's documentation of model cards has it",
                hint="--license takes a licence's short name there, such as apache-2.0, or other",
            ) from error


@contextmanager
def talking(name: str) -> Iterator[None]:
    """Bounds every wait for the hub, keeps its library quiet, and says what a failure means.

    Args:
        name: The repository.

    Raises:
        EnvironmentFailure: If the hub cannot be reached or refuses.
    """
    from huggingface_hub.errors import HTTPError

    try:
        with patient_hub():
            yield
    except M2PTError:
        raise
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, HTTPError) as error:
        raise sending_failure(name, error) from error


def status_of(error: BaseException | None) -> int | None:
    """Returns the HTTP status behind an error, or behind what caused it; None if the hub did not answer."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def sending_failure(name: str, error: Exception) -> EnvironmentFailure:
    """Returns what a failure of the hub's library means to the user."""
    status, owner = status_of(error), name.partition("/")[0]
    said = {
        401: ("the hub does not accept the token", "a token that has not expired", "hf auth login"),
        403: ("the token may not write here", f"a token that may write to {owner}", "hf auth login with another one"),
        404: (
            "there is no such repository, or the token may not see it",
            f"{owner} as an owner that the token belongs to",
            "hf auth whoami says whose token it is",
        ),
        409: ("somebody else made it meanwhile", "nobody else at work on it", AGAIN),
        412: (
            "somebody else changed it meanwhile",
            "nobody else at work on it",
            "give the same command again: it looks",
        ),
        429: ("the hub has been asked too often", "some minutes of rest", AGAIN),
    }
    if status in said:
        what, expected, hint = said[status]
        return EnvironmentFailure(what, where=name, expected=expected, hint=hint)
    if status is not None:
        return EnvironmentFailure(f"the hub failed (HTTP {status})", where=name, expected="an answer", hint=AGAIN)
    if isinstance(error, LookupError | TypeError):  # the library takes every answer for one of the hub's
        return EnvironmentFailure(
            "what answers is no hub", where=name, expected="huggingface.co, or HF_ENDPOINT naming a hub like it"
        )
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    return EnvironmentFailure(
        f"the hub cannot be reached: {type(cause).__name__}: {cause!s:.120}",
        where=name,
        expected="a network, or HF_ENDPOINT naming a mirror",
        hint=AGAIN,
    )
