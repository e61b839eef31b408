"""Keeps what a sweep found: every method's scores by seed, and differences with their paired intervals.

    python -m benchmarks.learning.sweep_scores smollm2                  # writes benchmarks/results/smollm2.json
    python -m benchmarks.learning.sweep_scores ablation --backbone testbed_patch12

The sweep's own table names the runs; scores are theirs, differences (to M2PT, to the untouched model, to M2PT without
textual prompts) are those of ``m2pt report``: resampled are pictures with all their questions, the same for both, and
each one's seeds. The search is kept beside it as ``NAME_search.json``, and alone where it was all that was asked for.
``python -m benchmarks.report.front`` makes the pages' tables of these files.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.sweep_tables import FROZEN, LANGUAGE, LEAD, NO_ROWS, SETS
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.means import NEVER_A_MEMBER, benchmark_mean
from lightning_m2pt.report.tables.groups import gain_over, mean_gain
from lightning_m2pt.runs.evaluated import Group, find_run_folders, read_run
from lightning_m2pt.storage.run_record import MADE_WITH, read_run_record
from lightning_m2pt.system.atomic_files import write_atomically

RESULTS = Path("benchmarks/results")
MEMBERS = tuple(name for name in SETS if name != NEVER_A_MEMBER)
SEARCH_FILE = "search.json"
DIGITS = 4


def by_set(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns percent of the maximum by set, and the mean over the published seven under its name.

    Raises:
        BadInputError: If one of the eight sets was not answered.
    """
    missing = [name for name in SETS if name not in scores]
    if missing:
        raise BadInputError(f"no scores of {', '.join(missing)}", where="results.json", expected="all eight sets")
    label, mean = benchmark_mean({marked(name, scores): float(scores[name]["value"]) for name in SETS})
    return {name: float(scores[name]["value"]) for name in SETS} | {label: mean}


