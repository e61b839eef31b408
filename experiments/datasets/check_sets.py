"""``m2pt check --benchmarks``: reads evaluation sets below a folder and counts them, without any experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from data_modules.benchmark import TemplateName
from experiments.datasets.check_report import mistakes_in, report_lines
from experiments.datasets.evaluation_sets import EVALUATION_SETS, folder_of
from experiments.datasets.fetched_sets import refuse_differing_files
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.metrics.known_sizes import Verdict, number_of_pictures, verdict_on
from lightning_m2pt.system.console import OUT, say

EVERY_SET = "all"
TEMPLATE: TemplateName = "plain"  # no text is encoded here


@dataclass(frozen=True)
class CheckedSet:
    """What was found in one folder.

    Attributes:
        name: Name of the set.
        folder: Where it is.
        form: ``original`` or ``hub``; empty if it cannot be read.
        questions: Number of its questions.
        pictures: Number of its pictures.
        verdict: What counting says; None if it cannot be read.
        mistakes: Why it cannot be used; none if it can.
    """

    name: str
    folder: Path
    form: str = ""
    questions: int = 0
    pictures: int = 0
    verdict: Verdict | None = None
    mistakes: tuple[BadInputError | EnvironmentFailure, ...] = ()


def check_sets(names: str, data_root: Path, decode: bool = False) -> int:
    """Checks evaluation sets, shows a table, and returns the exit code: 2 if any of them cannot be read.

    A set of another size than the official one can be read and is no mistake: the table says so.

    Args:
        names: Names separated by commas, or ``all`` for every set that has a folder.
        data_root: Folder of the sets' folders.
        decode: Decode every picture.

    Raises:
        BadInputError: If there is no such set or folder.
    """
    chosen = chosen_names(names, data_root)
    checked = [check_set(name, folder_of(name, data_root), decode) for name in chosen]
    OUT.print(table_of(checked))
    absent = [name for name in EVALUATION_SETS if EVERY_SET in names.split(",") and name not in chosen]
    if absent:
        say(f"no folder in {data_root}: {', '.join(absent)}")
    for each in checked:
        if len(each.mistakes) == 1:
            say(f"error: {each.name}: {one_line(each.mistakes[0])}")
        elif each.mistakes:
            say(f"error: {each.name}: {len(each.mistakes):,} mistakes in {each.folder}")
            for line in report_lines(each.mistakes):
                say(f"    {line}")
    return ExitCode.BAD_INPUT if any(each.mistakes for each in checked) else ExitCode.DONE


def chosen_names(names: str, data_root: Path) -> list[str]:
    """Returns the sets to check, in the order of the published tables.

    Raises:
        BadInputError: If a name is unknown, or ``all`` finds no folder.
    """
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in {*EVALUATION_SETS, EVERY_SET}]
    if unknown:
        raise BadInputError(
            f"there is no evaluation set {unknown[0]!r:.40}",
            where="command line: --benchmarks",
            expected=", ".join([EVERY_SET, *EVALUATION_SETS]),
        )
    if EVERY_SET not in wanted:
        return [name for name in EVALUATION_SETS if name in wanted]
    present = [name for name in EVALUATION_SETS if folder_of(name, data_root).is_dir()]
    if not present:
        raise BadInputError(
            "none of the evaluation sets has a folder here",
            where=str(data_root),
            expected=", ".join(EVALUATION_SETS),
            hint="name another folder with --data.root, or see `m2pt data fetch --help`",
        )
    return present


def check_set(name: str, folder: Path, decode: bool) -> CheckedSet:
    """Reads a set's annotations and the headers of its pictures; fetched files must be as they were fetched."""
    module = EVALUATION_SETS[name](str(folder), TEMPLATE)  # type: ignore[call-arg]
    try:
        refuse_differing_files(folder)
        mistakes = mistakes_in(module, decode)
    except (BadInputError, EnvironmentFailure) as error:
        return CheckedSet(name, folder, mistakes=(error,))
    if mistakes:
        return CheckedSet(name, folder, mistakes=mistakes)
    questions = module.questions()
    pictures = number_of_pictures(questions, module.questions_per_group)
    form = "hub" if ".parquet: " in questions[0].source else "original"
    return CheckedSet(name, folder, form, len(questions), pictures, verdict_on(name, questions, pictures))


def one_line(error: BadInputError | EnvironmentFailure) -> str:
    """Returns an error with its expectation and hint on one line."""
    return error.message().removeprefix("error: ").replace("\n  ", "; ")


def table_of(checked: Sequence[CheckedSet]) -> Table:
    """Returns a row for every set."""
    table = Table()
    for column in ("set", "form"):
        table.add_column(column)
    for column in ("questions", "pictures", "official"):
        table.add_column(column, justify="right")
    for column in ("agrees", "note"):
        table.add_column(column)
    for each in checked:
        if each.verdict is None:
            table.add_row(each.name, "-", "-", "-", "-", "-", "cannot be read, see below")
            continue
        expected = f"{each.verdict.expected:,}" if each.verdict.expected else "-"
        agrees = "yes" if each.verdict.agrees else "no"
        counts = (f"{each.questions:,}", f"{each.pictures:,}", expected)
        table.add_row(each.name, each.form, *counts, agrees, each.verdict.note)
    return table
