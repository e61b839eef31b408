"""``m2pt params``: what is trained, per part and in percent, counted on the meta device without any weight."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.cli import parse_experiment, split_arguments
from experiments.console import OUT, say
from lightning_m2pt.atomic_files import write_atomically
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.module import TuningModule, build_on_meta
from lightning_m2pt.types import ParameterPart


def argument_parser() -> argparse.ArgumentParser:
    """Returns the flags that are not part of an experiment."""
    parser = argparse.ArgumentParser(prog="m2pt params", description=__doc__, add_help=False)
    parser.add_argument(
        "--output", type=Path, help="where to store the table (default: outputs/EXPERIMENT/params.json)"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = split_arguments(argument_parser(), arguments)
    experiment = parse_experiment(rest)
    counted = count(experiment.model)
    OUT.print(table(counted))
    path = own.output or experiment.output_root / experiment.name / "params.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(counted, indent=2) + "\n").encode())
    say(f"stored in {path}")
    return ExitCode.DONE


def count(model: TuningModule) -> dict[str, Any]:
    """Counts base and trained numbers; builds the module on the meta device."""
    build_on_meta(model)
    return summary(model.trainable_table(), model.backbone.base_parameters())


def summary(parts: list[ParameterPart], base: int) -> dict[str, Any]:
    """Returns the counts as JSON values; percent = trained / (base + added), as the paper's 0.08 and 0.09 are."""
    trained, added = sum(part.parameters for part in parts), sum(part.added for part in parts)
    return {
        "base": base,
        "trained": trained,
        "added": added,
        "percent": percent(trained, base + added),
        "dead": sum(part.dead for part in parts),
        "parts": [
            {
                "name": part.name,
                "trained": part.parameters,
                "percent": percent(part.parameters, base + added),
                "dead": part.dead,
                "dead_names": part.dead_names,
            }
            for part in parts
        ],
    }


def percent(count: int, whole: int) -> float:
    """Returns a share in percent with four digits, as the papers print it."""
    return round(100 * count / whole, 4)


def table(counted: dict[str, Any]) -> Table:
    """Returns the table people read."""
    shown = Table(title="what is trained", title_justify="left")
    shown.add_column("part")
    for column in ("trained", "percent", "never reached by a gradient"):
        shown.add_column(column, justify="right")
    for part in counted["parts"]:
        dead = f"{part['dead']:,} ({', '.join(part['dead_names'])})" if part["dead"] else "0"
        shown.add_row(part["name"], f"{part['trained']:,}", f"{part['percent']:.4f}", dead)
    shown.add_section()
    shown.add_row("all", f"{counted['trained']:,}", f"{counted['percent']:.4f}", f"{counted['dead']:,}")
    shown.add_row("base (frozen)", f"{counted['base']:,}", "", "")
    return shown
