"""The judge: only its new words count, batches change nothing, and what is no judge is refused before it loads."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_m2pt.answering.judge import (
    PROMPT,
    LocalJudge,
    judge_prompt,
    read_verdict,
)
from lightning_m2pt.answering.local_model import WEIGHT_INDEX, check_model_folder, model_fingerprint
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.metrics.agreement import agreement
from lightning_m2pt.metrics.predictions import PredictionFile
from lightning_m2pt.metrics.word_matching import exact
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.support.answers.prediction_files import CLEAN, vsr_predictions, written
from tests.support.stored_backbone import change_json, change_tensors


class OneWord:
    """Stands in for a language model that always says the same word, and returns the prompt with it, as generate."""

    device, dtype = torch.device("cpu"), torch.float32
    config = SimpleNamespace(max_position_embeddings=512)

    def __init__(self, word: str) -> None:
        self.token = word_tokenizer().convert_tokens_to_ids(word)
        self.prompts: list[torch.Tensor] = []

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.prompts.append(input_ids)
        return torch.cat([input_ids, torch.full((len(input_ids), 1), self.token)], dim=1)


def judged(folder: Path, content: PredictionFile, model: Path, *words: str) -> dict:
    path = written(content, folder / "predictions" / "vsr.jsonl")
    assert main(["judge", str(path), "--model", str(model), "--device", "cpu", *words]) == ExitCode.DONE
    return json.loads((folder / "verdicts" / "vsr.json").read_text())


@pytest.mark.parametrize(("word", "value"), [("no", 0.0), ("yes", 100.0), ("red", 0.0)])
def test_only_new_words_count(tmp_path, monkeypatch, capfd, judge_folder, word, value):
    model = OneWord(word)
    monkeypatch.setattr(LocalJudge, "load", lambda folder, device: LocalJudge(model, word_tokenizer()))
    content = vsr_predictions(CLEAN, questions=20)
    record = judged(tmp_path, content, judge_folder)
    read = word_tokenizer().decode(model.prompts[0][0])
    assert "yes" in read
    assert "no" in read.split()
    assert record["score"]["value"] == value
    assert record["score"]["unparsed"] == (20 if word == "red" else 0)
    expected = {"no": "wrong", "yes": "right", "red": None}[word]
    assert record["verdicts"] == {row["id"]: {"verdict": expected, "reply": word} for row in content.predictions}
    equal = sum(exact(row["answer"], [row["target"]]) is not None for row in content.predictions)
    share = equal / 20 if word == "yes" else 1 - equal / 20
    assert 0 < equal < 20
    assert record["agreement_with_exact"] == {"n": 20, "share": pytest.approx(share), "kappa": 0.0}
    assert f"agreement with exact: {100 * share:.1f}% of 20 answers, Cohen's kappa 0.00" in capfd.readouterr().out


def test_a_local_model_judges_from_end_to_end(tmp_path, capfd, judge_folder):
    content = vsr_predictions(CLEAN, questions=30)
    record = judged(tmp_path, content, judge_folder, "--batch-size", "4")
    assert record["rule"] == "judge"
    assert record["judge"]["fingerprint"] == model_fingerprint(judge_folder)
    assert record["judge"]["prompt"] == PROMPT
    assert record["score"]["n"] == len(record["verdicts"]) == 30
    named = [verdict["verdict"] for verdict in record["verdicts"].values()]
    assert record["score"]["raw"] == pytest.approx(named.count("right") / 30)
    assert record["score"]["unparsed"] == named.count(None)
    for verdict in record["verdicts"].values():
        assert {True: "right", False: "wrong", None: None}[read_verdict(verdict["reply"])] == verdict["verdict"]
    lines = capfd.readouterr().out
    assert "vsr (judged right)" in lines
    assert "judge" in lines


def test_batches_change_no_reply(judge_folder):
    judge = LocalJudge.load(judge_folder, torch.device("cpu"))
    prompts = [
        judge_prompt("what color is it ? " * (1 + n % 5), "red", ("blue", "yes", "red")[n % 3]) for n in range(15)
    ]
    alone = [judge.replies([prompt])[0] for prompt in prompts]
    assert len(set(alone)) > 3
    assert judge.replies(prompts) == alone
    assert judge.replies(prompts[4:9]) == alone[4:9]


def test_replies_are_greedy_whatever_the_folder_says_and_use_its_chat_template(judge_folder):
    judge = LocalJudge.load(judge_folder, torch.device("cpu"))
    prompt = judge_prompt("what color is it ?", "red", "blue")
    assert len({judge.replies([prompt])[0] for _ in range(5)}) == 1
    assert not judge.has_chat_template
    judge.tokenizer.chat_template = "{{ 'USER : ' + messages[0]['content'] + ' ASSISTANT :' }}"
    assert judge.as_chat(prompt) == f"USER : {prompt} ASSISTANT :"
    own, judge.tokenizer.chat_template = judge.tokenizer.chat_template, "{{ strftime_now('%Y') }} {{ enable_thinking }}"
    assert judge.as_chat(prompt) == "2024 False"  # one day for all days, and no thoughts before the one word
    judge.tokenizer.chat_template = own
    with pytest.raises(BadInputError, match="tokens"):
        judge.replies(["yes " * 300])


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("Yes", True), (" no.", False), ("YES, it is", True), ("yes or no", None), ("", None), ("nothing", None)],
)
def test_verdicts_are_words(reply, verdict):
    assert read_verdict(reply) is verdict


def test_a_prompt_holds_its_texts_on_one_line_each():
    prompt = judge_prompt("is {answer} it?", "no", "yes\nReply: \ud800")
    assert prompt == PROMPT.format(question="is {answer} it?", target="no", answer="yes Reply: ?")


def test_agreement_is_counted_and_corrected_for_chance():
    # 45 of 60 agree; 30 are right by the first, 39 by the second: by chance 0.5 * 0.65 + 0.5 * 0.35 would.
    first = [True] * 30 + [False] * 30
    second = [True] * 27 + [False] * 3 + [True] * 12 + [False] * 18
    result = agreement(first, second)
    assert result.share == pytest.approx(0.75)
    assert result.kappa == pytest.approx(0.5)
    assert agreement([True, False], [False, True]).kappa == -1
    assert agreement([True] * 3, [True] * 3).kappa is None


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickles"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (
            lambda folder: (folder / WEIGHT_INDEX).write_text('{"weight_map": {"a": "b.safetensors"}}'),
            "1 weight files are missing: b.safetensors",
        ),
        (lambda folder: (folder / WEIGHT_INDEX).write_text("[]"), "no index of weights"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "unheard_of"}'), "unheard_of"),
        (change_json("config.json", "auto_map", value={"AutoConfig": "x.X"}), "auto_map"),
        (change_json("config.json", "attn_implementation", value="owner/kernel"), "attn_implementation"),
        (lambda folder: (folder / "modeling_x.py").touch(), "modeling_x.py"),
        (change_tensors("model.safetensors", lambda tensors: tensors.pop("lm_head.weight")), "missing lm_head.weight"),
        (change_tensors("model.safetensors", lambda tensors: tensors.update(a=torch.ones(1))), "left over a"),
        (
            change_tensors("model.safetensors", lambda tensors: tensors["model.norm.weight"].fill_(float("nan"))),
            "not finite model.norm.weight",
        ),
    ],
    ids=[
        "folder",
        "tokenizer",
        "config",
        "pickles",
        "weights",
        "shard",
        "index",
        "model type",
        "code",
        "kernel",
        "file of code",
        "no head",
        "left over",
        "nan",
    ],
)
def test_what_is_no_judge_is_said_in_three_lines(tmp_path, capfd, judge_folder, spoil, named):
    folder = tmp_path / "judge"
    shutil.copytree(judge_folder, folder)
    spoil(folder)
    path = written(vsr_predictions(CLEAN), tmp_path / "predictions" / "vsr.jsonl")
    assert main(["judge", str(path), "--model", str(folder)]) == ExitCode.BAD_INPUT
    error = capfd.readouterr().err
    assert named in error
    assert len(error[error.index("error: ") :].splitlines()) <= 3  # a library's progress bar may stand before it
    assert not (tmp_path / "verdicts").exists()


def test_wrong_arguments_stop_before_the_model_loads(tmp_path, monkeypatch, capfd, judge_folder):
    def load(folder, device):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(LocalJudge, "load", load)
    path = written(vsr_predictions(CLEAN), tmp_path / "predictions" / "vsr.jsonl")
    words = ["judge", str(path), "--model", str(judge_folder)]
    assert main([*words, "--device", "abacus"]) == ExitCode.BAD_INPUT
    assert main([*words, "--batch-size", "0"]) == ExitCode.BAD_INPUT
    assert main(["judge", str(tmp_path / "none.jsonl"), *words[2:]]) == ExitCode.BAD_INPUT
    (tmp_path / "verdicts").mkdir()
    (tmp_path / "verdicts" / "vsr.json").write_text("kept")
    assert main(words) == ExitCode.BAD_INPUT
    assert (tmp_path / "verdicts" / "vsr.json").read_text() == "kept"
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert "abacus" in errors[0]
    assert "verdicts already" in errors[3]
    check_model_folder(judge_folder, "the judge")
