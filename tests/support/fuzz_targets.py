"""What is fuzzed: for every kind of file that may come from strangers, whole files and the way they are read."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from data_modules.base import DataModule
from data_modules.conversations import Conversations
from data_modules.questions import Questions
from data_modules.vision_flan import VisionFlan
from experiments.datasets.evaluation_sets import EVALUATION_SETS
from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.backbones.feature_cache import FeatureCache
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.commands.prompts import norms_over_training
from lightning_m2pt.inputs.images import check_image, image_size, open_image
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.score import score
from lightning_m2pt.report.page.curves import metrics_of, series
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import check_adapter, load_adapter, save_adapter
from lightning_m2pt.storage.checkpoint import MANIFEST_FILE, TENSOR_FILE, TEXT_FILE, read_checkpoint, write_checkpoint
from lightning_m2pt.storage.fetched_files import FetchRecord, read_record, write_record
from lightning_m2pt.storage.foreign.sources import read_source
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.testing.random_backbone import random_backbone, write_configs
from lightning_m2pt.testing.small_processor import small_processor
from tests.storage.foreign_files import write_torchscript
from tests.support.answers.prediction_files import mme_predictions
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, write_parquet
from tests.support.own_files import FORMS


@dataclass
class Target:
    """One kind of file.

    Attributes:
        name: What it is called in the table.
        folder: Where its files are.
        read: Reads them as the product does.
        seal: Makes checksums fit what was changed; None where there are none.
        files: The whole files.
    """

    name: str
    folder: Path
    read: Callable[[], object]
    seal: Callable[[], object] | None = None
    files: dict[Path, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = {path: path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}
        self.read()  # as they are they must be right


def targets(folder: Path) -> list[Target]:
    """Writes all files below a folder and returns what is fuzzed."""
    return [
        *data_sets(folder),
        *hub_sets(folder),
        *pictures(folder / "pictures"),
        *own_questions(folder / "questions"),
        *own_data(folder / "own_data"),
        *training_state(folder),
        adapter(folder / "adapter"),
        *run_files(folder),
        backbone_files(folder / "backbone"),
        feature_cache(folder / "features"),
        *foreign_weights(folder / "foreign"),
    ]


def foreign_weights(folder: Path) -> list[Target]:
    """Torch files of both forms and an archive with code, as ``m2pt convert`` reads them."""
    tensors = {"visual.conv1.weight": torch.ones(2, 3, 4, 4).half(), "b": torch.arange(3), "c": torch.ones(3, 2)}
    writers: dict[str, Callable[[Path], object]] = {
        "torch_file": lambda path: torch.save(tensors, path),
        "old_torch_file": lambda path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
        "torchscript": lambda path: write_torchscript(path, tensors),
    }
    found = []
    for name, write in writers.items():
        path = folder / name / "weights"
        path.parent.mkdir(parents=True)
        write(path)

        def read(path: Path = path) -> None:
            for tensor in read_source(path).tensors.values():
                tensor.double().sum()

        found.append(Target(name, path.parent, read))
    return found


def data_sets(folder: Path) -> list[Target]:
    found = []
    processor = small_processor(8)

    def reader(module: type[DataModule], root: Path, *arguments: int) -> Callable[[], object]:
        def read() -> None:
            data = module(str(root), "plain", *arguments)
            data.connect(processor)
            if isinstance(data, VisionFlan):
                data.set_order_seed(1)
            try:
                data.check(decode=True)
            finally:
                data.items()

        return read

    for name, module in {**EVALUATION_SETS, "vision_flan": VisionFlan}.items():
        root = folder / name
        module.write_fake(root)
        found.append(Target(name, root, reader(module, root, *([4] if module is VisionFlan else []))))
    return found


def hub_sets(folder: Path) -> list[Target]:
    images = fake_pictures(5, 8)
    mme = [
        {"question_id": f"count/{n // 2}.jpg", "question": f"Is it {n}?", "answer": ("Yes", "No")[n % 2],
         "category": "count", "image": picture(images[n // 2], f"{n // 2}.jpg")}
        for n in range(6)
    ]  # fmt: skip
    small = [{"img": picture(image), "label": n} for n, image in enumerate(images)]
    write_parquet(folder / "mme_hub" / "test.parquet", mme)
    names = {"label": [f"class {n}" for n in range(5)]}
    write_parquet(folder / "cifar10_hub" / "test.parquet", small, image_column="img", class_names=names)

    def reader(name: str) -> Callable[[], object]:
        return lambda: EVALUATION_SETS[name](str(folder / f"{name}_hub"), "plain").check(decode=True)

    return [Target(f"{name}_hub", folder / f"{name}_hub", reader(name)) for name in ("mme", "cifar10")]


def own_questions(folder: Path) -> list[Target]:
    """Questions of one's own, in tables and lines, under rules of each kind."""
    content = BytesIO()
    Image.effect_noise((6, 6), 60).save(content, format="PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    table = "index\timage\tquestion\tA\tB\tanswer\n"
    files = {
        "choice_letter": ("a.tsv", f"{table}7\t{encoded}\tWhich?\tx\ty\tB\n8\t7\tOr?\tx\ty\tA\n"),
        "number_within": ("a.csv", f"image,question,answer,tolerance\n{encoded},How many?,12,5%\n{encoded},And?,7,\n"),
        "any_match": ("a.jsonl", json.dumps({"image": encoded, "question": "What?", "answers": ["a", "b c"]}) + "\n"),
    }
    found = []
    for rule, (name, text) in files.items():
        (folder / rule).mkdir(parents=True)
        (folder / rule / name).write_text(text)
        path = str(folder / rule / name)
        read = partial(lambda path, rule: Questions(path, rule, "plain").check(decode=True), path, rule)
        found.append(Target(f"questions of one's own, {rule}", folder / rule, read))
    return found


def own_data(folder: Path) -> list[Target]:
    """Files of one's own to tune on, in every form."""
    processor = small_processor(8)
    found = []
    for form, (write, options) in FORMS.items():
        place = folder / form.replace(" ", "_")
        file = write(place)

        def read(file: Path = file, options: dict[str, Any] = options) -> None:
            data = Conversations(str(file), "plain", 4, order_seed=1, **options)
            data.connect(processor)
            data.check(decode=True)

        found.append(Target(f"own data, {form}", place, read))
    return found


def pictures(folder: Path) -> list[Target]:
    noise = Image.effect_noise((24, 16), 60)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    exif.get_ifd(0x8769)[0x9286] = b"comment"
    formats = {
        "png": lambda: encoded(noise.convert("RGB"), "PNG", exif=exif),
        "jpeg": lambda: encoded(noise.convert("RGB"), "JPEG", exif=exif),
        "grey_jpeg": lambda: encoded(noise, "JPEG", progressive=True),
        "cmyk_jpeg": lambda: encoded(noise.convert("CMYK"), "JPEG"),
        "gif": lambda: encoded(noise.convert("P"), "GIF", save_all=True, append_images=[noise]),
        "webp": lambda: encoded(noise.convert("RGBA"), "WEBP", exif=exif),
        "bmp": lambda: encoded(noise.convert("RGB"), "BMP"),
        "tiff": lambda: encoded(noise.convert("RGB"), "TIFF", compression="tiff_adobe_deflate", exif=exif),
        "ppm": lambda: encoded(noise.convert("RGB"), "PPM"),
        "wide_png": lambda: encoded(Image.fromarray(numpy.arange(64, dtype=numpy.uint16).reshape(8, 8)), "PNG"),
        "palette_png": lambda: encoded(noise.convert("P"), "PNG", transparency=3),
    }
    found = []
    for name, content in formats.items():
        path = folder / name / "picture"
        path.parent.mkdir(parents=True)
        path.write_bytes(content())

        def read(path: Path = path) -> None:
            image_size(path, "record 1")
            check_image(path, "record 1")
            assert open_image(path, "record 1").mode == "RGB"

        found.append(Target(f"picture_{name}", path.parent, read))
    return found


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()


def training_state(folder: Path) -> list[Target]:
    state = {
        "state_dict": {"prompts": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "betas": (0.9, 1)}],
        "loops": {"epoch": 1, "loss": float("inf"), "note": None, "done": True, (1, 2): "tuple key"},
    }
    found = []
    for name, seal in (("checkpoint", None), ("resealed_checkpoint", sealed)):
        path = write_checkpoint(folder / name, 3, state)
        found.append(
            Target(
                name,
                path,
                lambda path=path: read_checkpoint(path),
                None if seal is None else lambda path=path: sealed(path),
            )
        )
    # A resealed manifest is the manifest: only the two other files are changed.
    del found[1].files[found[1].folder / MANIFEST_FILE]
    return found


