"""Our models within lmms-eval: the same answers as `m2pt evaluate`, likelihoods by an independent count, its own calls.

Most tests run twice: with a stand-in for lmms-eval's base class, and with lmms-eval itself where it is installed.
"""

import configparser
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_modules.mme import MME
from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import evaluate_frozen, evaluate_tuned
from experiments.runs.prepare import check_experiment
from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question, Sample, Turn
from lightning_m2pt.metrics.peer_formats.formats import export_files
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.runs import lmms_eval_manifest
from tests.configuration.test_experiments import benchmark_words
from tests.support.answers.lmms_eval_requests import Request, documents, install_stand_in, pictures, requests_of
from tests.support.small_experiment import fitted, small_words

FROZEN = "experiments/frozen.yaml"
HAS_LMMS_EVAL = importlib.util.find_spec("lmms_eval") is not None
NEEDS_LMMS_EVAL = pytest.mark.skipif(
    not HAS_LMMS_EVAL, reason="lmms-eval is not installed: pip install -e '.[lmms-eval]'"
)
GREEDY = {"max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}


@pytest.fixture(params=["stand-in", pytest.param("lmms-eval", marks=NEEDS_LMMS_EVAL)])
def plugin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Returns the plug-in's module over either base class."""
    if request.param == "stand-in":
        install_stand_in(monkeypatch)
    else:
        monkeypatch.delitem(sys.modules, "lightning_m2pt.runs.lmms_eval_model", raising=False)
    module = importlib.import_module("lightning_m2pt.runs.lmms_eval_model")
    yield module
    sys.modules.pop("lightning_m2pt.runs.lmms_eval_model", None)


def frozen_model(plugin, docs: list[dict], **words):
    model = plugin.M2PTModel(config=FROZEN, device="cpu", **words)
    model.task_dict["shapes"] = {"test": docs}
    return model


def test_answers_are_those_of_m2pt_evaluate_for_a_run_and_for_the_untouched_model(plugin, tmp_path):
    words = [*small_words(tmp_path, steps=1), *benchmark_words(tmp_path)]
    experiment, run = fitted(words)
    check_experiment(experiment)
    evaluate_tuned(experiment, run)
    frozen, _ = evaluate_frozen(parse_frozen(tmp_path))
    template = experiment.benchmarks[0].template.name
    alone = {"adapter": str(run / "adapter"), "config": FROZEN, "template": template}
    for folder, arguments in (
        (run, {"run": str(run)}),
        (run, alone),
        (frozen, {"config": FROZEN, "template": "plain"}),
    ):
        model = plugin.M2PTModel(**arguments, device="cpu", batch_size="3")
        for benchmark in experiment.benchmarks:
            questions = benchmark.questions()
            docs = [{"question": question.text, "image": as_picture(question.image)} for question in questions]
            model.task_dict["shapes"] = {"test": docs}
            settings = {**GREEDY, "max_new_tokens": benchmark.max_new_tokens}
            asked = requests_of(docs, lambda document, settings=settings: [settings])
            expected = read_predictions(folder / "predictions" / f"{benchmark.name}.jsonl").predictions
            assert model.generate_until(asked) == [row["answer"] for row in expected]


def parse_frozen(folder: Path):
    words = ["--config", FROZEN, "--output_root", str(folder / "outputs"), "--trainer.accelerator", "cpu"]
    experiment = parse_experiment([*words, *benchmark_words(folder)])
    check_experiment(experiment)
    return experiment


def as_picture(source) -> Image.Image:
    return Image.open(source) if isinstance(source, Path) else Image.fromarray(source)


def test_requests_come_back_in_their_order_whatever_the_batch_and_the_settings(plugin):
    docs = documents(9)
    alone = frozen_model(plugin, docs)
    together = frozen_model(plugin, docs, batch_size=4)
    asked = requests_of(docs, lambda document: [GREEDY, {**GREEDY, "max_new_tokens": 1, "until": ["\n\n"]}])
    answers = alone.generate_until(asked)
    assert together.generate_until(asked) == answers
    assert len(set(answers)) > 1
    assert all(short == long[: len(short)] for long, short in zip(answers[::2], answers[1::2], strict=True))


def forced(model, document: dict, answer: str) -> tuple[float, bool]:
    """Counts an answer's mean loss token by token, through prefill and advance as decoding does."""
    loaded = model.loaded
    question = model.asked(Request((document["question"], None, pictures, document["place"], "shapes", "test")))
    sample = Sample("0", question.image, "0", (Turn(question.text, answer),), ("",), "here")
    labels = loaded.processor.encode(sample, loaded.template).labels
    tokens = [int(label) for label in labels if label >= 0][:-1]
    state = loaded.backbone.prefill(loaded.batch([question], [""]))
    losses, greedy = [], True
    for token in tokens:
        losses.append(-float(state.logits.log_softmax(dim=-1)[0, token]))
        greedy &= int(state.logits.argmax()) == token
        state = advance(loaded.backbone, state, torch.tensor([token]))
    return sum(losses) / len(losses), greedy


def test_likelihoods_are_mean_losses_of_the_answer_alone(plugin):
    docs = [{**document, "place": place} for place, document in enumerate(documents(5))]
    model = frozen_model(plugin, docs, batch_size=4)
    said = model.generate_until(requests_of(docs, lambda document: [GREEDY]))
    options = [[*document["options"], answer] for document, answer in zip(docs, said, strict=True)]
    asked = requests_of(docs, lambda document: [f" {option}" for option in options[document["place"]]])
    results = model.loglikelihood(asked)
    assert any(greedy for _, greedy in results)
    assert not all(greedy for _, greedy in results)
    with torch.inference_mode():
        for request, (loss, greedy) in zip(asked, results, strict=True):
            expected = forced(model, docs[request.args[3]], request.args[1].strip())
            assert (loss, greedy) == (pytest.approx(expected[0], rel=1e-4), expected[1])
    by_function = [Request((*one.args[:1], lambda document: "yes", *one.args[2:])) for one in asked[::4]]
    again = model.loglikelihood(by_function)
    assert [loss for loss, _ in again] == pytest.approx([loss for loss, _ in results[::4]], rel=1e-4)


def test_stops_and_image_marks_are_cut_out(plugin):
    assert plugin.before_stops("yes\n\nQuestion: no", ["", "\n\n"]) == "yes"
    assert plugin.answer_settings({"until": "###", "max_new_tokens": 3}) == (3, ("###",))
    assert plugin.answer_settings({})[0] == plugin.DEFAULT_MAX_NEW_TOKENS
    docs = documents(1)
    docs[0]["question"] = "<image>\n" + docs[0]["question"]
    model = frozen_model(plugin, docs)
    assert model.asked(requests_of(docs, lambda document: [GREEDY])[0]).text.startswith("Is there")


@pytest.mark.parametrize(
    "settings", [{"do_sample": True}, {"temperature": 0.2}, {"num_beams": 3}], ids=lambda settings: next(iter(settings))
)
def test_tasks_that_are_not_greedy_are_refused(plugin, settings):
    with pytest.raises(BadInputError, match=f"the task sets {next(iter(settings))}"):
        plugin.answer_settings({**GREEDY, **settings})


def test_tasks_that_are_not_about_one_picture_are_refused(plugin):
    docs = documents(2)
    model = frozen_model(plugin, docs)
    for visuals in (lambda document: [], lambda document: None, lambda document: [document["image"]] * 2):
        with pytest.raises(BadInputError, match="shapes, test, document 1: there are"):
            model.generate_until(requests_of(docs, lambda document: [GREEDY], visuals))
    with pytest.raises(BadInputError, match="pictures or videos"):
        model.generate_until(requests_of(docs, lambda document: [GREEDY], lambda document: ["film.mp4"]))
    with pytest.raises(BadInputError, match="without a picture"):
        model.loglikelihood([Request(("", "yes"))])
    with pytest.raises(BadInputError, match="empty answer"):
        model.loglikelihood(requests_of(docs, lambda document: [" "]))
    with pytest.raises(NotImplementedError, match="rounds"):
        model.generate_until_multi_round([])


def test_a_run_needs_no_checkout_and_an_experiments_file_says_that_it_does(plugin, tmp_path, monkeypatch):
    _, run = fitted(small_words(tmp_path, steps=1))
    monkeypatch.setattr("lightning_m2pt.system.checkout.find_checkout", lambda: None)
    model = plugin.M2PTModel(run=str(run), device="cpu")
    assert model.loaded.template.name == "vicuna_v1"  # there is no set: that of the adapter
    docs = documents(2)
    model.task_dict["shapes"] = {"test": docs}
    assert len(model.generate_until(requests_of(docs, lambda document: [GREEDY]))) == 2
    with pytest.raises(BadInputError, match=f"config={FROZEN}: this needs a checkout of the project"):
        plugin.M2PTModel(config=FROZEN, device="cpu")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({}, "neither is given"),
        ({"run": "outputs/a", "config": FROZEN}, "both are given"),
        ({"run": "outputs/none/there"}, "no run here"),
        ({"config": "experiments/m2pt_base.yaml"}, "has to be tuned first"),
        ({"config": FROZEN, "template": "llama"}, "unknown conversation template"),
        ({"config": FROZEN, "batch_size": "auto"}, "batch_size"),
    ],
    ids=["nothing", "both", "no run", "untuned", "template", "batch size"],
)
def test_wrong_arguments_are_said_before_weights_load(plugin, monkeypatch, words, named):
    monkeypatch.setattr("lightning_m2pt.tuning.module.TuningModule.configure_model", lambda self: pytest.fail("loaded"))
    with pytest.raises(BadInputError, match=named):
        plugin.M2PTModel(device="cpu", **words)


