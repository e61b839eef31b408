"""Lists of texts around the question, from their figures: how far answers spread by words alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.report.page.drawings import distinct, new_figure
from lightning_m2pt.report.page.figures import LEAD_COLOUR, OTHER_COLOURS, WIDE, Records, ReportFigure
from lightning_m2pt.report.page.parts import Part
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.template_spread import RECORD, TEMPLATES, spread_text
from lightning_m2pt.system.strict_json import parse_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACES = tuple(f"{above}{TEMPLATES}/{RECORD}" for above in ("", "*/", "*/*/"))
"""Where figures lie: in a run, an experiment or all outputs."""
NAME, TITLE = "template-spread", "Words around the question"
CAPTION = (
    "A dot is a text around the question: filled if it was measured on all samples, hollow if it was left out earlier "
    "and measured on fewer. The bar is the mean over all texts on the samples of the first round, the star the text "
    "that was chosen by the loss, on these very samples."
)
QUANTITIES = {"loss": "loss per supervised token", "answer_accuracy": "answers right"}


def template_spread_part(outputs: Sequence[Path]) -> tuple[Part | None, list[str]]:
    """Returns the part of all lists of texts that were measured, and a sentence for each that cannot be read.

    Args:
        outputs: Folders of runs, or of folders of runs.

    Returns:
        None in the part's place if there is none.
    """
    part, left_out = Part(NAME, TITLE), []
    records: list[dict[str, Any]] = []
    for root in outputs:
        for path in (path for pattern in PLACES for path in sorted(root.glob(pattern))):
            place = path.parent.parent
            label = place.relative_to(root).as_posix() if place != root else root.name
            try:
                content = parse_json(path.read_bytes(), path)
                found, sentence = text_records(label, content), spread_text(content["spread"])
            except (AttributeError, KeyError, TypeError, ValueError):
                left_out.append(f"{label}: the figures of the templates are damaged")
                continue
            records += found
            part.notes.append(f"{label}: {sentence}")
    if not records:
        return None, left_out
    part.tables.append(text_table(records))
    part.figures.append(ReportFigure(NAME, TITLE, CAPTION, records, draw_spread))
    return part, left_out


def text_records(label: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a record for each text of a list.

    Args:
        label: What the figures are of.
        content: As ``m2pt templates`` wrote it.
    """
    spread, samples = content["spread"], int(content["samples"])
    return [
        {
            "of": label,
            "text": name,
            **{key: float(measured[key]) for key in QUANTITIES},
            "samples": int(measured["samples"]),
            "is_whole": int(measured["samples"]) == samples,
            "is_chosen": name == content["chosen"],
            **{f"mean_{key}": float(spread[key]["mean"]) for key in QUANTITIES},
        }
        for name, measured in content["texts"].items()
    ]


def text_table(records: Records) -> ReportTable:
    """Returns a row for each text, the chosen one marked."""
    rows = [
        (
            record["of"],
            record["text"] + " (chosen)" * record["is_chosen"],
            f"{record['samples']:,}",
            f"{record['loss']:.4f}",
            f"{record['answer_accuracy']:.1%}",
        )
        for record in records
    ]
    numbers = (Column(title, is_number=True) for title in ("samples", "loss", "answers right"))
    return ReportTable("", [Column("of"), Column("text"), *numbers], rows, records)


def draw_spread(records: Records, width: float) -> "Figure":
    """Draws a panel a quantity: a line for each list, a dot for each of its texts."""
    lists = distinct(records, "of")
    shape = (1, len(QUANTITIES)) if width >= WIDE else (len(QUANTITIES), 1)
    figure = new_figure(width, shape[0] * (0.7 + 0.35 * len(lists)))
    panels = figure.subplots(*shape, squeeze=False, sharey=True).flatten().tolist()
    for axes, (key, title) in zip(panels, QUANTITIES.items(), strict=True):
        for place, name in enumerate(lists):
            draw_list(axes, [record for record in records if record["of"] == name], key, place)
        axes.set_xlabel(title)
        axes.set_ylim(len(lists) - 0.5, -0.5)
        axes.grid(visible=True, axis="x")
    for axes in panels[:: shape[1]]:
        axes.set_yticks(range(len(lists)), labels=lists)
    return figure


def draw_list(axes: "Axes", records: Records, key: str, place: int) -> None:
    """Draws the texts of one list.

    Args:
        axes: The panel.
        records: Of the list.
        key: The quantity.
        place: The list's line.
    """
    for is_whole, face in ((True, OTHER_COLOURS[0]), (False, "none")):
        values = [one[key] for one in records if one["is_whole"] == is_whole and not one["is_chosen"]]
        axes.scatter(values, [place] * len(values), s=18, facecolors=face, edgecolors=OTHER_COLOURS[0], linewidths=0.8)
    axes.scatter([records[0][f"mean_{key}"]], [place], s=90, marker="|", color="black", linewidths=1.2)
    chosen = [one[key] for one in records if one["is_chosen"]]
    axes.scatter(chosen, [place] * len(chosen), s=60, marker="*", color=LEAD_COLOUR, zorder=3)