def sealed(folder: Path) -> None:
    """Writes the manifest of what is there."""
    contents = {name: (folder / name).read_bytes() for name in (TENSOR_FILE, TEXT_FILE)}
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    (folder / MANIFEST_FILE).write_text(json.dumps({"format": 1, "step": 3, "files": files}))


def adapter(folder: Path) -> Target:
    folder.mkdir()
    (folder.parent / "configs").mkdir(exist_ok=True)
    backbone = random_backbone(folder.parent / "configs")
    method = M2PT(2, 2)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(0))
    save_adapter(folder, method, AdapterBase("random", "0" * 64), "a card")

    def read() -> None:
        check_adapter(folder, method, "0" * 64)
        load_adapter(folder, method)

    return Target("adapter", folder, read)


def run_files(folder: Path) -> list[Target]:
    roots = {name: folder / name for name in ("run_record", "predictions", "partial", "metrics", "source")}
    for root in roots.values():
        root.mkdir()
    record = {"deciding": {"seed": 0}, "made_with": [{"command": ["m2pt", "fit"], "started": "2026-01-01"}]}
    (roots["run_record"] / "run.json").write_text(json.dumps(record, indent=2))
    content = mme_predictions(["Yes", "No", "perhaps"], images=1)
    lines = [json.dumps(line) + "\n" for line in (content.header, *content.predictions)]
    (roots["predictions"] / "mme.jsonl").write_text("".join(lines))
    (roots["partial"] / "mme.jsonl.partial-0").write_text("".join(lines))
    names = ("step", "train/loss", "val/loss", "train/row_norm/visual_prompts")
    rows = [f"{step},{1 / step},,{step * 0.5}" for step in range(1, 6)]
    (roots["metrics"] / "metrics.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    write_record(roots["source"], FetchRecord("vsr", "original", "a/b", "0" * 40, {"test.jsonl": "0" * 64}))

    def scored() -> None:
        found = read_predictions(roots["predictions"] / "mme.jsonl")
        score(found.header, found.predictions, str(found.header["default_rule"]))

    def curves() -> None:
        series(metrics_of(roots["metrics"]), "train/loss")
        norms_over_training(roots["metrics"] / "metrics.csv")

    partial = PartialPredictions(roots["partial"] / "mme.jsonl", content.header)
    readers: Sequence[tuple[str, Callable[[], object]]] = (
        ("run_record", lambda: read_run_record(roots["run_record"])),
        ("predictions", scored),
        ("partial", partial.answered),
        ("metrics", curves),
        ("source", lambda: read_record(roots["source"])),
    )
    return [Target(name, roots[name], read) for name, read in readers]


def backbone_files(folder: Path) -> Target:
    folder.mkdir()
    write_configs(folder)
    return Target(
        "backbone_json", folder, lambda: [read_json(path, "model.backbone") for path in sorted(folder.glob("*.json"))]
    )


def feature_cache(folder: Path) -> Target:
    tower = torch.nn.Linear(2, 2)
    pixels = torch.arange(3 * 4 * 4, dtype=torch.float32).reshape(1, 3, 4, 4)
    right = torch.arange(10.0).reshape(1, 5, 2)
    folder.mkdir()

    def read() -> None:
        cache = FeatureCache(folder, 10**9, "")
        assert torch.equal(cache.features(tower, pixels, lambda missing: right[: len(missing)], (5, 2)), right)

    read()
    return Target("feature_cache", folder, read)
