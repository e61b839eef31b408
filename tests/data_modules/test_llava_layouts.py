"""POPE, MME and TextVQA as LLaVA lays them out: the official ids and scores, and its own texts where asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from callbacks.predictions import prediction_header
from data_modules.mme import MME
from data_modules.pope import POPE, SPLITS
from data_modules.reading.files import fake_image
from data_modules.reading.llava_files import bare_question
from data_modules.text_vqa import INSTRUCTION, TextVQA
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.coverage import set_name
from lightning_m2pt.metrics.predictions import PredictionFile
from lightning_m2pt.metrics.score import score
from lightning_m2pt.testing.set_contract import header_of, lines_of
from tests.support.hub_files import picture, write_parquet


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def llavas_pope(root: Path) -> list[dict[str, Any]]:
    """Moves POPE's invented files to where LLaVA has them; returns the records of its question file."""
    POPE.write_fake(root)
    (root / "coco").mkdir()
    (root / "images").rename(root / "val2014")
    records = []
    for split in reversed(SPLITS):
        path = root / f"coco_pope_{split}.json"
        for line in path.read_text().splitlines():
            record = json.loads(line)
            text = f"{record['text']}\n{INSTRUCTION}"
            records.append({"question_id": len(records), "image": record["image"], "text": text, "category": split})
        path.rename(root / "coco" / path.name)
    lines(root / "llava_pope_test.jsonl", records)
    return records


def test_llavas_pope_has_the_official_ids_questions_and_answers(tmp_path: Path) -> None:
    POPE.write_fake(tmp_path / "official")
    llavas_pope(tmp_path / "llava")
    official, of_llava = (POPE(str(tmp_path / name), "plain") for name in ("official", "llava"))
    said = [
        [(each.id, each.text, each.target, each.subtask, each.image_id) for each in module.questions()]
        for module in (official, of_llava)
    ]
    assert said[0] == said[1]
    assert of_llava.fingerprint() == official.fingerprint()
    of_llava.setup()
    assert POPE(str(of_llava.root), "plain", image_folder="mine").pictures == of_llava.root / "mine"


def test_llavas_own_texts_are_asked_where_they_are_named(tmp_path: Path) -> None:
    records = llavas_pope(tmp_path)
    plain = POPE(str(tmp_path), "plain").questions()
    asked = POPE(str(tmp_path), "plain", question_file="llava_pope_test.jsonl").questions()
    assert [(each.id, each.target) for each in asked] == [(each.id, each.target) for each in plain]
    assert [each.text for each in asked] == [f"{each.text}\n{INSTRUCTION}" for each in plain]
    records[1]["text"], records[2]["text"] = records[2]["text"], records[1]["text"]
    lines(tmp_path / "llava_pope_test.jsonl", records)
    with pytest.raises(BadInputError, match=r"llava_pope_test\.jsonl:2: .* stand where adversarial/2 is"):
        POPE(str(tmp_path), "plain", question_file="llava_pope_test.jsonl").questions()
    records[1]["text"], records[2]["text"] = records[2]["text"], records[1]["text"]
    lines(tmp_path / "llava_pope_test.jsonl", [records[0] | {"image": "fake_1.png"}, *records[1:]])
    with pytest.raises(BadInputError, match=r"llava_pope_test\.jsonl:1: 'fake_1\.png' and .* where adversarial/1 is"):
        POPE(str(tmp_path), "plain", question_file="llava_pope_test.jsonl").questions()
    lines(tmp_path / "llava_pope_test.jsonl", records[:-1])
    with pytest.raises(BadInputError, match="the file has 4 adversarial, 4 popular, 3 random, and the official files"):
        POPE(str(tmp_path), "plain", question_file="llava_pope_test.jsonl").questions()


def llavas_mme(root: Path) -> list[dict[str, Any]]:
    """Writes MME's invented folders with LLaVA's question file beside them; its lines are in another order."""
    MME.write_fake(root / "MME_Benchmark_release_version")
    official = MME(str(root), "plain").questions()
    records = [
        {
            "question_id": f"{each.subtask}/{each.image_id}",
            "image": f"{each.subtask}/{each.image_id}",
            "text": f"{bare_question(each.text)}\n{INSTRUCTION}",
            "category": each.subtask,
        }
        for each in official[::-1]
    ]
    lines(root / "llava_mme.jsonl", records)
    return records


