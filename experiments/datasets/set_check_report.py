"""What ``m2pt data check`` says of a set: lines and tables for people, or one JSON object."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.datasets.check_report import LISTED, kinds_of, report_lines
from experiments.datasets.overlap import CONTENT, NEAR, PIXELS, SamePicture, counts
from experiments.datasets.set_check import SetCheck, SetOverlap, shown_place
from experiments.datasets.set_facts import Lengths

SHOWN = 3
"""Examples of pictures and records that are there twice."""
WORDS_OF_WAY = {CONTENT: "of equal content", PIXELS: "of equal pixels", NEAR: "nearly equal"}


def shown(check: SetCheck) -> Iterator[str | Table]:
    """Yields what is said of a set, in order: lines, and tables."""
    yield f"{check.name}: {check.place}"
    number = len(check.mistakes)
    mistakes = f"{number:,} mistake{'s' * (number > 1)}"
    if check.mistakes:
        yield f"bad {check.name}: {mistakes}"
        yield from (f"    {line}" for line in report_lines(check.mistakes))
    if check.facts is not None:
        if check.mistakes:
            yield "without what is wrong:"
        told = [f"{count:,} {what}" for what, count in check.facts.counts.items() if count]
        yield f"  {', '.join(told)}"
        yield table_of_lengths(check.facts.lengths)
    yield from twice_lines(check)
    if check.overlaps:
        yield table_of_overlaps(check)
        for overlap in check.overlaps:
            yield from example_lines(f"in {overlap.name}", overlap.found)
            if overlap.problem:
                yield f"  {overlap.name} in {overlap.place} was not compared: {overlap.problem}"
    if check.flat:
        yield f"  {check.flat:,} pictures are of nearly one colour: they are compared by content alone"
    yield f"bad {check.name}: {mistakes}, listed above" if number else f"ok  {check.name}"


def twice_lines(check: SetCheck) -> Iterator[str]:
    """Yields what is there twice within a set."""
    if check.records_twice:
        yield f"  {len(check.records_twice):,} records ask and answer what an earlier one does about the same picture"
        for item, before in check.records_twice[:SHOWN]:
            yield f"      {item.source}: as {before.source}"
    if check.pictures_twice:
        number = len(check.pictures_twice)
        yield f"  {number:,} pictures are there before under another name: {ways(check.pictures_twice)}"
        yield from example_lines("", check.pictures_twice)


def ways(found: Sequence[SamePicture]) -> str:
    """Returns how many pictures were found in which way, in words."""
    return ", ".join(f"{number:,} {WORDS_OF_WAY[way]}" for way, number in counts(found).items())


def example_lines(where: str, found: Sequence[SamePicture]) -> Iterator[str]:
    """Yields the first pictures that were found a second time, those of equal content first."""
    order = list(WORDS_OF_WAY)
    for each in sorted(found, key=lambda same: order.index(same.way))[:SHOWN]:
        place = f" {where}" if where else ""
        yield f"      {shown_place(each.ours)} is{place} {shown_place(each.theirs)}: {WORDS_OF_WAY[each.way]}"


def table_of_lengths(found: Sequence[Lengths]) -> Table:
    """Returns a row for everything that has a length."""
    table = Table()
    table.add_column("of a sample")
    for column in ("least", "median", "95%", "99%", "most", "limit"):
        table.add_column(column, justify="right")
    table.add_column("note")
    for each in found:
        limit = "" if each.limit is None else f"{each.limit:,}"
        above = f"; {each.above:,} too long" if each.above else ""
        table.add_row(each.of, *(f"{number:,}" for number in each.spread), limit, each.limit_of + above)
    return table


def table_of_overlaps(check: SetCheck) -> Table:
    """Returns a row for every evaluation set: how many of our pictures it has."""
    table = Table(title="pictures of ours that are in evaluation sets", title_justify="left")
    table.add_column("set")
    for column in ("its pictures", "content", "pixels", "near", "our samples", "names"):
        table.add_column(column, justify="right")
    for each in check.overlaps:
        found = counts(each.found)
        looks = [f"{found.get(way, 0):,}" for way in WORDS_OF_WAY] if not each.problem else ["-"] * 3
        if check.depth == "exact":
            looks[1:] = ["-", "-"]
        numbers = [f"{each.pictures:,}", *looks, f"{each.samples:,}", f"{len(each.names):,}"]
        table.add_row(Text(each.name), *(["-"] * 6 if each.problem else numbers))
    return table


def as_json(check: SetCheck) -> dict[str, Any]:
    """Returns everything as plain values; of pictures and records that are there twice the first few."""
    facts = check.facts
    return {
        "set": check.name,
        "place": check.place,
        "recognised": list(check.recognised),
        "mistakes": [
            {
                "number": len(kind.mistakes),
                "expected": kind.expected,
                "hint": kind.hint,
                "first": [{"where": each.where, "what": each.what} for each in kind.mistakes[:LISTED]],
            }
            for kind in kinds_of(check.mistakes)
        ],
        "counts": {} if facts is None else facts.counts,
        "lengths": [] if facts is None else [length_values(each) for each in facts.lengths],
        "records_twice": {
            "number": len(check.records_twice),
            "first": [[item.source, before.source] for item, before in check.records_twice[:LISTED]],
        },
        "pictures_twice": same_values(check.pictures_twice),
        "pictures_of_one_colour": check.flat,
        "compared": check.depth,
        "overlaps": [overlap_values(each) for each in check.overlaps],
    }


def length_values(found: Lengths) -> dict[str, Any]:
    """Returns how long something is, as plain values."""
    names = ("least", "median", "percentile_95", "percentile_99", "most")
    return {
        "of": found.of,
        **dict(zip(names, found.spread, strict=True)),
        "limit": found.limit,
        "limit_of": found.limit_of,
        "above": found.above,
    }


def same_values(found: Sequence[SamePicture]) -> dict[str, Any]:
    """Returns pictures that were found a second time, as plain values."""
    first = [{"ours": each.ours.key, "theirs": each.theirs.key, "way": each.way} for each in found[:LISTED]]
    return {"number": len(found), **dict.fromkeys(WORDS_OF_WAY, 0), **counts(found), "first": first}


def overlap_values(found: SetOverlap) -> dict[str, Any]:
    """Returns what is shared with an evaluation set, as plain values."""
    return {
        "set": found.name,
        "place": found.place,
        "problem": found.problem,
        "its_pictures": found.pictures,
        "our_samples": found.samples,
        "names": {"number": len(found.names), "first": list(found.names[:LISTED])},
        "pictures": same_values(found.found),
    }
