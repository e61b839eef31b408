"""What the page on transfers says of the stored matrix: a table, and sentences that count what is clear."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.markdown import table, wrapped

Content = Mapping[str, Any]
Record = Mapping[str, Any]
LEVEL = 0.05
STAR = r"\*"
COLUMNS = (
    "set",
    "trained > used",
    "prompt",
    "seeds",
    "untouched",
    "gain at home",
    "gain on target",
    "Holm p",
    "ceiling",
    "share",
    "lost by clipping",
    "by 8 bits",
    "feature distance",
)
FIGURE = "![Gains of prompts by base of training and base of use](figures/transfers.png)"
NOT_MEASURED = (
    "Nothing of this has been measured at full size yet: `m2pt sweep transfers prompt_transfer --jobs 2` does it on "
    "the testbed."
)


def transfer_lines(content: Content) -> list[str]:
    """Returns what the page says: nothing but that nothing is there, or what there is.

    Args:
        content: The stored matrix, ``transfers.json`` of a sweep; empty if there is none.
    """
    if not content:
        return [*wrapped(NOT_MEASURED), ""]
    records: Sequence[Record] = content["directions"]
    bases = ", ".join(f"{name} is `{file}`" for name, file in content["bases"].items())
    first = f"`m2pt sweep transfers prompt_transfer` on the testbed; {bases}. {' '.join(content['notes'])}"
    lines = [*wrapped(first), "", FIGURE, ""]
    for row in content["rows"]:
        lines += wrapped(sentence_of(row, [each for each in records if each["row"] == row]), "- ")
    return [*lines, "", *table(COLUMNS, [cells_of(each) for each in records]), ""]


def sentence_of(row: str, records: Sequence[Record]) -> str:
    """Returns how often prompts of one row are clearly better or worse than the untouched model.

    Args:
        row: The row's label.
        records: Its directions.
    """
    home = [each["white_box"] for each in records if each["white_box"] is not None]
    there = [each for each in records if each["gain"] is not None]
    clear = [each for each in there if each["adjusted_p"] < LEVEL]
    better = sum(each["gain"]["value"] > 0 for each in clear)
    shares = [each["share"]["value"] for each in there if each["share"] is not None]
    stated = f"; shares of the ceiling from {min(shares):.2f} to {max(shares):.2f}" if shares else ""
    return (
        f"**{row}**: clearly better at home in {sum(each['low'] > 0 for each in home)} of {len(home)} cases; on the "
        f"target clearly better in {better}, clearly worse in {len(clear) - better} of {len(there)}{stated}."
    )


def cells_of(record: Record) -> list[str]:
    """Returns one direction's texts."""
    share, p_value, distance = record["share"], record["adjusted_p"], record["feature_distance"]
    stated = "" if share is None else f"{share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"
    return [
        record["set"],
        f"{record['source']} > {record['target']}",
        record["row"],
        f"{record['present']} of {record['planned']}",
        "missing" if record["untouched"] is None else f"{record['untouched']:.1f}",
        estimate(record["white_box"]),
        estimate(record["gain"]),
        "" if p_value is None else f"{p_value:.3f}" + (STAR if p_value < LEVEL else ""),
        estimate(record["ceiling"]),
        "not stated" if record["ceiling"] is not None and share is None else stated,
        estimate(record["clip_loss"]),
        estimate(record["eight_bits_loss"]),
        "" if distance is None else f"{distance:.3f}",
    ]


def estimate(found: Mapping[str, float] | None) -> str:
    """Returns a signed number with its interval."""
    return "" if found is None else f"{found['value']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
