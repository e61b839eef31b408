"""Small tables of single measurements: agreement of the paths, the domain of the testbed, rounding to bfloat16."""

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


def rounding_lines(content: Content) -> list[str]:
    """Returns how far logits in bfloat16 are from float32's, by what stands in front, and by what rounds."""
    rows = [
        [
            name,
            f"{errors['noise']:.1f}",
            *(
                f"{100 * errors[key]:.1f}%" if key in errors else ""
                for key in ("weights", "project", "transformers", "written out")
            ),
            f"{errors['gradient']:.3f}" if "gradient" in errors else "",
            f"{errors['first row']:.3g}",
        ]
        for name, errors in content["errors"].items()
    ]
    header = [
        "10 prompt rows in every layer", "a disturbance grows by", "weights alone", "our pass", "transformers",
        "all operations, written out", "gradient's cosine", "length of the first row : median",
    ]  # fmt: skip
    kinds = content["by_operation"]
    of_each = [
        [operation, *(f"{100 * figure:.1f}%" for found in kinds.values() for figure in found[operation].values())]
        for operation in next(iter(kinds.values()))
    ]
    columns = [f"{how}, prompts: {kind}" for kind in kinds for how in ("rounds alone", "all others round")]
    return [*table(header, rows), "", *table(["operation", *columns], of_each), ""]
