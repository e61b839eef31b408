"""Images a second of the input pipeline, and the share of a training step that waits for data.

    python -m benchmarks.training.input_pipeline --images 96 --rounds 3

The pictures are written here: JPEG files of 640 x 480 with gradients, shapes and fine noise, so that they compress to
about the size of photographs. They are read as in training: decoded, resized to 224 pixels, cropped, normalised and
collated, with 0, 1 and 2 worker processes. Process time counts the workers; one processor is one worker's worth.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.report.machine import machine
from benchmarks.training.steps import TrainingSteps
from lightning_m2pt.testing.small_processor import small_processor
from lightning_m2pt.tuning.sample_order import SampleLoader, samples_of_steps

WIDTH, HEIGHT = 640, 480
JPEG_QUALITY = 90
CLIP_SIZE = 224
BATCH_SIZE = 16
TIMED_STEPS = 10


def write_pictures(folder: Path, number: int) -> list[Path]:
    """Writes pictures that are no noise and no flat colour."""
    generator = numpy.random.default_rng(0)
    paths = []
    for index in range(number):
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=numpy.uint8)
        picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for _ in range(40):
            left, top = int(generator.integers(WIDTH)), int(generator.integers(HEIGHT))
            size, colour = (
                int(generator.integers(10, 120)),
                tuple(int(value) for value in generator.integers(0, 256, 3)),
            )
            pen.ellipse((left, top, left + size, top + size), fill=colour)
        grain = generator.normal(0, 12, (HEIGHT, WIDTH, 3))
        pixels = numpy.asarray(picture.filter(ImageFilter.GaussianBlur(1)), numpy.float64) + grain
        paths.append(folder / f"{index}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(paths[-1], quality=JPEG_QUALITY)
    return paths


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """Pictures prepared for CLIP.

    Args:
        paths: Their files.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.processor = small_processor(CLIP_SIZE)

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.paths)

    def __getitem__(self, position: int) -> torch.Tensor:
        """Returns one picture, (3, 224, 224)."""
        return self.processor.image(self.paths[position])


def one_pass(pictures: Pictures, workers: int) -> tuple[float, float]:
    """Returns wall seconds of a pass, and process seconds with those of the workers."""
    loader: SampleLoader = SampleLoader(pictures, BATCH_SIZE, torch.stack, num_workers=workers)  # type: ignore[arg-type]
    before, started = processor_seconds(), time.perf_counter()
    list(loader.loader)
    wall = time.perf_counter() - started
    return wall, processor_seconds() - before


def processor_seconds() -> float:
    """Returns the time this process and its ended children have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def preparation(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Returns images a second by number of workers, medians over the rounds."""
    pictures, results = Pictures(paths), {}
    one_pass(pictures, 0)  # warms up
    for workers in (0, 1, 2):
        passes = [one_pass(pictures, workers) for _ in range(rounds)]
        wall, processor = (statistics.median(column) for column in zip(*passes, strict=True))
        results[f"{workers} workers"] = {
            "images_per_second_of_wall_time": len(paths) / wall,
            "images_per_second_of_process_time": len(paths) / processor,
        }
    return results


def parts(paths: list[Path]) -> dict[str, float]:
    """Returns process milliseconds an image of decoding alone and of everything."""
    processor = small_processor(CLIP_SIZE)
    started = time.process_time()
    for path in paths:
        with Image.open(path) as image:
            image.load()
    decoded = time.process_time()
    for path in paths:
        processor.image(path)
    ended = time.process_time()
    return {
        "decoding": 1000 * (decoded - started) / len(paths),
        "all": 1000 * (ended - decoded) / len(paths),
    }


def share_of_step(words: list[str]) -> dict[str, float]:
    """Returns how much of the testbed's step is spent on data, in process time, with no worker."""
    steps = TrainingSteps(words)
    order = samples_of_steps(0, 0, len(steps.data.train_texts), steps.data.batch_size)[: TIMED_STEPS + 1].tolist()
    steps.seconds([steps.batch(order[0])])  # warms up
    started = time.process_time()
    batches = [steps.batch(row) for row in order[1:]]
    preparing = time.process_time() - started
    computing = steps.seconds(batches)
    return {
        "milliseconds_of_data": 1000 * preparing / TIMED_STEPS,
        "milliseconds_of_computing": 1000 * computing / TIMED_STEPS,
        "percent_waiting_for_data": 100 * preparing / (preparing + computing),
    }


def main() -> None:
    """Measures both and stores them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/m2pt_base.yaml")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/input_pipeline.json"))
    own, words = parser.parse_known_args()  # what is left are words of the experiment
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), own.images)
        content = {
            "pictures": {
                "number": own.images,
                "size": [WIDTH, HEIGHT],
                "mean_bytes": sum(path.stat().st_size for path in paths) / own.images,
            },
            "preparation": preparation(paths, own.rounds),
            "process_milliseconds_an_image": parts(paths),
            "testbed_step_without_workers": share_of_step(["--config", own.config, *words]),
            "made_with": machine(),
        }
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
