"""Runs ``m2pt report-page``; its flags and what it is for are in ``parsers``."""

import os
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.report_page import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.report.page.header import origin_notes, reservations, set_table
from lightning_m2pt.report.page.html import notes_html, page, part_html, section, table_html
from lightning_m2pt.report.page.material import ComparedGroups, Material, read_material
from lightning_m2pt.report.page.parts import Part, parts_of
from lightning_m2pt.report.page.searched_prompts import searched_prompts_part
from lightning_m2pt.report.page.template_spread import template_spread_part
from lightning_m2pt.report.page.transfers import transfers_parts
from lightning_m2pt.report.page.variants import lead_of
from lightning_m2pt.report.tables.formats import FORMATS
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say

TITLE = "M2PT: what has run"
PAGE, FILES = "index.html", "files.txt"
TABLE_ENDINGS = {"latex": "tex", "markdown": "md", "csv": "csv"}
DATA_ENDING = "-table"
"""A part that has a figure has two sets of data: the table's is named so."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    if own.cases < 0:
        raise BadInputError(f"{own.cases} cases", where="command line: --cases", expected="0 or more")
    folder = own.output or own.runs[0] / "report"
    if folder.exists() and not folder.is_dir():
        raise BadInputError("this is a file", where=str(folder), expected="a folder for the report")
    material = read_material(own.runs)
    runs = sum(len(group.runs) for comparison in material.comparisons for group in comparison.groups)
    say(f"runs:     {runs}; their questions are resampled now, which takes minutes for a whole sweep")
    # Paths in configurations are relative to where the runs were started: here, or where the outputs lie.
    roots = [Path(), *(Path(os.path.abspath(path)).parent for path in own.runs)]
    apart, damaged = parts_apart(own.runs)
    material.left_out.extend(damaged)
    missing = write_report(material, folder, roots, own.cases, apart)
    for sentence in missing:
        say(f"left out: {sentence}")
    say(f"page:     {folder / PAGE} ({(folder / PAGE).stat().st_size / 1e6:.1f} MB)")
    say(f"pieces:   {folder}/*/ (PDF, PNG, CSV, LaTeX, Markdown)")
    return ExitCode.DONE


def parts_apart(outputs: Sequence[Path]) -> tuple[list[Part], list[str]]:
    """Returns the parts that belong to no comparison of runs, and a sentence for everything that cannot be read.

    Args:
        outputs: Folders of runs, or of folders of runs.
    """
    parts, left_out = transfers_parts(outputs)
    for found, damaged in (template_spread_part(outputs), searched_prompts_part(outputs)):
        parts += [found] if found is not None else []
        left_out += damaged
    return parts, left_out


def write_report(
    material: Material, folder: Path, roots: Sequence[Path], count: int, apart: Sequence[Part] = ()
) -> list[str]:
    """Writes page and pieces, and takes away what an earlier report left and this one does not have.

    Args:
        material: What was read.
        folder: Folder of the report; made if missing.
        roots: Folders that relative paths of configurations are looked for in.
        count: Won and lost questions shown of every set, at most.
        apart: What belongs to no comparison of runs.

    Returns:
        A sentence for everything that is left out.
    """
    missing, sections, contents, written = list(material.left_out), [], [], []
    several = len(material.comparisons) > 1
    folder.mkdir(parents=True, exist_ok=True)
    for number, comparison in enumerate(material.comparisons):
        lead = lead_of(comparison.groups, material.sweeps)
        parts, scores = parts_of(comparison, lead, material.sweeps, roots, count)
        prefix = f"{number}-" if several else ""
        missing += [f"{comparison.name}, “{part.title}”: {part.missing}" for part in parts if part.missing]
        there = [part for part in parts if not part.missing]
        warnings = reservations(comparison, scores, roots)
        setting = notes_html(warnings, "alarm") + notes_html(origin_notes(comparison)) + table_html(set_table(scores))
        sections.append(section(f"{prefix}setting", f"Backbone {comparison.name}", 2, setting))
        sections += [part_html(part, prefix, warnings) for part in there]
        contents.append((f"{prefix}setting", comparison.name if several else "Setting"))
        contents += [(f"{prefix}{part.name}", part.title) for part in there]
        written += write_pieces(there, folder / comparison.name)
    sections += [part_html(part, "", []) for part in apart]
    contents += [(part.name, part.title) for part in apart]
    written += write_pieces(apart, folder)
    if missing:
        sections.append(section("missing", "What is not here", 2, notes_html(missing)))
        contents.append(("missing", "Not here"))
    introduction = f"<p>{introduction_of(material.comparisons)}</p>"
    write_atomically(folder / PAGE, page(TITLE, introduction, sections, contents).encode())
    take_away_older(folder, [*written, folder / PAGE])
    return missing


def introduction_of(comparisons: Sequence[ComparedGroups]) -> str:
    """Returns what the page is, in two sentences."""
    runs = sum(len(group.runs) for comparison in comparisons for group in comparison.groups)
    apart = f", in {len(comparisons)} comparisons that must not be mixed" if len(comparisons) > 1 else ""
    return (
        f"{runs} evaluated runs{apart}. Scores are percent of each set's maximum unless they say otherwise, computed "
        "from the stored answers; <code>m2pt report</code> has the 95% interval of every one."
    )


def write_pieces(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Writes figures and tables of a comparison; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for part in parts:
        for figure in part.figures:
            written += figure.write(folder)
        if part.tables:
            stem = part.name + (DATA_ENDING if part.figures else "")
            for form, ending in TABLE_ENDINGS.items():
                path = folder / f"{stem}.{ending}"
                write_atomically(path, FORMATS[form](part.tables).encode())
                written.append(path)
    return written


def take_away_older(folder: Path, written: Sequence[Path]) -> None:
    """Deletes files that the last report wrote and this one did not: a figure of runs that are gone would stay.

    Only files that the last report listed are touched.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in written)
    listed = folder / FILES
    earlier = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    for name in set(earlier) - set(names):
        path = folder / name
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            path.unlink()
    write_atomically(listed, ("\n".join(names) + "\n").encode())
