"""Runs ``m2pt push``; its flags and what it is for are in ``parsers``."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.application.publishing import Publication, publication
from lightning_m2pt.backbones.hub_ids import COMMIT, refuse_odd_name
from lightning_m2pt.commands.parsers.push import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from lightning_m2pt.system.console import say
from lightning_m2pt.system.hub_download import refuse_offline
from lightning_m2pt.system.hub_upload import (
    DEFAULT_BRANCH,
    PresentRepository,
    hub_client,
    is_where_main_is,
    present_repository,
    send_files,
)
from lightning_m2pt.visible_text import counted

FILES_OF_EVERY_REPOSITORY = {".gitattributes"}


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If there is no adapter or licence, something private would be sent, or something else is there.
        EnvironmentFailure: If the hub cannot be reached or refuses.
    """
    own = argument_parser().parse_args(list(arguments))
    refuse_odd_target(own.name, own.revision)
    sent = publication(own.run, own.name, own.license, own.name_ok)
    say_plan(sent, own)
    if not own.yes:
        say("nothing was sent: --yes sends it")
        return ExitCode.DONE
    refuse_offline("nothing can be sent without a network", "the variable unset", "push on a machine with a network")
    client = hub_client()
    present = present_repository(client, own.name, own.revision)
    with tempfile.TemporaryDirectory() as folder:
        files = sent.staged(Path(folder))
        if present is not None:
            refuse_others_work(own, client, present, files)
            if all(present.has(name, path) for name, path in files.items()):
                say(f"nothing to send: all of it is there, {own.name} at {present.commit}")
                return ExitCode.DONE
        say(f"sending {sum(path.stat().st_size for path in files.values()):,} bytes")
        commit = send_files(
            client,
            own.name,
            own.revision,
            files,
            present=present,
            private=own.private,
            message="Adapter tuned with lightning_m2pt",
        )
    say(f"sent: {own.name} at {commit}")
    if present is not None and present.commit is not None:
        say(f"what was there before stays as --revision {present.commit}")
    return ExitCode.DONE


def refuse_odd_target(name: str, branch: str) -> None:
    """Refuses what is no name of a repository with an owner, or no branch.

    Raises:
        BadInputError: Naming it.
    """
    refuse_odd_name(name, branch, "command line")
    if "/" not in name:
        raise BadInputError(
            f"{name!r:.80} has no owner",
            where="command line",
            expected="OWNER/NAME, OWNER as your page on the hub has it",
        )
    if COMMIT.fullmatch(branch):
        raise BadInputError(
            "a commit cannot be changed", where="command line: --revision", expected="a branch", hint="--revision main"
        )


def say_plan(sent: Publication, own: argparse.Namespace) -> None:
    """Says what would be sent, where to, and what its readers see and need."""
    branch = "" if own.revision == DEFAULT_BRANCH else f", branch {own.revision}"
    seen = "private if it is new" if own.private else "for everybody to see if it is new"
    say(f"from {sent.adapter} to {own.name}{branch} ({seen}), licence {sent.licence}:")
    for name, size in sent.sizes().items():
        say(f"  {name:<28} {size:>14,} bytes")
    for note in sent.notes:
        say(f"note: {note}")
    if sent.private_sets:
        say(f"note: sets of your own, looked for in every file: {counted(sorted(sent.private_sets))}")
    say("the card:")
    for line in sent.card.rstrip().splitlines():
        say(f"  {line}".rstrip())


def refuse_others_work(
    own: argparse.Namespace,
    client: Any,  # noqa: ANN401
    present: PresentRepository,
    files: dict[str, Path],
) -> None:
    """Refuses to publish what should be private, and to replace what is not this adapter.

    A branch that a push has made, and that was cut off before its commit, holds what ``main`` holds: that is nobody's
    work on this branch, and stays on the other.

    Raises:
        BadInputError: If the repository is not private though it should be, or holds something else.
        EnvironmentFailure: If the hub cannot be reached.
    """
    if own.private and not present.is_private:
        raise BadInputError(
            "the repository is there, and everybody sees it",
            where=own.name,
            expected="a private one, or a new name",
            hint="its page on the hub can make it private",
        )
    is_same = present.has(TENSOR_FILE, files[TENSOR_FILE])
    others = sorted(set(present.files) - FILES_OF_EVERY_REPOSITORY)
    if others and not is_same and not own.replace and not is_where_main_is(client, own.name, own.revision, present):
        raise BadInputError(
            f"something else is there: {counted(others)}",
            where=f"{own.name} at {present.commit}",
            expected="an empty repository, or the same adapter",
            hint="--revision BRANCH puts it beside that, --replace in its place; the old commit stays",
        )
