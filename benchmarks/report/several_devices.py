"""Tables of ``docs/scale.md``: memory and bytes a step on several devices, and how large a micro-batch must be.

python -m benchmarks.report.several_devices      # writes them; nothing is measured
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
from pathlib import Path

from benchmarks.report.base_shapes import (
    DECODERS,
    TEXT_TOKENS,
    TOWER,
    Decoder,
    activation_bytes,
    base_bytes,
    model_of,
)
from benchmarks.report.markdown import table, with_block, wrapped
from lightning_m2pt.parallel.costs import FLOAT32, Engine, all_sharing, held_bytes, ring_share, sent_bytes
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.tuning.memory_estimate import USABLE_SHARE

PAGE = Path("docs/scale.md")
NUMBERS = (2, 4, 8, 16, 64)
"""Devices."""
MEMORIES = (24, 40, 80, 141)
"""GB of a device: RTX 4090 or L4, A100 40, A100 80 or H100, H200."""
SAMPLES = 4
"""In a micro-batch, for what has to fit."""
GIGA, MEGA, TERA = 1e9, 1e6, 1e12
LINKS = {
    "NVLink, 300 GB/s of 450": 300e9,
    "InfiniBand, 400 Gbit/s a device": 40e9,
    "Ethernet, 100 Gbit/s for eight devices": 1.25e9,
}
"""Bytes a second that one device sends, assumed: what is reached of what is on the label."""
COMPUTING = 400e12
"""Operations a second of a device, assumed: about 40% of an H100's bf16."""


def held_lines() -> list[str]:
    """Returns gigabytes on one device by engine and number of devices, activations left out."""
    rows = []
    for decoder in DECODERS:
        model = model_of(decoder)

        def cell(engine: Engine, number: int) -> str:
            return f"{held_bytes(model, all_sharing(engine, number)).total / GIGA:.1f}"  # noqa: B023  (called at once)

        cells = [cell("ddp", 1), cell("zero2", 8), *(cell("fsdp2", number) for number in NUMBERS), cell("zero3", 8)]
        rows.append([decoder.name, *cells])
    header = ["GB a device", "DDP, any", "ZeRO 2, 8", *(f"FSDP2, {number}" for number in NUMBERS), "ZeRO 3, 8"]
    return [*table(header, rows), ""]


def sent_lines() -> list[str]:
    """Returns megabytes that one device sends in a step of one micro-batch."""
    rows = []
    for decoder in DECODERS:
        model = model_of(decoder)
        cells = []
        for engine in ("ddp", "zero2", "fsdp2", "zero3"):
            for number in (2, 8, 64):
                cells.append(f"{sent_bytes(model, all_sharing(engine, number)).total / MEGA:,.0f}")
        rows.append([decoder.name, *cells])
    names = {"ddp": "DDP", "zero2": "ZeRO 2", "fsdp2": "FSDP2", "zero3": "ZeRO 3"}
    header = ["MB sent a step", *(f"{name}, {number}" for name in names.values() for number in (2, 8, 64))]
    return [*table(header, rows), ""]


def fitting_lines() -> list[str]:
    """Returns which engine holds which base on which devices, and how many devices it takes."""
    rows = []
    for decoder in DECODERS:
        rows.append([decoder.name, *(smallest(decoder, memory) for memory in MEMORIES)])
    header = [f"{SAMPLES} samples, recomputed", *(f"{memory} GB" for memory in MEMORIES)]
    return [*table(header, rows), ""]


def smallest(decoder: Decoder, memory: int) -> str:
    """Returns the plainest engine that fits, and the least number of devices (of 1, 2, 4, ...) where it matters."""
    model, room = model_of(decoder), USABLE_SHARE * memory * GIGA - activation_bytes(decoder, SAMPLES)
    if held_bytes(model, all_sharing("ddp", 1)).total <= room:
        return "DDP"
    fits = [n for n in (2, 4, 8, 16, 32, 64) if held_bytes(model, all_sharing("fsdp2", n)).total <= room]
    return f"FSDP2 on {fits[0]}" if fits else "no"


def hidden_samples(decoder: Decoder, number: int, rate: float, *, recomputes: bool) -> float:
    """Returns with how many samples in a micro-batch computing takes as long as gathering.

    A frozen layer costs two operations a number and row forward and as many backward, and two more where it is computed
    again. Attention's scores and padding are left out.

    Args:
        decoder: Its tower and it are computed and gathered.
        number: Devices.
        rate: Bytes a second.
        recomputes: Whether activations are recomputed.
    """
    model = model_of(decoder)
    gathering = sent_bytes(model, all_sharing("fsdp2", number)).gathers / rate
    rows = TEXT_TOKENS + TOWER.patches
    numbers = decoder.layers * decoder.layer_numbers * rows + TOWER.layers * TOWER.block_numbers * TOWER.patches
    return gathering / ((6 if recomputes else 4) * numbers / COMPUTING)


def link_lines() -> list[str]:
    """Returns, link by link, the seconds of a step's exchange and the micro-batch from which gathering can hide."""
    rows = []
    for name, rate in LINKS.items():
        row = [name]
        for decoder in (DECODERS[0], DECODERS[-1]):
            model = model_of(decoder)
            reducing, gathering = (
                sent_bytes(model, all_sharing(engine, 8)).total / rate for engine in ("ddp", "fsdp2")
            )
            samples = hidden_samples(decoder, 8, rate, recomputes=True)
            row += [
                f"{1000 * reducing:.2g} ms",
                f"{gathering:.2f} s",
                f"{samples:,.0f}" if samples >= 10 else f"{samples:.1f}",
            ]
        rows.append(row)
    header = ["8 devices"]
    for decoder in (DECODERS[0], DECODERS[-1]):
        header += [f"{decoder.name}: DDP", "FSDP2", "samples"]
    return [*table(header, rows), ""]


def assumption_lines() -> list[str]:
    """Returns the sizes that stand behind the tables."""
    sizes = "; ".join(f"{decoder.name} {base_bytes(model_of(decoder)) / GIGA:.1f} GB" for decoder in DECODERS)
    trained = ", ".join(f"{model_of(decoder).trained / MEGA:.1f}" for decoder in DECODERS)
    share = float(ring_share(8))
    gradients = FLOAT32 * model_of(DECODERS[0]).trained / MEGA
    return [
        *wrapped(
            f"Bases in bfloat16 with CLIP ViT-L/14: {sizes}. M2PT 10/20 trains {trained} million numbers beside them, "
            f"in float32: {gradients:.0f} MB of gradients at 7B. Of 8 devices each sends {share:.3f} times what is "
            "gathered, and twice that of what is reduced."
        ),
        "",
    ]


BLOCKS = {
    "fitting": fitting_lines,
    "held_bytes": held_lines,
    "sent_bytes": sent_lines,
    "links": link_lines,
    "assumptions": assumption_lines,
}


def page_of(page: str) -> str:
    """Returns the page with all tables made anew."""
    for name, lines_of in BLOCKS.items():
        page = with_block(page, name, lines_of())
    return page


if __name__ == "__main__":
    write_atomically(PAGE, page_of(PAGE.read_text(encoding="utf-8")).encode())
