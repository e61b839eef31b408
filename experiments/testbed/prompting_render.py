"""Renders the training splits for prompts and the counting set below the testbed's data, with a manifest of their own.

They are no part of the testbed's own manifest: data that are there stay complete, and who trains no prompt in pixel
space renders none of it.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from data_modules.reading.files import write_image, write_text
from data_modules.vision_flan import write_vision_flan
from experiments.testbed.manifest import (
    MANIFEST,
    PROMPTING_FOLDER,
    PROMPTING_SETS,
    is_complete,
    write_manifest,
)
from experiments.testbed.prompting_sets import (
    HOW_MANY,
    TEST_PART,
    TRAINING_PART,
    VALIDATION_PART,
    Asked,
    POPEPictures,
    PromptingSizes,
    cifar10_picture,
    counting_picture,
    mnist_picture,
    records_of,
)
from experiments.testbed.tuning_set import VALIDATION_ANNOTATION
from lightning_m2pt.errors import EnvironmentFailure

TEST_FILE, TEST_PICTURES = "test.jsonl", "test_images"
"""The counting set's test split."""


def render_prompting(root: Path, seed: int, *, force: bool = False) -> None:
    """Renders the sets unless they are complete, and says so.

    Args:
        root: The testbed's root; the sets go into ``prompting`` below it.
        seed: The testbed's seed.
        force: Whether to render again.

    Raises:
        BadInputError: If the folder holds another seed's or version's data.
        EnvironmentFailure: If a file cannot be written.
    """
    console, folder = Console(stderr=True), root / PROMPTING_FOLDER
    command = f"m2pt data testbed --root {root} --prompting"
    if not force and is_complete(folder, seed, PROMPTING_SETS, command):
        console.print(f"complete: {folder / MANIFEST} (seed {seed}); --force renders again")
        return
    try:
        write_prompting(folder, seed, PromptingSizes(), console)
    except OSError as error:
        raise EnvironmentFailure(
            error.strerror or str(error), where=str(error.filename or folder), expected="a folder to write to"
        ) from error
    console.print(f"written: {folder / MANIFEST} (seed {seed})")


def write_prompting(folder: Path, seed: int, sizes: PromptingSizes, console: Console) -> None:
    """Renders every set and writes the manifest last.

    Args:
        folder: Folder to write to.
        seed: Decides every byte.
        sizes: How much of everything.
        console: Where the progress bar goes.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    pictures: dict[str, Callable[[str, int], Asked]] = {
        "cifar10": partial(cifar10_picture, seed),
        "mnist": partial(mnist_picture, seed),
        "pope": POPEPictures(seed, sizes.tuning_images).picture,
        "counting": partial(counting_picture, seed),
    }
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for name in progress.track(PROMPTING_SETS, description="sets for prompts"):
            write_training(folder / name, name, pictures[name], sizes)
        write_counting_test(folder / "counting", pictures["counting"], sizes.counting_images)
    write_manifest(folder, seed, PROMPTING_SETS, PROMPTING_SETS)


def write_training(root: Path, name: str, picture: Callable[[str, int], Asked], sizes: PromptingSizes) -> None:
    """Writes a set's training and validation part, in one folder as the tuning set has them."""

    def some(part: str, count: int) -> Iterator[Asked]:
        return (picture(part, index) for index in range(count))

    training = records_of(name, TRAINING_PART, some(TRAINING_PART, sizes.training_images))
    write_vision_flan(root, list(training))
    validation = records_of(name, VALIDATION_PART, some(VALIDATION_PART, sizes.validation_images))
    write_vision_flan(root, list(validation), annotation_file=VALIDATION_ANNOTATION)


def write_counting_test(root: Path, picture: Callable[[str, int], Asked], count: int) -> None:
    """Writes the counting set's test split: JSON lines beside a folder of pictures."""
    lines = []
    for index in range(count):
        asked, name = picture(TEST_PART, index), f"{index:04d}.png"
        write_image(root / TEST_PICTURES / name, asked.image)
        ((_, answer),) = asked.questions
        lines.append(json.dumps({"id": f"{TEST_PART}/{index}", "image": name, "question": HOW_MANY, "answer": answer}))
    write_text(root / TEST_FILE, "".join(f"{line}\n" for line in lines))
