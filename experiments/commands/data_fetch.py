"""Runs ``m2pt data fetch``; its flags and what it is for are in ``parsers``."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.commands.parsers.data_fetch import argument_parser
from experiments.datasets.archive_download import archive_revision, download_archive
from experiments.datasets.evaluation_sets import EVALUATION_SETS, default_data_root
from experiments.datasets.sources import SOURCES, Form, Source, TorchvisionArchive
from lightning_m2pt.errors import BadInputError, ExitCode
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
from lightning_m2pt.system.console import say
from lightning_m2pt.system.hub_download import HubRepository, download_from_hub, planned, refuse_offline


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If something is there that this command did not bring, or the source's files have changed.
        EnvironmentFailure: If there is no network, room or permission.
    """
    options = argument_parser().parse_args(list(arguments))
    source, folder = SOURCES[options.name], (options.root or default_data_root()) / options.name
    refuse_no_folder(folder, "--root")
    old = read_record(folder)
    form = chosen_form(options.name, source, options.form, old, folder)
    if form is not None:
        wanted = source.forms[form]
        if isinstance(wanted, HubRepository):
            wanted = replace(wanted, name=chosen_repository(wanted, options.repository, old, folder))
        elif options.revision or options.repository:
            raise BadInputError(
                "an archive with known checksums has no repository and no revisions",
                where="command line: --revision" if options.revision else "command line: --repository",
                expected="neither, or --form hub",
            )
        fetch(options.name, form, wanted, folder, old, options.revision)
    if source.by_hand:
        say(f"left to do by hand for {options.name}:" if form else f"{options.name} is to be brought by hand:")
        say(source.by_hand.format(folder=folder))
    if options.name in EVALUATION_SETS:
        say(f"then: m2pt check --benchmarks {options.name} --data.root {folder.parent}")
    return ExitCode.DONE


def chosen_form(name: str, source: Source, asked: Form | None, old: FetchRecord | None, folder: Path) -> Form | None:
    """Returns the form to fetch; None if the set is not fetched unless somebody asks for it.

    Raises:
        BadInputError: If the set cannot be fetched in that form, or the folder has it in another one, or another set.
    """
    if asked is not None and asked not in source.forms:
        raise BadInputError(
            f"{name} cannot be fetched in the form {asked!r}",
            where="command line: --form",
            expected=" or ".join(source.forms),
            hint=f"`m2pt data fetch {name}` says how to get it by hand",
        )
    of_old = next((form for form in source.forms if old is not None and form == old.form), None)
    if old is not None and (of_old is None or old.set != name):
        raise BadInputError(
            f"the record is of {old.set!r:.40} in the form {old.form!r:.40}",
            where=str(folder / RECORD_FILE),
            expected=f"{name}, {' or '.join(source.forms)}",
            hint="name another folder with --root",
        )
    if old is not None and asked not in (None, old.form):
        raise BadInputError(
            f"the set is there already in the form {old.form!r}",
            where=str(folder),
            expected=f"--form {old.form}, or another folder",
            hint="name one with --root",
        )
    return of_old or asked or (next(iter(source.forms)) if source.by_default else None)


def chosen_repository(wanted: HubRepository, asked: str | None, old: FetchRecord | None, folder: Path) -> str:
    """Returns the name of the repository to fetch from: the one asked for, fetched from before, or known.

    Raises:
        BadInputError: If the files that are there came from another one.
    """
    if old is not None and asked not in (None, old.source):
        raise BadInputError(
            f"the set is there already, from {old.source}",
            where=str(folder),
            expected=f"--repository {old.source}, or another folder",
            hint="name one with --root",
        )
    return asked or (old.source if old is not None else wanted.name)


def fetch(
    name: str,
    form: Form,
    wanted: HubRepository | TorchvisionArchive,
    folder: Path,
    old: FetchRecord | None,
    revision: str | None,
) -> None:
    """Brings a set's files to their folder, unless they are there.

    Args:
        name: Name of the set.
        form: Which form to fetch.
        wanted: Where it comes from.
        folder: Where its files go.
        old: What was fetched there before.
        revision: Asked-for revision; None keeps the recorded one.

    Raises:
        BadInputError: If files are in the way, or the source's files are not those recorded.
        EnvironmentFailure: If there is no network, room or permission.
    """
    if old is not None and revision in (None, old.revision) and not differing_files(folder, old):
        say(f"complete: {folder} ({described(old)})")
        return
    refuse_offline()
    staging = folder.parent / f".{name}.partial"
    staging.mkdir(parents=True, exist_ok=True)
    if isinstance(wanted, HubRepository):
        plan = planned(wanted, revision or (old.revision if old is not None else None))
        say(f"fetching {len(plan.sizes)} files, {plan.megabytes:,} MB, of {wanted.name} at {plan.revision}")
        files, place, commit = download_from_hub(wanted, plan, staging), wanted.name, plan.revision
    else:
        say(f"fetching the archive of torchvision.datasets.{wanted.dataset}")
        files, place = download_archive(wanted, staging), f"torchvision.datasets.{wanted.dataset}"
        commit = archive_revision(wanted)
    record = FetchRecord(name, form, place, commit, files)
    if old is not None and (revision is None or commit == old.revision):
        refuse_other_content(record, old, folder)
    folder.mkdir(parents=True, exist_ok=True)
    put_in_place(staging, folder, record, old, "--root")
    shutil.rmtree(staging)
    say(f"fetched: {folder} ({described(record)})")
    if old is not None and old.revision != record.revision:
        say(f"the revision was {old.revision}: predictions made with it do not compare with new ones")