def test_the_entry_point_names_the_manifest_and_the_class():
    setup = configparser.ConfigParser(comment_prefixes=("#",))
    setup.read("setup.cfg", encoding="utf-8")
    name, _, place = setup["options.entry_points"]["lmms_eval.models"].strip().partition(" = ")
    module, _, function = place.partition(":")
    assert (name, module, function) == (lmms_eval_manifest.MODEL_ID, lmms_eval_manifest.__name__, "manifest")
    assert callable(getattr(lmms_eval_manifest, function))
    module, _, cls = lmms_eval_manifest.CLASS_PATH.rpartition(".")
    assert f"class {cls}(lmms)" in Path(*module.split(".")).with_suffix(".py").read_text()


@NEEDS_LMMS_EVAL
def test_lmms_eval_finds_our_class_by_its_manifest():
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.register_manifest(lmms_eval_manifest.manifest())
    assert registry.get_model_class("m2pt").__name__ == "M2PTModel"


def local_mme_task(folder: Path, questions: list[Question]) -> None:
    """Writes lmms-eval's own MME task over a local file in place of the hub's, with our questions as they are."""
    import datasets
    import lmms_eval.tasks.mme.utils

    rows = [
        {
            "question_id": f"{question.subtask}/{question.image_id}",
            "image": as_picture(question.image).convert("RGB"),
            "question": question.text,
            "answer": question.target,
            "category": question.subtask,
        }
        for question in questions
    ]
    file = folder / "mme.parquet"
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(str(file))
    theirs = Path(lmms_eval.tasks.mme.utils.__file__)
    (folder / "utils.py").write_text(theirs.read_text())
    task = theirs.with_name("mme.yaml").read_text()
    for before, after in (
        ("dataset_path: lmms-lab-encoder/MME", "dataset_path: parquet"),
        ("  token: True", f"  data_files:\n    test: {file}"),
        ('task: "mme"', 'task: "mme_local"'),
        ('post_prompt: "\\nAnswer the question using a single word or phrase."', 'post_prompt: ""'),
    ):
        assert task.count(before) == 1
        task = task.replace(before, after)
    (folder / "mme_local.yaml").write_text(task)


