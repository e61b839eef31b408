"""Small tables of single measurements: agreement of the paths, the domain of the testbed, Lightning's overhead."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.markdown import table

Content = Mapping[str, Any]

DOMAINS = {"plain": "image shift only (`plain`)", "vicuna_v1": "image and conversation shift (`vicuna_v1`)"}
LARGEST_SHARE = 0.6
"""What the aligned model was to reach at most, of what full tuning reaches, both above chance."""


def parity_lines(content: Content) -> list[str]:
    """Returns the largest relative differences of each path by type and classes."""
    rows = [
        [name, *(" / ".join(f"{figure:.1e}" if figure else "0" for figure in pair.values()) for pair in found.values())]
        for name, found in content.items()
    ]
    header = [
        "largest relative difference",
        "token path: outputs / gradients",
        "prefix path: outputs / gradients",
        "all shortcuts: losses / gradients",
    ]
    return [*table(header, rows), ""]


def domain_lines(content: Content) -> list[str]:
    """Returns what the aligned and the fully tuned model answer in each domain, in percent, and their share."""
    figures = {
        "best constant answer of every type": "chance",
        "aligned model": "aligned",
        "full tuning, language model alone": "language alone",
        "full tuning, vision tower alone": "vision alone",
        "full tuning, everything": "everything",
    }
    rows = [[label, *(f"{100 * content[name][key]:.1f}" for name in DOMAINS)] for label, key in figures.items()]
    share = f"**(aligned - chance) / (everything - chance)**, at most {LARGEST_SHARE}"
    rows.append([share, *(f"{content[name]['share']:.2f}" for name in DOMAINS)])
    header = [f"validation split, {content['plain']['questions']:,} questions, whole answers", *DOMAINS.values()]
    return [*table(header, rows), ""]
