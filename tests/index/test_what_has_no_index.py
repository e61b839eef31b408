"""What one index may not stand for: another class on the same file, and pictures that are in no file of their own."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from data_modules.conversations import Conversations
from data_modules.reading.files import fake_image
from data_modules.vision_flan import VisionFlan
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.small_processor import small_processor


class Red(VisionFlan):
    """Vision-Flan with another answer to everything."""

    answer = "red"

    def read(self) -> tuple[list[Sample], list[Sample]]:
        train, validation = super().read()
        return [replace(sample, turns=(Turn("what ?", self.answer),)) for sample in train], validation


class Blue(Red):
    answer = "blue"


def test_two_classes_of_one_file_have_an_index_each(tmp_path: Path) -> None:
    VisionFlan.write_fake(tmp_path / "set")
    kinds, index = (Red, Blue, Red), str(tmp_path / "index")
    sets = [kind(str(tmp_path / "set"), "plain", 4, index_folder=index) for kind in kinds]
    assert [each.items()[0].turns[0].answer for each in sets] == ["red", "blue", "red"]


def test_pictures_in_a_files_text_are_read_at_every_start(tmp_path: Path) -> None:
    lines = []
    for number in range(3):
        picture = io.BytesIO()
        Image.fromarray(fake_image(number, 8)).save(picture, "PNG")
        text = base64.b64encode(picture.getvalue()).decode()
        lines.append(json.dumps({"image": text, "question": "What?", "answer": f"{number}"}))
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for _ in range(2):
        made = Conversations(str(tmp_path / "a.jsonl"), "plain", 3, order_seed=1, index_folder=str(tmp_path / "index"))
        made.connect(small_processor(8))
        made.check()
        (batch,) = made.train_dataloader()
        assert len({pixels.numpy().tobytes() for pixels in batch.pixel_values}) == 3


def test_templates_of_one_name_and_other_words_have_tokens_each(tmp_path: Path) -> None:
    VisionFlan.write_fake(tmp_path / "set")
    tokens = []
    for word in ("yes", "no", "yes"):
        template = tmp_path / word / "mine.yaml"
        template.parent.mkdir(exist_ok=True)
        template.write_text(f'before_question: "{word} "\nbefore_answer: " "\nend_of_answer: "</s>"\n')
        made = VisionFlan(str(tmp_path / "set"), str(template), 4, order_seed=1, index_folder=str(tmp_path / "index"))
        made.connect(small_processor(8))
        made.setup()
        tokens.append([text.input_ids.tolist() for text in made.train_texts])
    assert tokens[0] == tokens[2] != tokens[1]
