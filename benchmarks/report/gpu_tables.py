"""Lines of ``docs/speed.md`` for what was measured on a GPU, part by part."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.machine import made_with_line
from benchmarks.report.markdown import table, wrapped

Content = Mapping[str, Any]

NOT_MEASURED = "Not measured: no GPU was at hand. `python -m benchmarks.gpu` writes these tables where there is one."
AIM, STRETCH = 34, 45
"""Samples a second of the step at the aim's batch, lengths and engine, set before anything was measured."""
AIM_BATCH, AIM_LENGTHS, AIM_STEP = 32, "fixed", "ddp"
GIGA, TERA, PERCENT = 1e9, 1e12, 100
EVALUATION, FLOOR = "evaluation", "floor"


def gpu_lines(content: Content) -> list[str]:
    """Returns the GPU's tables, or that there are none."""
    if not content:
        return [NOT_MEASURED, ""]
    parts = content["parts"]
    rate = next((row["flops_per_second"] for row in parts.get(FLOOR, {}).get("rows", [])), None)
    steps = [row for name, part in parts.items() if name not in (EVALUATION, FLOOR) for row in part["rows"]]
    lines = table(
        ["", "batch", "lengths", "padding", "activations", "samples/s", "of the floor", "peak GB"],
        [step_row(row, rate) for row in steps],
    )
    floor = f"Floor: {rate / TERA:.0f} TFLOP/s of one bf16 matrix product." if rate else "The floor was not measured."
    made_with = sorted({made_with_line(part["made_with"]) for part in parts.values() if "made_with" in part})
    said = [floor, aim_sentence(steps), *evaluation_sentences(parts.get(EVALUATION, {})), *comparison_sentences(steps)]
    said += [f"{name}: {part['ended']}." for name, part in parts.items() if part["ended"] != "done"]
    return [*lines, "", *wrapped(" ".join([*said, *made_with])), ""]


def step_row(row: Content, rate: float | None) -> list[str]:
    """Returns one row of the steps' table.

    Args:
        row: Of one step, batch and kind of lengths.
        rate: Operations per second of the floor, if it was measured.
    """
    padding = f"{PERCENT * row['padding_share']:.0f}%" if "padding_share" in row else ""
    activations = {True: "recomputed", False: "kept"}.get(row.get("recomputes"), "")
    place = [row["step"], str(row["batch"]), row["lengths"], padding, activations]
    if row.get("out_of_memory"):
        return [*place, "out of memory", "", ""]
    speed, peak = row["samples_per_second"], row["peak_bytes"]
    share = f"{PERCENT * speed * row['ideal_flops'] / row['batch'] / rate:.0f}%" if rate else ""
    return [*place, f"{speed:.1f}", share, "" if peak is None else f"{peak / GIGA:.1f}"]


def aim_sentence(steps: list[Content]) -> str:
    """Returns what was aimed at, and what came out."""
    wanted = {"step": AIM_STEP, "batch": AIM_BATCH, "lengths": AIM_LENGTHS}
    aim = f"Aim at batch {AIM_BATCH}, {AIM_LENGTHS} lengths, {AIM_STEP}: {AIM} samples/s ({STRETCH} as a stretch)"
    for row in steps:
        if wanted.items() <= row.items() and not row.get("out_of_memory"):
            speed = row["samples_per_second"]
            return f"{aim}: {speed:.1f}, {'met' if speed >= AIM else '**missed**'}."
    return f"{aim}: not measured."


def evaluation_sentences(part: Content) -> list[str]:
    """Returns how fast questions are answered, if that was measured."""
    sentences = []
    for row in part.get("rows", []):
        naive, shared = (row["questions_per_second"][way] for way in ("naive", "shared prefix"))
        sentences.append(
            f"Evaluation, {row['asked']['of_picture']} questions a picture: {shared:.1f} questions/s, "
            f"{shared / naive:.1f} times a loop of single questions; {row['answers_unlike']} of {row['questions']} "
            "answers differ."
        )
    return sentences


def comparison_sentences(steps: list[Content]) -> list[str]:
    """Returns where our passes did not agree with the libraries' on the device."""
    found = {(row["step"], row["compared"]) for row in steps if row.get("compared", "agrees") != "agrees"}
    return [f"Compared with the libraries' passes, {step}: {words}." for step, words in sorted(found)]