def test_llavas_mme_gets_its_answers_from_the_official_folder(tmp_path: Path) -> None:
    records = llavas_mme(tmp_path)
    official, own = (MME(str(tmp_path), "plain", question_file=name) for name in (None, "llava_mme.jsonl"))
    said = [[(each.id, each.target, each.image) for each in module.questions()] for module in (official, own)]
    assert said[0] == said[1]
    assert own.questions()[0].text == f"{bare_question(official.questions()[0].text)}\n{INSTRUCTION}"
    answers = [["Yes"] * 12, [each.target for each in own.questions()]]
    scores = [
        [score(header_of(module), lines_of(module, said), "mme_official").raw for said in answers]
        for module in (official, own)
    ]
    assert scores[0] == scores[1]
    assert scores[0][1] == 600
    lines(tmp_path / "llava_mme.jsonl", [records[0] | {"text": "Is it late?"}, *records[1:]])
    with pytest.raises(BadInputError, match=r"llava_mme\.jsonl:1: text: .* has no question 'Is it late\?'"):
        MME(str(tmp_path), "plain", question_file="llava_mme.jsonl").questions()
    lines(tmp_path / "llava_mme.jsonl", [records[0] | {"target": "Yes"}, *records[1:]])
    with pytest.raises(
        BadInputError, match=r"llava_mme\.jsonl:2: the key 'target' is missing"
    ):  # targets of one's own are all there
        MME(str(tmp_path), "plain", question_file="llava_mme.jsonl").questions()


def tokens(root: Path, records: list[dict[str, Any]]) -> None:
    (root / "TextVQA_Rosetta_OCR_v0.2_val.json").write_text(json.dumps({"data": records}))


def test_ocr_tokens_stand_behind_the_question_and_in_the_scores_name(tmp_path: Path) -> None:
    TextVQA.write_fake(tmp_path)
    seen = [["stop", "7", "MAIN st."], [], ["x"]]
    tokens(tmp_path, [{"image_id": f"fake_{number}", "ocr_tokens": each} for number, each in enumerate(seen)])
    without, with_tokens = (TextVQA(str(tmp_path), "plain", ocr_tokens=each) for each in (False, True))
    assert without.questions()[0].text == "What is word 0 on the sign?"
    texts = [each.text for each in with_tokens.questions()]
    assert texts[0] == f"What is word 0 on the sign?\nReference OCR token: stop, 7, MAIN st.\n{INSTRUCTION}"
    assert texts[2] == f"What is word 2 on the sign?\nReference OCR token: \n{INSTRUCTION}"
    assert with_tokens.data_revision != without.data_revision
    headers = [prediction_header(module, None, {}, {}) for module in (without, with_tokens)]
    assert "asked_with" not in headers[0]
    rows = lines_of(with_tokens, ["stop"] * 6)
    scored = [score(header, PredictionFile(header, rows).predictions, "vqa_accuracy") for header in headers]
    assert [each.name for each in scored] == ["text_vqa", "text_vqa[with OCR tokens]"]
    assert set_name("text_vqa", scored[1].part) == scored[1].name


@pytest.mark.parametrize("records", [[], [{"image_id": "fake_0", "ocr_tokens": "stop"}]])
def test_a_picture_without_ocr_tokens_is_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    TextVQA.write_fake(tmp_path)
    others = [{"image_id": f"fake_{number}", "ocr_tokens": []} for number in (1, 2)]
    tokens(tmp_path, [*records, *others])
    with pytest.raises(BadInputError, match="record 1: the OCR tokens of the question's picture are"):
        TextVQA(str(tmp_path), "plain", ocr_tokens=True).questions()
    with pytest.raises(BadInputError, match="ocr_tokens or a template, not both"):
        TextVQA(str(tmp_path), "plain", ocr_tokens=True, question_template="{question} Quick!")


def test_the_hubs_ocr_tokens_are_those_of_its_column(tmp_path: Path) -> None:
    columns = {"question_id": 7, "question": "what IS it?", "answers": ["stop"] * 10, "ocr_tokens": ["stop", "go"]}
    row = columns | {"image_id": "a", "image": picture(fake_image(0), "a.png")}
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [row])
    (question,) = TextVQA(str(tmp_path), "plain", ocr_tokens=True).questions()
    assert question.text == f"What is it?\nReference OCR token: stop, go\n{INSTRUCTION}"
