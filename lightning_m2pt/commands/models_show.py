"""Runs ``m2pt models show``; its flags and what it is for are in ``parsers``."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.hub_ids import cached_folder, model_folder
from lightning_m2pt.commands.parsers.models_show import argument_parser
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inspection.model_facts import Load
from lightning_m2pt.inspection.model_report import model_report
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import say

KEY = "command line"
RUNS = {
    "fast": "on our own passes, which are proven for it",
    "reference": "by the library's own forward, a whole sequence for every token of an answer: no proven form",
}
NEW_TOKENS = 64
GIGABYTE = 10**9
SIZE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
NAMES = {
    "model_type": "",
    "blocks_used": "blocks are used",
    "patch_size": "pixels a patch",
    "image_size": "pixels a side",
    "key_value_heads": "heads of keys and values",
    "head_width": "wide heads",
    "vocabulary": "tokens",
}
"""What people read for a key; others are their own name."""


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = argument_parser().parse_args(list(arguments))
    for flag, value in (("--samples", options.samples), ("--text", options.text)):
        if value < 1:
            raise BadInputError(f"{value} is too few", where=f"command line: {flag}", expected="at least 1")
    load = Load(options.samples, options.text, NEW_TOKENS, picture_size(options.size))
    folder = folder_named(options.model, options.revision)
    found = {"model": str(folder), **model_report(folder, load)}
    if options.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return ExitCode.DONE
    for line in lines_of(found, options.samples, options.text):
        say(line)
    return ExitCode.DONE


def folder_named(model: str, revision: str | None) -> Path:
    """Returns the folder of a model, which may be named without ``hub:`` where no such folder is.

    Raises:
        BadInputError: If there is none.
    """
    if model.startswith(HUB) or Path(model).exists():
        return model_folder(model, revision, KEY)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return cached_folder(model, revision, KEY)
    return model_folder(model, revision, KEY)


def lines_of(found: Mapping[str, Any], samples: int, text: int) -> Iterator[str]:
    """Yields what people read, a line for each thing."""
    yield row("model", found["model"])
    yield row("is", f"{found['architecture']}, a {found['kind']}")
    for part in ("vision", "language"):
        if part in found:
            sizes = [f"{value:,} {NAMES.get(key, key)}" for key, value in found[part].items() if key != "model_type"]
            yield row(part, ": ".join([*filter(None, [found[part].get("model_type")]), ", ".join(sizes)]))
    if "picture" in found:
        yield row("picture", picture_words(found["picture"]))
    parts = [f"{value:,} {name}" for name, value in found["parameters"].items() if name != "total"]
    yield row("parameters", f"{found['parameters']['total']:,} ({', '.join(parts)})")
    if "m2pt" in found:
        tuning = found["m2pt"]
        of_parts = ", ".join(f"{name} {value:,}" for name, value in tuning["parts"].items())
        visual = f"{tuning['rows']} visual and " if "visual_prompts" in tuning["parts"] else ""
        rows = f"{visual}{tuning['rows']} textual rows a layer"
        yield row("M2PT", f"trains {tuning['trained']:,} ({tuning['percent']:.2f}%) with {rows}: {of_parts}")
        yield from memory_lines(found["memory"], f"{samples} x {text} tokens, each with a picture")
    if "runs" in found:
        yield row("runs", RUNS[found["runs"]])
    if "prefixes" in found:
        yield row("prompts", f"as keys and values: {found['prefixes']}")
    if "template" in found:
        yield row("template", f"native, of {found['template']}" if found["template"] else "none of its own here")
    yield row("licence", found["licence"] or "neither README.md nor a LICENSE file names one")


def picture_size(text: str) -> tuple[int, int]:
    """Returns width and height of a text such as ``640x480``.

    Raises:
        BadInputError: If it is none.
    """
    match = SIZE.fullmatch(text)
    if match is None:
        raise BadInputError(f"{text!r:.40} is no size", where="command line: --size", expected="WIDTHxHEIGHT in pixels")
    return int(match[1]), int(match[2])


def picture_words(picture: Mapping[str, Any]) -> str:
    """Returns what a picture takes, in words."""
    width, height = picture["size"]
    of_a_tile = picture["rows_of_a_tile"]
    begins = "as many rows as its size asks for" if of_a_tile is None else f"{of_a_tile:,} rows a tile"
    if "rows" not in picture:
        return f"{begins}; the image processor's settings say how many that are, and are not here"
    of_tiles = f"{picture['tiles']:,} tile{'s' * (picture['tiles'] > 1)}"
    unit = f"{picture['patches']:,} patches" if of_a_tile is None else of_tiles
    around = f" and {picture['tokens']:,} tokens around them" if picture["tokens"] else ""
    return f"{begins}; one of {width} x {height} takes {picture['rows']:,} rows of {unit}{around}"


def memory_lines(memory: Mapping[str, Mapping[str, int]], load: str) -> Iterator[str]:
    """Yields estimates for each type of the frozen weights."""
    yield row("memory", f"about, of one device, for {load}:")
    for name, sizes in memory.items():
        in_gigabytes = {key: f"{size / GIGABYTE:.2f} GB" for key, size in sizes.items()}
        yield row(
            f"  {name}",
            f"training {in_gigabytes['training']}, with recomputed activations {in_gigabytes['training_recomputed']}; "
            f"answering {in_gigabytes['answering']}; weights {in_gigabytes['weights']}",
        )


def row(name: str, text: str) -> str:
    """Returns a line with its name in front."""
    return f"{name:<12} {text}"
