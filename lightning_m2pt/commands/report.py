"""Runs ``m2pt report``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.report import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.score import named_rule
from lightning_m2pt.report.tables.details import detail_tables
from lightning_m2pt.report.tables.formats import formatted
from lightning_m2pt.report.tables.groups import score_report
from lightning_m2pt.report.tables.published import PAPER, paper_report
from lightning_m2pt.runs.evaluated import Group, find_run_folders, grouped, read_run
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    groups = read_groups(own.runs, own.sets, own.rule)
    if own.against == PAPER:
        tables = [paper_report(groups)]
    else:
        tables = [score_report(groups, baseline_of(groups, own.against, own.sets, own.rule) if own.against else None)]
    if own.details:
        tables += detail_tables(groups)
    text = formatted(tables, own.format, OUT.width)
    if own.output is None:
        say(text.rstrip("\n"))
    else:
        own.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(own.output, text.encode())
        say(f"report: {own.output}")
    return ExitCode.DONE


def read_groups(paths: Sequence[Path], sets: Sequence[str], rules: Sequence[str]) -> list[Group]:
    """Returns the groups of seeds in some folders.

    Args:
        paths: Folders of runs, or of folders of runs.
        sets: Names of the sets to read; none takes all.
        rules: Words of ``--rule``.

    Raises:
        BadInputError: If there are no predictions, or they cannot be scored.
    """
    named = rules_by_set(rules)
    return grouped([read_run(folder, sets, named) for folder in find_run_folders(paths)])


def read_group(path: Path, sets: Sequence[str], rules: Sequence[str]) -> Group:
    """Returns the one group of seeds in a folder.

    Raises:
        BadInputError: If there are several, or none.
    """
    groups = read_groups([path], sets, rules)
    if len(groups) > 1:
        raise BadInputError(
            f"there are {len(groups)} runs here that differ in more than the seed",
            where=str(path),
            expected=f"one, for example {groups[0].runs[0].folder}",
        )
    return groups[0]


def baseline_of(groups: Sequence[Group], path: str, sets: Sequence[str], rules: Sequence[str]) -> Group:
    """Returns what groups are compared with: one of them if it is among them, under a name of its own otherwise.

    Raises:
        BadInputError: If there are several, or none.
    """
    baseline = read_group(Path(path), sets, rules)
    if any(group.name == baseline.name for group in groups):
        baseline.name = path
    return next((group for group in groups if group.folders == baseline.folders), baseline)


def rules_by_set(words: Sequence[str]) -> dict[str, str]:
    """Returns the rules of ``--rule`` by set; the one without a set stands under the empty name.

    Raises:
        BadInputError: If a set gets two, or there is no rule of a name; before any file is read.
    """
    rules: dict[str, str] = {}
    for word in words:
        benchmark, _, rule = word.rpartition("=")
        if benchmark in rules:
            raise BadInputError(
                f"two rules for {benchmark or 'all sets'}: {rules[benchmark]} and {rule}",
                where="command line: --rule",
                expected="one rule a set: RULE for all sets, SET=RULE for one",
                hint="`m2pt score FILE --rule A B` shows several rules side by side",
            )
        named_rule(rule)
        rules[benchmark] = rule
    return rules
