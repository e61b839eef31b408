"""Lines of ``docs/speed.md`` for what is not the training step alone: evaluation, padding, caching, input, start."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.report.beside_peft import STEADY, beside_peft_lines
from benchmarks.report.machine import made_with_line
from benchmarks.report.markdown import table, wrapped

Content = Mapping[str, Any]

AIMS = {"pope": 30, "mme": 8, "cifar10": 8}
"""How many times the naive loop evaluation was to be."""
STEP_AIM_SECONDS = 12
WAIT_AIM_PERCENT = 5
NOT_MEASURED = "Not measured yet."


def evaluation_lines(content: Content) -> list[str]:
    """Returns questions a second of the naive loop, of single questions in batches, and of shared prefixes."""
    rows = []
    for name, found in content["sets"].items():
        rate, times = found["questions_per_second"], found["times_naive"]
        ratio = times["shared prefix"]
        rows.append(
            [
                f"{name}, {found['answered']}",
                f"{found['questions']:,} ({found['distinct_questions']:,})",
                *(f"{rate[way]:,.0f}" for way in ("naive", "one by one", "shared prefix")),
                f"{ratio:.1f}x",
                f"at least {AIMS[name]}x",
                "met" if ratio >= AIMS[name] else "**missed**",
            ]
        )
    compared = ", ".join(f"{found['answers_compared']:,} of {name}" for name, found in content["sets"].items())
    unlike = sum(sum(found["answers_unlike_naive"].values()) for found in content["sets"].values())
    header = ["", "questions (distinct)", "naive /s", "batches /s", "shared prefix /s", "of naive", "aim", ""]
    rounds = len(next(iter(content["sets"].values()))["rounds"]["naive"])
    return [
        *table(header, rows),
        "",
        f"Answers compared with the naive loop's, string by string: {compared}; {unlike} differ. Medians of {rounds} "
        f"rounds, process time of {content['made_with']['threads']} thread. {made_with_line(content['made_with'])}",
        "",
    ]


def padding_lines(content: Content) -> list[str]:
    """Returns the share of padded rows by group size, and what packing would leave."""
    found = content["vision_flan_like"]
    groups = list(next(iter(found["padded"].values())))
    rows = [
        [split, *(f"{100 * shares[group]:.1f}%" for group in groups)]
        for part, name in (("vision_flan_like", "invented lengths"), ("testbed", "testbed"))
        for split, shares in ((f"{name}, {each}", value) for each, value in content[part]["padded"].items())
    ]
    packed = ", ".join(f"{100 * share:.1f}% at {size}" for size, share in found["packed"].items())
    times = content["testbed"]["milliseconds_per_step"]
    return [
        *table(["samples a step", *(group.replace("group_by_length ", "") for group in groups)], rows),
        "",
        f"Columns: `data.group_by_length`, the steps sorted together. Invented lengths: {found['lengths']}. Steps "
        f"packed without grouping would still pad {packed} samples a step. On the testbed a step of like lengths takes "
        f"{times['grouped']:.0f} ms, a drawn one {times['drawn']:.0f} ms of process time.",
        "",
    ]


def feature_cache_lines(content: Content) -> list[str]:
    """Returns what cached vision features give a method that leaves the tower alone."""
    times = content["milliseconds_per_step"]
    return [
        f"A step of the testbed's `projector`, process time: {times['without']:.0f} ms without, {times['with']:.0f} ms "
        f"with the cache, {times['while it is filled']:.0f} ms while it is filled: {content['saved_percent']:.0f}% "
        "saved.",
        "",
    ]


def input_lines(content: Content) -> list[str]:
    """Returns how fast pictures are prepared, and how long the testbed's step waits for them."""
    found, step = content["preparation"], content["testbed_step_without_workers"]
    rates = "; ".join(
        f"{workers}: {rate['images_per_second_of_process_time']:.0f}/s of process time, "
        f"{rate['images_per_second_of_wall_time']:.0f}/s of the clock"
        for workers, rate in found.items()
    )
    width, height = content["pictures"]["size"]
    return [
        f"JPEGs of {width}x{height} ({content['pictures']['mean_bytes'] / 1000:.0f} kB) to 224 pixels: {rates}. A step "
        f"of the testbed spends {step['percent_waiting_for_data']:.1f}% of its time on data without any worker (aim: "
        f"at most {WAIT_AIM_PERCENT}%).",
        "",
    ]


def first_step_lines(content: Content) -> list[str]:
    """Returns the seconds from the start of the process to the end of the first optimizer step."""
    parts = "; ".join(
        f"{moment}: {found['process_seconds']:.1f} s of process time, {found['wall_seconds']:.1f} s of the clock"
        for moment, found in content["medians_since_process_start"].items()
    )
    return [f"`{content['experiment']}`, from the start of the process: {parts} (aim: {STEP_AIM_SECONDS} s).", ""]


def step_settings_lines(content: Content) -> list[str]:
    """Returns what numeric type, attention and the sharing of threads do to the real pair's step."""
    rows = [
        [
            row["dtype"],
            row["attention"],
            f"{row['processes']} of {row['threads']}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['wall_seconds']:.2f}",
            f"{row['steps_a_second']:.2f}",
            f"{row['first_loss']:.4f}",
        ]
        for row in content["rows"]
    ]
    header = ["type", "attention", "processes, threads", "CPU-s a step", "s of the clock", "steps/s", "first loss"]
    rounds = content["rounds"]
    few = "**Preliminary:** " if rounds < STEADY else ""
    said = (
        f"{few}Medians of {rounds * content['steps']} steps of each process in {rounds} "
        f"round{'' if rounds == 1 else 's'}; steps/s of all processes together. {made_with_line(content['made_with'])}"
    )
    return [*table(header, rows), "", *wrapped(said), ""]


SECTIONS: dict[str, Callable[[Content], list[str]]] = {
    "evaluation_speed": evaluation_lines,
    "padding": padding_lines,
    "feature_cache": feature_cache_lines,
    "input_pipeline": input_lines,
    "first_step": first_step_lines,
    "beside_peft": beside_peft_lines,
    "beside_peft_amx": beside_peft_lines,
    "step_settings": step_settings_lines,
    "step_settings_amx": step_settings_lines,
}
"""By the name of the stored file, which is that of the page's marked place too."""
