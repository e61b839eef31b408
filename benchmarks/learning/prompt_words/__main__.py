"""Searches of prompts that are words, side by side under one budget: what they find, and what it is worth elsewhere.

    python -m benchmarks.learning.prompt_words                 # both embedded backbones, three seeds
    python -m benchmarks.learning.prompt_words --report        # the tables of what is stored
    python -m benchmarks.learning.prompt_words --position before_question       # words between picture and question

Every search has the same start, samples and number of rows of the language model. Seed 0 of everything comes first.
The same command goes on after a stop at any moment: what is done stands in ``outputs/prompt_words``, round by round of
a search and row by row of the table. After every seed ``benchmarks/results/prompt_words.json`` is written anew from
what is there; ``python -m benchmarks.report.front`` brings it to docs/prompt_words.md.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from benchmarks.learning.prompt_words.base import Base, loaded_base
from benchmarks.learning.prompt_words.rows import measure_rows
from benchmarks.learning.prompt_words.searches import record_of, run_searches
from benchmarks.learning.prompt_words.setting import BACKBONES, Setting
from benchmarks.learning.prompt_words.soft import measure_soft
from benchmarks.learning.prompt_words.summary import stored_content, write_summary
from benchmarks.learning.prompt_words.table import tables_of
from benchmarks.report.stored import RESULTS
from lightning_m2pt.prompt_search.record import SearchRecord
from lightning_m2pt.report.tables.formats import FORMAT_NAMES, TERMINAL, formatted
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.system.file_lock import locked

POSITIONS = ("behind_question", "before_question")


def argument_parser() -> argparse.ArgumentParser:
    """Returns the flags; a size is a flag of its name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    for size in fields(Setting):
        choices = POSITIONS if size.name == "position" else None
        parser.add_argument(
            f"--{size.name.replace('_', '-')}", type=type(size.default), default=size.default, choices=choices
        )
    parser.add_argument("--outputs", type=Path, help="folder of records and answers (default: outputs/NAME)")
    parser.add_argument("--results", type=Path, help="the stored file (default: benchmarks/results/NAME.json)")
    parser.add_argument("--report", action="store_true", help="show the tables of what is stored; nothing is run")
    parser.add_argument("--format", choices=FORMAT_NAMES, default=TERMINAL, help="of the tables")
    return parser


def run_seed(bases: list[Base], seed: int, folder: Path) -> dict[str, SearchRecord]:
    """Runs what is not done of a seed; the searches of all backbones first, whose words the others are asked with."""
    records = {base.name: record_of(base, seed, folder) for base in bases}
    for base in bases:
        run_searches(base, seed, records[base.name])
    for base in bases:
        other = next((records[each.name] for each in bases if each is not base), None)
        measure_rows(base, seed, records[base.name], other, folder)
        measure_soft(base, seed, records[base.name])
    return records


def main(words: Sequence[str] | None = None) -> None:
    """Runs cells, or shows the tables."""
    own = argument_parser().parse_args(words)
    name = "prompt_words" if own.position == POSITIONS[0] else f"prompt_words_{own.position}"
    outputs, results = own.outputs or Path("outputs", name), own.results or RESULTS / f"{name}.json"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not own.report:
        setting = Setting(**{size.name: getattr(own, size.name) for size in fields(Setting)})
        bases = [loaded_base(name, setting) for name in own.backbones]
        records: dict[str, list[SearchRecord]] = {base.name: [] for base in bases}
        outputs.mkdir(parents=True, exist_ok=True)
        with locked(outputs / "records", lambda: say("waiting: another process runs this comparison")):
            for seed in own.seeds:
                for name, record in run_seed(bases, seed, outputs).items():
                    records[name].append(record)
                write_summary(results, records, outputs)
    say(formatted(tables_of(stored_content(results)), own.format, OUT.width).rstrip("\n"))


if __name__ == "__main__":
    main()