def marked(name: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a set's name with what of it was answered, if not all."""
    return set_name(name, str(scores[name].get("part", "")))


def results_of(folder: Path) -> dict[str, Any]:
    """Returns a run's ``results.json``.

    Raises:
        BadInputError: If it is not there any more.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise BadInputError(
            "there is no such file", where=str(path), expected="what `m2pt train` wrote", hint="m2pt sweep run does it"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def frozen_group(root: Path, scores: Mapping[str, Mapping[str, Any]]) -> Group | None:
    """Returns the untouched model's answers, found by their scores; None where they are not there any more."""
    if not (root / FROZEN).is_dir():
        return None
    for folder in find_run_folders([root / FROZEN]):
        run = read_run(folder)
        if {name: one.score.value for name, one in run.sets.items()} == {
            name: score["value"] for name, score in scores.items()
        }:
            return Group(FROZEN, [run])
    return None


def gains_over(baseline: str, groups: Sequence[Group]) -> dict[str, dict[str, float]]:
    """Returns each group's difference to one of them in the mean of the published seven, with its paired 95% interval.

    Args:
        baseline: The name of that one; where it is not among them there is nothing.
        groups: Groups of seeds, by the names of the sweep's labels.

    Raises:
        BadInputError: If a group did not answer the same questions.
    """
    first, found = next((group for group in groups if group.name == baseline), None), {}
    for group in groups:
        gains = [gain for name in MEMBERS if (gain := gain_over(first, group, name)) is not None]
        if len(gains) == len(MEMBERS):
            mean = mean_gain(gains)
            numbers = (mean.difference, mean.interval.low, mean.interval.high)
            names = ("difference", "low", "high")
            found[group.name] = {name: round(value, DIGITS) for name, value in zip(names, numbers, strict=True)}
    return found


def refuse_other_rates(rows: Sequence[Mapping[str, Any]], search: Path) -> None:
    """Compares the rates of a sweep's runs with those that its search chose, which are kept beside them.

    Args:
        rows: Of the sweep's table, those with runs.
        search: What is known of the search; there need not be one.

    Raises:
        BadInputError: If a row that has a search of its own was run with other rates, as ``--no-search`` does.
    """
    if not search.is_file():
        return
    variants = json.loads(search.read_text(encoding="utf-8"))["variants"]
    for row in rows:
        found = variants.get(row["label"], {"chosen": None})
        if found["chosen"] is None:
            continue
        # The first trial's rates are those of the file, which the table does not repeat.
        expected = found["trials"][found["chosen"]]["rates"] if found["chosen"] else {}
        if row["searched_rates"] != expected:
            raise BadInputError(
                f"the runs of {row['label']} have the rates {row['searched_rates'] or 'of their file'}, "
                f"and its search chose {expected or 'those of its file'}",
                where=str(search),
                expected="a table and a search of one plan",
                hint="m2pt sweep run without --no-search makes the table anew",
            )


def refuse_other_questions(runs: Sequence[Path]) -> None:
    """Compares what the untouched model answered beside every run: chance and numbers of questions are kept once.

    Raises:
        BadInputError: If it answered other questions, or otherwise.
    """
    first = results_of(runs[0])["frozen"]
    for run in runs[1:]:
        if results_of(run)["frozen"] != first:
            raise BadInputError(
                "the untouched model's scores are not those beside the sweep's first run",
                where=str(run / "results.json"),
                expected=f"the same base and the same questions of every set as in {runs[0]}",
            )


def stored_sweep(folder: Path, root: Path) -> dict[str, Any]:
    """Returns what is kept of a sweep.

    Args:
        folder: The sweep's own, with its table.
        root: The folder of all runs.

    Raises:
        BadInputError: If it has no table yet, or what is in it cannot stand in one table.
    """
    path = folder / "table.json"
    if not path.is_file():
        raise BadInputError(
            "the sweep has no table", where=str(path), expected="what `m2pt sweep run` writes at its end"
        )
    rows = [row for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if row["runs"]]
    if not {LEAD, LANGUAGE, NO_ROWS} & {row["label"] for row in rows}:
        raise BadInputError(
            f"no row with runs is called {LEAD}, {LANGUAGE} or {NO_ROWS}",
            where=str(path),
            expected="M2PT's, or that without textual prompts, which others are compared with",
        )
    refuse_other_rates(rows, folder / SEARCH_FILE)
    refuse_other_questions([Path(run) for row in rows for run in row["runs"]])
    methods, groups, starts = {}, [], list[dict[str, Any]]()
    for row in rows:
        runs = [Path(run) for run in row["runs"]]
        methods[row["label"]] = {
            "trained_percent": row["trained_percent"],
            "searched_rates": row["searched_rates"],
            "by_seed": {
                str(seed): by_set(results_of(run)["tuned"]) for seed, run in zip(row["seeds"], runs, strict=True)
            },
        }
        groups.append(Group(row["label"], [read_run(run.absolute()) for run in runs]))
        starts += [start for run in runs for start in read_run_record(run).get(MADE_WITH, [])]
    frozen = results_of(Path(rows[0]["runs"][0]))["frozen"]
    untouched = frozen_group(root, frozen)
    groups += [untouched] if untouched else []
    mean_of, _ = benchmark_mean({marked(name, frozen): 0.0 for name in SETS})
    return {
        "sweep": folder.name,
        "commits": sorted({str(start["git_commit"]) for start in starts}),
        "instruction_set": " and ".join(sorted({str(start["instruction_set"]) for start in starts})),
        "unit": f"percent of each set's maximum; {mean_of}: mean of the seven sets but MME",
        "mean_of": mean_of,
        "questions": {name: score["n"] for name, score in frozen.items()},
        "chance": {name: score["chance"] for name, score in frozen.items()},
        "methods": methods,
        FROZEN: by_set(frozen),
        "gains": {baseline: gains_over(baseline, groups) for baseline in (LEAD, LANGUAGE, NO_ROWS, FROZEN)},
    }


def main() -> None:
    """Reads a sweep and stores it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--output_root", type=Path, default=Path("outputs"))
    own = parser.parse_args()
    name = f"{own.sweep}-{own.backbone}" if own.backbone else own.sweep
    folder, stored_as = own.output_root / "sweeps" / name, name.replace("-", "_")
    search = folder / SEARCH_FILE
    if (folder / "table.json").is_file() or not search.is_file():
        try:
            content = stored_sweep(folder, own.output_root)
        except BadInputError as error:
            parser.exit(error.exit_code, f"{error.message()}\n")
        write_atomically(RESULTS / f"{stored_as}.json", (json.dumps(content, indent=1) + "\n").encode())
    if search.is_file():
        write_atomically(RESULTS / f"{stored_as}_search.json", search.read_bytes())


if __name__ == "__main__":
    main()
