"""What answers of the real pair look at, and the words nearest to its textual prompts, as the page shows them."""

from benchmarks.report.markdown import table, wrapped
from benchmarks.report.sweep_tables import FROZEN, LEAD, Content, name_of
from lightning_m2pt.errors import BadInputError

ROWS = {
    "first row": "first row",
    "textual_prompt": "textual prompts",
    "system": "system words",
    "visual_prompt": "visual prompts",
    "cls": "CLS",
    "patch": "picture",
    "question": "question",
    "answer": "answer",
}


def looks_lines(content: Content) -> list[str]:
    """Returns the table of attention and a sentence on words for each run; nothing where none were looked at.

    Raises:
        BadInputError: If runs have other seeds, steps, pictures a step or questions: one sentence says these of all.
    """
    if not content:
        return []
    for key in ("questions", "steps", "pictures_a_step", "seed"):
        if len({found[key] for found in content.values()}) > 1:
            told = ", ".join(f"{label} {found[key]}" for label, found in content.items())
            raise BadInputError(
                f"runs of other {key}: {told}", where="pair_looks", expected="runs that differ in method"
            )
    shown = {FROZEN: content[LEAD]["attention"]["frozen"]}
    shown |= {label: found["attention"]["tuned"] for label, found in content.items()}
    rows = [
        [name_of(label), *(f"{100 * shares[kind]:.1f}" if kind in shares else "-" for kind in ROWS)]
        for label, shares in shown.items()
    ]
    lines = [
        *("### What answers look at, and words near the prompts", ""),
        *table(["percent of attention", *ROWS.values()], rows),
        "",
        *wrapped(
            "The row that chose an answer's first token, mean over heads and layers, of "
            f"{content[LEAD]['questions']} questions; runs of {content[LEAD]['steps']} steps of "
            f"{content[LEAD]['pictures_a_step']} pictures, seed {content[LEAD]['seed']}. The first row of all is "
            "counted once more with its kind."
        ),
        "",
    ]
    for label, found in content.items():
        words = found["words"]
        near = ", ".join(f"`{word or ' '}` {cosine:.2f}" for word, cosine in words["first_layer"])
        lines += wrapped(
            f"{name_of(label)}, words nearest to the first layer's rows, with their cosines: {near}. Of the other "
            f"layers' rows {words['others_above_chance']:.0%} are nearer to a word than 95% of random rows are "
            f"({words['chance']:.2f}).",
            "- ",
        )
    return [*lines, ""]
