"""Tables and chart of ``docs/speed.md``, from the stored results and nothing else."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report.gpu_tables import gpu_lines
from benchmarks.report.machine import made_with_line
from benchmarks.report.markdown import table, with_block
from benchmarks.report.other_speeds import NOT_MEASURED as NOT_YET
from benchmarks.report.other_speeds import SECTIONS
from benchmarks.report.stored import RESULTS, stored
from benchmarks.training.own_step import RUNGS
from benchmarks.training.peers import CHARITABLE, EAGER, PUBLISHED
from benchmarks.training.sizes import CPU_CELLS
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.report.page.figures import LEAD_COLOUR, OTHER_COLOURS, STYLE, UNDATED
from lightning_m2pt.system.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Path("docs/speed.md")
CHART = Path("docs/figures/speed.png")
TRAINING, GPU, RUNG_CHANGES = "training_speed", "gpu", "rungs"
"""Names of the marked places of the page; the first two are the stems of the stored files too."""
SHORT_PROMPTS = {PUBLISHED: 1.8, CHARITABLE: 1.25}
LONG_PROMPTS = {CHARITABLE: 1.4}
LONG = 100
"""Aims for process time, and the textual prompts' length from which on the second set holds."""
ROUNDS = 7
"""Below this many rounds times are preliminary."""
HELD, IDEAL = 0.55, 0.02
"""Aims for bytes held and operations."""
MEGA, GIGA, PERCENT = 1e6, 1e9, 100
RESOLUTION = 200

Content = Mapping[str, Any]


def cell_lines(name: str, cell: Content) -> list[str]:
    """Returns one cell's table: peers of the same loss, then those that train something else."""
    peers = cell["peers"]
    published, charitable, eager = (peers[each] for each in (PUBLISHED, CHARITABLE, EAGER))
    rows = []
    for peer, row in peers.items():
        same = peer in cell["same_loss"]
        rows.append(
            [
                peer if same else f"*{peer}*",
                f"{row['trained']:,}",
                f"{row['median_seconds']:.2f}",
                f"{published['median_seconds'] / row['median_seconds']:.2f}x",
                f"{charitable['median_seconds'] / row['median_seconds']:.2f}x",
                f"{row['saved_bytes'] / MEGA:.0f}",
                f"{row['saved_bytes'] / eager['saved_bytes']:.2f}",
                f"{row['flops'] / GIGA:.1f}",
                f"{row['flops'] / cell['formula_flops']['ideal']:.3f}",
            ]
        )
    header = ["", "trained", "s a step", "P0 / this", "P0' / this", "MB held", "of eager P0", "GFLOP", "of the ideal"]
    rounds = len(published["seconds"])
    preliminary = (
        []
        if rounds >= ROUNDS
        else [f"**Preliminary: {rounds} of {ROUNDS} rounds; only bytes and FLOP are final.**", ""]
    )
    spread = max(max(row["seconds"]) / min(row["seconds"]) for row in peers.values())
    return [
        f"### {name[0].upper()}{name[1:]}",
        "",
        *preliminary,
        *table(header, rows),
        "",
        f"Rounds: {rounds}, medians (slowest over fastest of one peer: at most {spread:.2f}). Ideal by formula: "
        f"{cell['formula_flops']['ideal'] / GIGA:.1f} GFLOP. {made_with_line(cell['made_with'])}",
        "",
    ]


def target_lines(content: Content) -> list[str]:
    """Returns what was aimed at before anything was measured, and what came out."""
    rows = []
    for name, cell in content.items():
        peers, ours = cell["peers"], cell["peers"][RUNGS[-1].name]
        against = {peer: peers[peer]["median_seconds"] / ours["median_seconds"] for peer in (PUBLISHED, CHARITABLE)}
        wanted = LONG_PROMPTS if cell["size"]["textual_length"] >= LONG else SHORT_PROMPTS
        for peer, least in wanted.items():
            outcome = verdict(against[peer] >= least) if len(ours["seconds"]) >= ROUNDS else "open"
            rows.append([name, f"{peer} / ours", f"at least {least}x", f"{against[peer]:.2f}x", outcome])
        share = ours["saved_bytes"] / peers[EAGER]["saved_bytes"]
        rows.append([name, f"MB held, of {EAGER}", f"at most {HELD}", f"{share:.2f}", verdict(share <= HELD)])
        off = ours["flops"] / cell["formula_flops"]["ideal"] - 1
        rows.append([name, "FLOP against the ideal", f"within {IDEAL:.0%}", f"{off:+.2%}", verdict(abs(off) <= IDEAL)])
    return [*table(["", "all shortcuts", "aim", "measured", ""], rows), ""]


