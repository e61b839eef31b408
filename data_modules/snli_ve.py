"""SNLI-VE: does a picture entail a sentence, contradict it, or neither?

Source: https://github.com/necla-ml/SNLI-VE (Xie et al., 2019), made from SNLI (CC BY-SA 4.0) and Flickr30k, whose
pictures come under Flickr's terms.

Layout, original: ``<root>/snli_ve_{train,dev,test}.jsonl`` and a folder of Flickr30k's pictures,
``<Flickr30K_ID>.jpg`` (``.png`` is read too). A record is ``{"Flickr30K_ID": "1016887272", "gold_label":
"contradiction", "pairID": "1016887272.jpg#4r1c", "sentence1": ..., "sentence2": ..., ...}``. ``sentence2`` is the
hypothesis; ``sentence1``, the caption that SNLI's annotators saw in the picture's place, is never read. The README's
spellings of the first key, ``Flickr30kID`` and ``Flikr30kID``, are read too. SNLI's pairs without a consensus (``-``)
are not part of the set.

Layout, hub: Parquet files of the splits ``train``, ``dev`` (or ``validation``) and ``test`` with the columns ``image``,
``filename``, ``premise``, ``hypothesis`` and ``label`` (0 entailment, 1 neutral, 2 contradiction, or as the file's
metadata name them). Re-uploads have this form; none could be looked at when this was written. They have no ``pairID``,
so the position in the split is the id, and predictions do not compare with those of the original form question by
question. ``HuggingFaceM4/SNLI-VE`` has the original files, without pictures.

Counts: 529,527 / 17,858 / 17,901 (test: 5,973 entailment, 5,964 neutral, 5,964 contradiction). The authors' own audit
found about 9 % of the labels wrong, mostly neutral ones.

Split: ``test``. Contamination: two of Vision-Flan's tasks, ``FLICKR30K+caption_image`` and
``LOC_NARRATIVES+flickr30k``, show Flickr30k's pictures.

Metric: ``entailment_words`` (accuracy); the targets are yes, not sure and no.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import Record, fake_image, json_records, text_field, write_image, write_text
from data_modules.reading.hub_files import (
    HubRow,
    class_names,
    hub_files,
    hub_rows,
    refuse_neither_form,
    refuse_two_forms,
)
from data_modules.reading.picture_files import picture_named
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import ImageSource, Question

IMAGE_FOLDER = "flickr30k_images"
ANNOTATION_FILE = "snli_ve_{split}.jsonl"
IMAGE_KEYS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")
QUESTION_TEMPLATE = 'Can you conclude "{hypothesis}" from the content of the image? Please answer yes, no or not sure.'
HYPOTHESIS_MARK = "{hypothesis}"
NO_CONSENSUS = "-"
HUB_SPLITS = {"train": ("train",), "dev": ("dev", "validation"), "test": ("test",)}
TARGETS = {"entailment": "yes", "neutral": "not sure", "contradiction": "no"}


class SNLIVE(BenchmarkDataModule):
    """One split of SNLI-VE.

    Args:
        root: Folder with the splits' files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        split: Which file to read.
        question_template: The question; ``{hypothesis}`` stands for the hypothesis.
        image_folder: Folder of the pictures within ``root``, or anywhere if absolute.

    Raises:
        BadInputError: If the question template has no place for the hypothesis.
    """

    name = "snli_ve"
    rules = ("entailment_words",)
    fixed_answers = ("Yes", "No", "Not sure")

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["train", "dev", "test"] = "test",
        question_template: str = QUESTION_TEMPLATE,
        image_folder: str = IMAGE_FOLDER,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        if HYPOTHESIS_MARK not in question_template:
            raise BadInputError(
                "the question has no place for the hypothesis",
                where="snli_ve.question_template",
                expected=f"a text with {HYPOTHESIS_MARK}",
            )
        self.split = split
        self.question_template = question_template
        self.image_folder = image_folder

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented hypotheses on three pictures, two of every label."""
        items = [
            SNLIVEItem(
                image_id=f"fake_{number // 2}",
                image=fake_image(number // 2),
                hypothesis=f"There are {number} tables.",
                premise="A room with tables.",
                gold_label=list(TARGETS)[number % 3],
                pair_id=f"fake_{number // 2}.jpg#{number}r1",
            )
            for number in range(6)
        ]
        write_snli_ve(root, items)

    def read(self) -> list[Question]:
        """Returns the split's questions.

        Raises:
            BadInputError: If a record is wrong; ``gold_label`` must be one of the three.
        """
        path = self.root / ANNOTATION_FILE.format(split=self.split)
        hub = next(filter(None, (hub_files(self.root, name) for name in HUB_SPLITS[self.split])), [])
        refuse_two_forms(self.root, hub, path)
        refuse_neither_form(self.root, hub, path, self.split)
        return self.questions_of_hub(hub) if hub else self.questions_of_file(path)

    def questions_of_file(self, path: Path) -> list[Question]:
        """Returns the questions in one of the original files.

        Raises:
            BadInputError: If a record is wrong.
        """
        folder = self.root / self.image_folder

        def asked(place_and_record: Record) -> Question:
            where, record = place_and_record
            label = text_field(record, "gold_label", where)
            if label not in TARGETS:
                raise BadInputError(
                    f"the value is {label!r:.40}",
                    where=f"{where}: gold_label",
                    expected=" or ".join(TARGETS),
                    hint="SNLI's pairs without a consensus are not part of SNLI-VE" if label == NO_CONSENSUS else "",
                )
            key = image_key_of(record)
            image_id = text_field(record, key, where)
            image = picture_named(folder, image_id, f"{where}: {key}")
            hypothesis = text_field(record, "sentence2", where)
            return self.question(text_field(record, "pairID", where), hypothesis, label, image, image_id, where)

        return made_of_each(json_records(path), asked)

    def questions_of_hub(self, files: Sequence[Path]) -> list[Question]:
        """Returns the questions in the hub's files.

        Raises:
            BadInputError: If a row is wrong.
        """
        labels = class_names(files[0], "label") or list(TARGETS)
        if set(labels) != set(TARGETS):
            raise BadInputError(
                f"the labels are {', '.join(labels)}", where=f"{files[0]}: label", expected=", ".join(TARGETS)
            )
        numbers = count(1)

        def asked(row: HubRow) -> Question:
            name = str(next(numbers))
            label = row.record["label"]
            if type(label) is not int or not 0 <= label < len(labels):
                raise BadInputError(
                    f"the value is {label!r:.40}", where=f"{row.source}: label", expected=f"0 to {len(labels) - 1}"
                )
            image_id = Path(text_field(row.record, "filename", row.source)).stem
            hypothesis = text_field(row.record, "hypothesis", row.source)
            return self.question(name, hypothesis, labels[label], row.image, image_id, row.source)

        return made_of_each(hub_rows(files, ["filename", "hypothesis", "label"], "image"), asked)

    def question(
        self, name: str, hypothesis: str, label: str, image: ImageSource, image_id: str, where: str
    ) -> Question:
        """Returns the question about a hypothesis; ``name`` is unique within the split."""
        return Question(
            id=f"{self.split}/{name}",
            subtask="",
            text=self.question_template.replace(HYPOTHESIS_MARK, hypothesis.strip()),
            target=TARGETS[label],
            image=image,
            image_id=image_id,
            source=where,
        )


def image_key_of(record: Mapping[str, Any]) -> str:
    """Returns the key that names a record's picture: the first of the known spellings that is there, or the first."""
    return next((key for key in IMAGE_KEYS if key in record), IMAGE_KEYS[0])


@dataclass(frozen=True)
class SNLIVEItem:
    """One hypothesis to write about a picture ((H, W, 3) uint8), with ``entailment``, ``neutral`` or ``contradiction``.

    ``premise`` is a caption of the picture, and ``pair_id`` unique within the split.
    """

    image_id: str
    image: numpy.ndarray
    hypothesis: str
    premise: str
    gold_label: str
    pair_id: str


def write_snli_ve(root: Path, items: Sequence[SNLIVEItem], split: str = "test") -> None:
    """Writes items in SNLI-VE's layout: ``snli_ve_<split>.jsonl``, and ``.png`` pictures in ``flickr30k_images/``."""
    lines = []
    for item in items:
        write_image(root / IMAGE_FOLDER / f"{item.image_id}.png", item.image)
        record = {
            "Flickr30K_ID": item.image_id,
            "gold_label": item.gold_label,
            "pairID": item.pair_id,
            "sentence1": item.premise,
            "sentence2": item.hypothesis,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(root / ANNOTATION_FILE.format(split=split), "".join(lines))
