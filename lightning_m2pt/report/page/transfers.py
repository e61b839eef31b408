"""Prompts in pixels on several bases, from the matrices of sweeps: gains by base of training and base of use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.drawings import distinct, new_figure
from lightning_m2pt.report.page.figures import WIDE, Records, ReportFigure
from lightning_m2pt.report.page.parts import Part
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.system.strict_json import parse_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACES = ("transfers.json", "sweeps/*/transfers.json", "*/sweeps/*/transfers.json")
"""Where matrices lie: in a sweep's own folder, in an output folder, or in one of several below it."""
NAME, TITLE = "transfers", "Prompts in pixels on other bases"
CAPTION = (
    "Points of the set's maximum over the untouched model on the same questions, means over the seeds that are there; "
    "* where the paired 95% interval does not hold 0. A line is a set and the base that the prompts were trained on, a "
    "column the base they are used on."
)
COLOURS = "RdBu_r"
INCHES_A_LINE, INCHES_OF_NAMES = 0.32, 0.8
DARK = 0.6
"""From this part of the largest gain on the text is white."""
PANELS_WIDE = 4


def transfers_parts(outputs: Sequence[Path]) -> tuple[list[Part], list[str]]:
    """Returns a part for every matrix of transfers in folders, and a sentence for each that cannot be read.

    Args:
        outputs: Folders of runs, or of folders of runs.
    """
    found: list[Part] = []
    left_out = []
    for root in outputs:
        for path in (path for pattern in PLACES for path in sorted(root.glob(pattern))):
            label = path.parent.relative_to(root).as_posix() if path.parent != root else root.name
            try:
                part = part_of(label, parse_json(path.read_bytes(), path))
            except (AttributeError, KeyError, TypeError, ValueError):
                left_out.append(f"{label}: the matrix of transfers is damaged")
                continue
            if part is None:
                left_out.append(f"{label}: nothing of its transfers is there yet")
                continue
            part.name += f"-{len(found) + 1}" * bool(found)
            found.append(part)
    return found, left_out


def part_of(label: str, content: Mapping[str, Any]) -> Part | None:
    """Returns the part of one matrix; None if nothing is in it yet.

    Args:
        label: What its sweep is called.
        content: As ``m2pt sweep transfers`` wrote it.
    """
    records = gain_records(content)
    if not records:
        return None
    part = Part(NAME, f"{TITLE}: {label.rpartition('/')[2]}", tables=[gain_table(records)])
    bases = ", ".join(f"{name} is {file}" for name, file in content["bases"].items())
    part.notes += [f"{bases}.", *map(str, content["notes"])]
    part.figures.append(ReportFigure(NAME, part.title, CAPTION, records, gain_maps))
    return part


def gain_records(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a record for every set, kind of prompts, base of training and base of use whose gain is there.

    Kinds that were trained on one set alone are left out where others were trained on more.

    Args:
        content: A matrix.
    """
    gains: dict[tuple[str, str, str, str], Mapping[str, float]] = {}
    for one in content["directions"]:
        row, name, source, target = one["row"], one["set"], one["source"], one["target"]
        gains |= {(row, name, source, source): one["white_box"], (row, name, source, target): one["gain"]}
    known = {key: gain for key, gain in gains.items() if gain is not None and key[0] in content["rows"]}
    sets = {row: {name for of_row, name, *_ in known if of_row == row} for row in content["rows"]}
    shown = [row for row in content["rows"] if len(sets[row]) > 1] or [row for row in content["rows"] if sets[row]]
    ordered = [(*key, known.get(key)) for key in cells(shown, content) if key[1] in sets[key[0]]]
    return [
        {
            "prompt": row,
            "set": name,
            "trained_on": source,
            "used_on": target,
            "gain": None if gain is None else float(gain["value"]),
            "low": None if gain is None else float(gain["low"]),
            "high": None if gain is None else float(gain["high"]),
        }
        for row, name, source, target, gain in ordered
    ]


def cells(rows: Sequence[str], content: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Returns kind, set, base of training and base of use of every cell, in the matrix's order."""
    bases = list(content["bases"])
    return [(row, name, source, used) for row in rows for name in content["sets"] for source in bases for used in bases]


def gain_table(records: Records) -> ReportTable:
    """Returns a row for each gain."""
    rows = [
        (
            record["prompt"],
            record["set"],
            f"{record['trained_on']} > {record['used_on']}",
            "missing" if record["gain"] is None else f"{record['gain']:+.1f}",
            "" if record["gain"] is None else f"{record['low']:+.1f} to {record['high']:+.1f}",
        )
        for record in records
    ]
    columns = [Column("prompt"), Column("set"), Column("trained on > used on")]
    return ReportTable(
        "", [*columns, *(Column(name, is_number=True) for name in ("gain", "95% interval"))], rows, records
    )


def gain_maps(records: Records, width: float) -> "Figure":
    """Draws a panel for each kind of prompts: a line for every set and base of training, a column for every use."""
    prompts, used = distinct(records, "prompt"), distinct(records, "used_on")
    lines = list(dict.fromkeys((record["set"], record["trained_on"]) for record in records))
    largest = max((abs(record["gain"]) for record in records if record["gain"] is not None), default=0.0) or 1.0
    columns = min(max(1, len(prompts)), PANELS_WIDE if width >= WIDE else 1)
    stacked = max(1, -(-len(prompts) // columns))
    figure = new_figure(width, stacked * (INCHES_OF_NAMES + INCHES_A_LINE * len(lines)))
    panels = figure.subplots(stacked, columns, squeeze=False, sharey=True).flatten().tolist()
    for number, (axes, prompt) in enumerate(zip(panels, prompts, strict=False)):
        of_prompt = {
            (record["set"], record["trained_on"], record["used_on"]): record
            for record in records
            if record["prompt"] == prompt
        }
        draw_map(axes, of_prompt, lines, used, largest)
        axes.set_title(prompt)
        if number % columns == 0:
            axes.set_yticks(range(len(lines)), labels=[f"{name}, trained on {source}" for name, source in lines])
    for axes in panels[len(prompts) :]:
        axes.set_visible(False)
    return figure


def draw_map(
    axes: "Axes",
    records: Mapping[tuple[str, str, str], Mapping[str, Any]],
    lines: Sequence[tuple[str, str]],
    used: Sequence[str],
    largest: float,
) -> None:
    """Draws one panel.

    Args:
        axes: The panel.
        records: By set, base of training and base of use.
        lines: Set and base of training of every line.
        used: The bases of use.
        largest: Gain, up or down, that has the full colour.
    """
    found = [[records.get((*line, base), {}).get("gain") for base in used] for line in lines]
    values = [[float("nan") if gain is None else gain for gain in line] for line in found]
    axes.imshow(values, cmap=COLOURS, vmin=-largest, vmax=largest, aspect="auto")
    for y, line in enumerate(lines):
        for x, base in enumerate(used):
            gain, record = found[y][x], records.get((*line, base), {})
            is_clear = gain is not None and not record["low"] <= 0 <= record["high"]
            text = "missing" if gain is None else f"{gain:+.1f}" + "*" * is_clear
            is_dark = gain is not None and abs(gain) > DARK * largest
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if is_dark else "black")
    axes.set_xticks(range(len(used)), labels=[f"used on {base}" for base in used])
    axes.tick_params(length=0)
