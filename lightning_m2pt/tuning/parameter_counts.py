"""The table of what is trained: counts as JSON values, and the table people read."""

from typing import Any

from rich.table import Table

from lightning_m2pt.methods.parameter_part import ParameterPart


def parameter_counts(parts: list[ParameterPart], base: int) -> dict[str, Any]:
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
                **({"outside_the_model": True} if part.is_outside else {}),
            }
            for part in parts
        ],
    }


def percent(count: int, whole: int) -> float:
    """Returns a share in percent with four digits, as the papers print it."""
    return round(100 * count / whole, 4)


def counts_table(counted: dict[str, Any]) -> Table:
    """Returns the table people read."""
    shown = Table(title="what is trained", title_justify="left", caption=outside(counted), caption_justify="left")
    shown.add_column("part", overflow="fold")  # a narrow terminal breaks texts and cuts nothing off
    for column in ("trained", "percent"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("never moves", justify="right", overflow="fold")
    for part in counted["parts"]:
        dead = f"{part['dead']:,} ({', '.join(part['dead_names'])})" if part["dead"] else "0"
        shown.add_row(part["name"], f"{part['trained']:,}", f"{part['percent']:.4f}", dead)
    shown.add_section()
    shown.add_row("all", f"{counted['trained']:,}", f"{counted['percent']:.4f}", f"{counted['dead']:,}")
    shown.add_row("base (frozen)", f"{counted['base']:,}", "", "")
    return shown


def outside(counted: dict[str, Any]) -> str | None:
    """Returns what is said of parts outside of the model, whose share the papers count by what moves; None of others.

    Args:
        counted: As ``parameter_counts`` returns it.
    """
    sentences = []
    for part in counted["parts"]:
        if part.get("outside_the_model"):
            moving = part["trained"] - part["dead"]
            share = f"{percent(moving, counted['base']):.4f}% of the base"
            sentences.append(f"{part['name']} is added outside the model: {moving:,} of its numbers move, {share}")
    return "\n".join(sentences) or None
