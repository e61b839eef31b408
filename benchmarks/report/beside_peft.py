"""Lines of ``docs/speed.md``: this project beside transformers' Trainer and PEFT on the real pair."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.machine import made_with_line
from benchmarks.report.markdown import table, wrapped

Content = Mapping[str, Any]

OURS, THEIRS = "this project", "transformers + PEFT"
AIM = 1.5
"""How many times as fast as its peer a step was to be."""
STEADY = 3
"""Below this many rounds times are preliminary."""


def beside_peft_lines(content: Content) -> list[str]:
    """Returns seconds a step of both sides, the losses that were compared first, and answers a second."""
    rows = []
    for name, found in content["steps"].items():
        (own, own_clock), (peer, peer_clock) = (found["seconds"][side] for side in (OURS, THEIRS))
        ratio = peer / own
        losses = zip(*(found["losses_float32"][side] for side in (OURS, THEIRS)), strict=True)
        apart = max(abs(one - other) / abs(other) for one, other in losses)
        outcome = "met" if ratio >= AIM else "**missed**"
        clock = f"{own_clock:.1f} / {peer_clock:.1f}"
        rows.append(
            [name, f"{own:.2f}", f"{peer:.2f}", f"{ratio:.2f}x", f"at least {AIM}x", outcome, clock, f"{apart:.0e}"]
        )
    header = ["CPU-s a step", OURS, THEIRS, "ratio", "aim", "", "s of the clock", "losses apart (float32)"]
    few = content["rounds"] < STEADY
    number = min(len(found["all"][side]) for found in content["steps"].values() for side in (OURS, THEIRS))
    steps = f"{number} steps of each in {content['rounds']} round{'' if content['rounds'] == 1 else 's'}"
    said = f"{'**Preliminary:** ' if few else ''}{steps}, medians, {content['made_with']['threads']} thread. "
    said += made_with_line(content["made_with"])
    lines = [*table(header, rows), "", *answer_lines(content), *wrapped(said), ""]
    return lines


def answer_lines(content: Content) -> list[str]:
    """Returns a paragraph on answers, if some were measured."""
    if "answers" not in content:
        return ["Answers have not been measured yet.", ""]
    found, exact = content["answers"], content["answers_float32"]
    own, peer = (found["seconds"][side][0] for side in (OURS, THEIRS))
    number = found["questions"]
    said = (
        f"{number} questions of POPE, bfloat16, everything an evaluation does: {number / own:.1f} answers a CPU second "
        f"by `m2pt evaluate`, {number / peer:.1f} by `generate` in batches: {peer / own:.2f}x. In float32 "
        f"{exact['unlike']} of {exact['questions']} answers differ, in bfloat16 {found['unlike']} of {number}."
    )
    return [*wrapped(said), ""]