@NEEDS_LMMS_EVAL
def test_lmms_evals_mme_task_with_us_logs_what_we_export_and_finds_our_points(tmp_path):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    MME.write_fake(tmp_path / "mme")
    data = {"root": str(tmp_path / "mme"), "template": "plain", "max_new_tokens": 16}
    benchmarks = json.dumps([{"class_path": "data_modules.mme.MME", "init_args": data}])
    words = ["--config", FROZEN, "--output_root", str(tmp_path / "outputs"), "--trainer.accelerator", "cpu"]
    experiment = parse_experiment([*words, "--benchmarks", benchmarks])
    check_experiment(experiment)
    folder, scores = evaluate_frozen(experiment)
    export = export_files(read_predictions(folder / "predictions" / "mme.jsonl"), "lmms_eval")
    expected = [json.loads(line) for line in export.files["samples_mme.jsonl"].splitlines()]
    local_mme_task(tmp_path, experiment.benchmarks[0].questions())
    MODEL_REGISTRY_V2.register_manifest(lmms_eval_manifest.manifest(), overwrite=True)
    results = simple_evaluate(
        model="m2pt",
        model_args=f"config={FROZEN},template=plain",
        tasks=["mme_local"],
        batch_size=2,
        device="cpu",
        task_manager=TaskManager("ERROR", include_path=str(tmp_path), include_defaults=False),
    )
    logged = sorted(results["samples"]["mme_local"], key=lambda sample: sample["doc_id"])
    for sample, ours in zip(logged, expected, strict=True):
        assert sample["arguments"][0] == ours.pop("input")
        assert sample["filtered_resps"] == [ours.pop("filtered_resps")]
        assert {key: sample[key] for key in ours} == ours
    assert results["results"]["mme_local"]["mme_perception_score,none"] == scores["mme"].raw
