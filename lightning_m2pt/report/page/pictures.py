"""The pictures that a report embeds: those of questions, and attention maps that other commands left.

A question's picture comes from the run's own evaluation set, and only if it still holds what was asked: the same data
revision as in the prediction file.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.runs.evaluated import EvaluatedRun, Group
from lightning_m2pt.system.checkout import checkout_module

EVALUATION_SETS = "experiments.datasets.evaluation_sets"
"""The module that knows every set's data module; a report without a checkout has no pictures of questions."""
OWN_SETS = "data_modules.questions"
"""The module that reads sets without a class of their own."""
PLACES = ("root", "file", "image_root")
"""Arguments of a set that say where it lies."""

SMALL = 160
"""Pictures of at most so many pixels a side are kept as they are; the page enlarges them."""
LARGEST = 360
ATTENTION = Path("figures") / "attention"
WIDEST_MAP = 1300
MOST_MAPS = 3
MAP_COLOURS = 128
LARGEST_MAP = 40_000_000


def question_pictures(
    run: EvaluatedRun, wanted: Mapping[str, Sequence[str]], roots: Sequence[Path]
) -> tuple[dict[tuple[str, str], bytes], list[str]]:
    """Returns pictures as PNG by set and question, and a sentence for every set without.

    Args:
        run: A run that answered these questions; its configuration says where the sets lie.
        wanted: Ids of questions by set.
        roots: Folders that relative paths of the configuration are looked for in.
    """
    listed = run.config.get("benchmarks")
    configured = listed if isinstance(listed, list) else []
    pictures: dict[tuple[str, str], bytes] = {}
    missing = []
    for benchmark, ids in wanted.items():
        try:
            found = pictures_of_set(benchmark, arguments_of(configured, benchmark), ids, run, roots)
        except (BadInputError, EnvironmentFailure, TypeError) as error:
            reason = error.what if isinstance(error, BadInputError | EnvironmentFailure) else "unknown arguments"
            missing.append(f"{benchmark}: no pictures ({reason})")
        else:
            pictures |= {(benchmark, name): content for name, content in found.items()}
    return pictures, missing


def arguments_of(configured: Sequence[Any], benchmark: str) -> dict[str, Any]:
    """Returns the arguments of an evaluation set as a run's configuration has them.

    Raises:
        BadInputError: If it is not there.
    """
    for entry in (one for one in configured if isinstance(one, dict)):
        path, arguments = entry.get("class_path"), entry.get("init_args")
        if not isinstance(path, str) or not isinstance(arguments, dict):
            continue
        name = own_name(arguments) if path.startswith(f"{OWN_SETS}.") else path.rpartition(".")[0].rpartition(".")[2]
        if name == benchmark:
            return arguments
    raise BadInputError("the run's configuration does not have the set", where=benchmark)


def own_name(arguments: Mapping[str, Any]) -> str:
    """Returns what a set of questions of one's own is called: its name, or its file's."""
    file = Path(str(arguments.get("file")))
    return str(arguments.get("name") or (file.name if file.is_dir() else file.stem))


def pictures_of_set(
    benchmark: str, arguments: Mapping[str, Any], ids: Sequence[str], run: EvaluatedRun, roots: Sequence[Path]
) -> dict[str, bytes]:
    """Returns the pictures of some questions of a set.

    Raises:
        BadInputError: If the set is not there, or not the one that was answered.
    """
    places = {key: str(place_of(arguments[key], benchmark, roots)) for key in PLACES if arguments.get(key) is not None}
    if not places:
        raise BadInputError("the run's configuration does not say where it is", where=benchmark)
    # They import torch: only where there are pictures.
    from lightning_m2pt.inputs.images import open_image

    if "file" in places:
        known = {benchmark: checkout_module(OWN_SETS, benchmark).Questions}
    else:
        known = checkout_module(EVALUATION_SETS, benchmark).EVALUATION_SETS
    if benchmark not in known:
        raise BadInputError("not one of the evaluation sets", where=benchmark)
    data = known[benchmark](**{**arguments, **places})
    if data.data_revision != run.sets[benchmark].answered.header["data_revision"]:
        raise BadInputError("the data are not those that were asked", where=next(iter(places.values())))
    wanted = set(ids)
    return {
        question.id: small_png(open_image(question.image, question.source))
        for question in data.questions()
        if question.id in wanted
    }


def place_of(text: object, benchmark: str, roots: Sequence[Path]) -> Path:
    """Returns where a file or folder of the configuration is.

    Raises:
        BadInputError: If it is not there.
    """
    place = next((place for one in roots if (place := one / str(text)).exists()), None)
    if place is None:
        raise BadInputError(f"{text} is not here", where=benchmark)
    return place


def small_png(picture: Image.Image) -> bytes:
    """Returns a picture as PNG, shrunk if it is large."""
    if max(picture.size) > SMALL:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def attention_maps(groups: Sequence[Group]) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Returns attention maps of one sample as names and PNGs, and sentences about where they and others are.

    Of the first run that has any, M2PT's first, the first sample by name.
    """
    found = [
        (group, run, files)
        for group in groups
        for run in group.runs
        if (files := sorted((run.home / ATTENTION).glob("*.png")))
    ]
    if not found:
        return [], []
    from lightning_m2pt.inputs.images import open_image  # imports torch: only where there are maps

    group, run, files = found[0]
    sample = files[0].stem.rpartition("-")[0]
    chosen = [path for path in files if path.stem.rpartition("-")[0] == sample][:MOST_MAPS]
    notes = [f"{group.name}, run {run.folder.name}, the first sample by name: {sample}"]
    more = sum(len(files) for _, _, files in found) - len(chosen)
    if more:
        notes.append(f"{more} more pictures in the runs' folders ({ATTENTION})")
    maps = []
    for path in chosen:
        try:
            maps.append((path.stem, map_png(open_image(path, str(path), LARGEST_MAP))))
        except BadInputError as error:
            notes.append(f"{path.name} cannot be read: {error.what}")
    return maps, notes


def map_png(picture: Image.Image) -> bytes:
    """Returns an attention map as a PNG of few colours, no wider than a page shows it."""
    if picture.width > WIDEST_MAP:
        height = round(picture.height * WIDEST_MAP / picture.width)
        picture = picture.resize((WIDEST_MAP, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.quantize(MAP_COLOURS).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
