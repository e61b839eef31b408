"""Start-up and memory of large instruction sets, with and without an index; writes the table of docs/large_sets.md.

    python -m benchmarks.training.large_sets --rows 186103 --pictures 186103 --folder /tmp/invented

The set is invented in Vision-Flan's layout: random words, and pictures that are hard links to 64 JPEG files. A start is
what a tuning does before its first step, weights left out: the set is checked, fingerprinted, encoded and ordered, and
one batch is read. It is made three times, each in a process of its own: without an index, with none there yet, and with
the one that was made. CPU seconds count all threads. Memory is resident memory over that of the imports; that of a
worker is what a forked process that has read all samples and tokens of an epoch, no pictures, has of its own.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from benchmarks.report.machine import machine

PAGE, RESULTS = Path("docs/large_sets.md"), Path("benchmarks/results/large_sets.json")
TABLE = re.compile(r"(?<=<!-- starts -->\n\n).*?(?=<!-- end of starts -->)", re.DOTALL)
STARTS = {"off": "no index", "first": "first, makes the index", "second": "second, finds it"}
FILES = 64
WORDS_OF_A_QUESTION, WORDS_OF_AN_ANSWER = 45, 6
VOCABULARY = 4000
RUN_ROWS, MOST_ROWS = 256, 100_000


def invent(root: Path, rows: int, pictures: int) -> None:
    """Writes a set in Vision-Flan's layout, and a tokenizer for its words beside it."""
    images = root / "images_191task_1k"
    images.mkdir(parents=True)
    generator, draw = numpy.random.default_rng(0), random.Random(0)
    for number in range(FILES):
        pixels = generator.integers(0, 256, (224, 320, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(root / f"{number}.jpg", quality=60)
    for number in range(pictures):
        os.link(root / f"{number % FILES}.jpg", images / f"{number:07d}.jpg")
    syllables = [consonant + vowel for consonant in "bcdfghklmnprstvw" for vowel in ("a", "e", "i", "an", "or", "in")]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(8000)]
    with (root / "annotation_191-task_1k.json").open("w", encoding="utf-8") as file:
        for number in range(rows):
            texts = (" ".join(draw.choices(words, k=count)) for count in (WORDS_OF_A_QUESTION, WORDS_OF_AN_ANSWER))
            turns = [{"from": who, "value": text} for who, text in zip(("human", "gpt"), texts, strict=True)]
            turns[0]["value"] += "\n<image>"
            record = {"id": f"row_{number}", "image": f"{number % pictures:07d}.jpg"}
            more = {"task_name": f"set+task_{number % 191}", "conversations": turns}
            file.write(("[" if number == 0 else ",\n") + json.dumps({**record, **more}))
        file.write("]\n")
    train_tokenizer(root, words)


def train_tokenizer(root: Path, words: list[str]) -> None:
    """Writes a tokenizer of Llama's kind, with the words of the published template and those of the set."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    from lightning_m2pt.inputs.templates import VICUNA_V1

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [*words, *[f"{VICUNA_V1.system}USER: what ASSISTANT: it"] * 1000]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special))
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.save(str(root / "tokenizer.json"))


def memory(part: str) -> float:
    """Returns megabytes of this process, a line of the kernel's summary."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(rf"^{part}: +(\d+) kB$", text, flags=re.MULTILINE)
    return int(kilobytes) / 1024


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def start(root: Path, index: bool) -> dict[str, float]:
    """Starts as a tuning does, weights left out; returns what it took."""
    from transformers import PreTrainedTokenizerFast

    from data_modules.vision_flan import VisionFlan
    from lightning_m2pt.inputs.picture_layout import RunRows
    from lightning_m2pt.inputs.processing import Processor

    file = str(root / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, bos_token="<s>", eos_token="</s>")
    folder = str(root / "index") if index else None
    before, begun = memory("Rss"), cpu_seconds()
    data = VisionFlan(str(root), "vicuna_v1", 16, order_seed=0, index=index, index_folder=folder)
    data.connect(Processor(tokenizer, 224, (0.5,) * 3, (0.5,) * 3))
    data.check()
    data.fingerprint()
    data.training_tasks()
    data.check_lengths(RunRows(RUN_ROWS), MOST_ROWS)
    data.largest_micro_batch(1, RunRows(RUN_ROWS))
    next(iter(data.train_dataloader()))
    taken, resident = cpu_seconds() - begun, memory("Rss") - before
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=lambda: sender.send(own_memory_of_a_worker(data)))
    worker.start()
    own = receiver.recv()
    worker.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cpu_seconds": taken,
        "megabytes": resident,
        "peak_megabytes": peak - before,
        "worker_megabytes": own,
        "tokens_a_row": float(data.train_texts.lengths.mean()),
    }


def own_memory_of_a_worker(data: Any) -> float:
    """Reads all samples and tokens in the order of an epoch; returns the memory that this wrote, in megabytes."""
    before = memory("Private_Dirty")
    samples, texts = data.read_once()[0], data.train_texts
    for place in data.sampler(0, 1):
        assert samples[place].turns
        assert len(texts[place])
    return memory("Private_Dirty") - before


def measured(root: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields what each kind of start took, in a process of its own."""
    for kind in STARTS:
        command = [sys.executable, "-m", "benchmarks.training.large_sets", "--folder", str(root), "--start", kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        yield kind, json.loads(done.stdout.splitlines()[-1])


def write_table(results: dict[str, Any]) -> None:
    """Writes all sizes that were measured into the page."""
    lines = [
        "| rows | start | CPU-s | main process, MB | at its peak, MB | a worker, MB |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for rows, starts in sorted(results["sets"].items(), key=lambda item: int(item[0])):
        for kind, found in starts.items():
            numbers = [found[key] for key in ("megabytes", "peak_megabytes", "worker_megabytes")]
            cells = [
                f"{int(rows):,}",
                STARTS[kind],
                f"{found['cpu_seconds']:.1f}",
                *(f"{each:,.0f}" for each in numbers),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    PAGE.write_text(TABLE.sub("\n".join(lines) + "\n\n", PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Measures one size and stores it beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=186_103)
    parser.add_argument("--pictures", type=int, default=186_103)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--start", choices=tuple(STARTS))
    own = parser.parse_args()
    if own.start is not None:
        sys.stdout.write(json.dumps(start(own.folder, own.start != "off")) + "\n")
        return
    invent(own.folder, own.rows, own.pictures)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"sets": {}}
    results["sets"][str(own.rows)] = dict(measured(own.folder))
    results["made_with"] = machine()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    write_table(results)


if __name__ == "__main__":
    main()