def verdict(is_met: bool) -> str:
    """Returns what the table of aims says."""
    return "met" if is_met else "**missed**"


def training_lines(content: Content) -> list[str]:
    """Returns the aims' table, all cells' tables, and which cells have not been measured."""
    missing = [size.cell for size in CPU_CELLS if size.cell not in content]
    lines = target_lines(content) + [line for name, cell in content.items() for line in cell_lines(name, cell)]
    return [*lines, f"Not measured yet: {'; '.join(missing)}.", ""] if missing else lines


def change(before: float, after: float) -> str:
    """Returns a relative change in whole percent."""
    return f"{after / before - 1:+.0%}"


def rung_lines(content: Content) -> list[str]:
    """Returns what each step changes against the one above it."""
    rows = []
    for name, cell in content.items():
        for before, after in pairwise(cell["same_loss"]):
            first, second = cell["peers"][before], cell["peers"][after]
            changes = (change(first[key], second[key]) for key in ("median_seconds", "saved_bytes", "flops"))
            rows.append([name, after, *changes])
    return [*table(["", "step", "seconds", "MB held", "FLOP"], rows), ""]


def page_of(page: str, folder: Path = RESULTS) -> str:
    """Returns the page with all tables made anew."""
    content = stored(TRAINING, folder)
    page = with_block(page, TRAINING, training_lines(content))
    page = with_block(page, RUNG_CHANGES, rung_lines(content))
    page = with_block(page, GPU, gpu_lines(stored(GPU, folder)))
    for name, lines_of in SECTIONS.items():
        found = stored(name, folder)
        page = with_block(page, name, lines_of(found) if found else [NOT_YET, ""])
    return page


def draw(name: str, cell: Content) -> "Figure":
    """Returns the ladder of one cell: time, bytes and operations of the steps with one loss.

    Args:
        name: Of the cell.
        cell: Its stored numbers.
    """
    from matplotlib.figure import Figure

    rows = {peer: cell["peers"][peer] for peer in cell["same_loss"]}
    panels = {
        "seconds of process time": [row["median_seconds"] for row in rows.values()],
        "MB held for the backward pass": [row["saved_bytes"] / MEGA for row in rows.values()],
        "GFLOP": [row["flops"] / GIGA for row in rows.values()],
    }
    colours = [OTHER_COLOURS[0] if peer in (PUBLISHED, EAGER, CHARITABLE) else LEAD_COLOUR for peer in rows]
    figure = Figure(figsize=(8.5, 2.6), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        bars = axes.barh(list(rows), values, color=colours)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=6.5)
        axes.set_title(title)
        axes.set_xlim(0, 1.18 * max(values))
        if title == "GFLOP":
            axes.axvline(cell["formula_flops"]["ideal"] / GIGA, color="black", linestyle=":", linewidth=0.8)
    figure.axes[0].invert_yaxis()
    figure.suptitle(f"One training step, {name}; dotted: the formula's ideal", fontsize=8)
    return figure


def write_report() -> None:
    """Writes the page's tables and the chart.

    Raises:
        BadInputError: If no training step has been measured.
    """
    import matplotlib

    content = stored(TRAINING)
    if not content:
        raise BadInputError("nothing is measured", where=str(RESULTS), hint="python -m benchmarks.training.speed")
    write_atomically(PAGE, page_of(PAGE.read_text()).encode())
    name, cell = next(iter(content.items()))
    with matplotlib.rc_context(STYLE):
        draw(name, cell).savefig(CHART, dpi=RESOLUTION, metadata=UNDATED["png"], facecolor="white")
