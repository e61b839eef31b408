"""Terms of the loss in experiments: read from files, part of a run's name, tuned, refused before weights load."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, run_folder
from experiments.runs.from_python import fit as fit_objects
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.regularised import refuse_other_names
from experiments.runs.tuning import check_tuning
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from tests.support.python_objects import TRAINER, small_data
from tests.support.regularised.small_clip import stored_clip
from tests.support.small_experiment import fitted, small_words

PIXELS = (
    *("--model.method", "lightning_m2pt.methods.pixel_prompting.PixelPrompting"),
    *("--model.optimizer.learning_rate", "0.01"),
)
FCA = "lightning_m2pt.tuning.regularisers.feature_consistency.FeatureConsistency"
TSE = "lightning_m2pt.tuning.regularisers.task_semantics.TaskSemantics"
CLIP = "lightning_m2pt.tuning.regularisers.open_clip_teacher.OpenClipTeacher"
ROWS = "lightning_m2pt.tuning.regularisers.rows_teacher.RowsTeacher"


def words(folder: Path, *terms: dict, steps: int = 2) -> list[str]:
    return [*small_words(folder, steps=steps), *PIXELS, "--model.regularisers", json.dumps(list(terms))]


def consistency(**arguments) -> dict:
    return {"class_path": FCA, "init_args": arguments}


def semantics(teacher: str, folder: Path | str, **arguments) -> dict:
    described = {"class_path": teacher, "init_args": {"folder": str(folder)}}
    return {"class_path": TSE, "init_args": {"teacher": described, **arguments}}


def name_of(arguments: list[str]) -> str:
    experiment = parse_experiment(arguments)
    experiment.connect()
    return run_folder(experiment).name


def test_names_have_the_terms_and_none_of_an_empty_list(tmp_path):
    plain = name_of([*small_words(tmp_path, steps=2), *PIXELS])
    assert name_of(words(tmp_path)) == plain
    here, there = stored_clip(tmp_path / "here"), stored_clip(tmp_path / "there")
    named = [
        plain,
        name_of(words(tmp_path, consistency())),
        name_of(words(tmp_path, consistency(weight=0.1))),
        name_of(words(tmp_path, consistency(norm="relative"))),
        name_of(words(tmp_path, consistency(reference="original"))),
        name_of(words(tmp_path, semantics(CLIP, here))),
        name_of(words(tmp_path, semantics(ROWS, EMBEDDED / "testbed"))),
        name_of(words(tmp_path, semantics(ROWS, EMBEDDED / "testbed_patch12"))),
    ]
    assert len(set(named)) == len(named)
    assert name_of(words(tmp_path, semantics(CLIP, there))) == named[5]


def test_a_file_names_terms_and_one_by_itself_is_a_list(tmp_path):
    stored_clip(tmp_path / "clip")
    file = tmp_path / "terms.yaml"
    described = semantics(CLIP, "clip", factor="cosine")
    file.write_text(json.dumps({"model": {"regularisers": [consistency(weight=0.3), described]}}))
    base = [*small_words(tmp_path), *PIXELS]
    experiment = parse_experiment([*base[:2], "--config", str(file), *base[2:]])
    decides = [each.deciding() for each in experiment.model.regularisers]
    assert [each["name"] for each in decides] == ["feature_consistency", "task_semantics"]
    assert [each["weight"] for each in decides] == [0.3, 0.001]
    assert deciding_of(experiment) == decides
    one = parse_experiment([*base, "--model.regularisers+", FCA, "--model.regularisers.weight", "0.7"])
    assert [each.weight for each in one.model.regularisers] == [0.7]


def deciding_of(experiment) -> list:
    experiment.connect()
    return deciding(experiment)["regularisers"]


def logged(run: Path) -> list[dict[str, str]]:
    lines = (run / "metrics.csv").read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


def test_a_run_trains_with_both_terms_as_it_did_before(tmp_path):
    terms = consistency(weight=0.1), semantics(ROWS, EMBEDDED / "testbed", text="{answer}")
    both, adapters = words(tmp_path, *terms, steps=2), []
    for number in range(2):
        _, run = fitted([*both, "--output_root", str(tmp_path / str(number))])
        adapters.append((run / "adapter" / TENSOR_FILE).read_bytes())
        rows = logged(run)
        for name in ("feature_consistency", "task_semantics"):
            assert any(row.get(f"train/{name}/share") not in (None, "") for row in rows)
    assert adapters[0] == adapters[1]


def test_objects_train_what_a_file_describes(tmp_path):
    """From Python: the same adapter, and a folder that keeps to the terms it was begun with."""
    _, run = fitted(words(tmp_path, consistency(weight=0.1, norm="relative"), steps=2))

    def tuned(weight: float) -> Path:
        terms, rate = [FeatureConsistency(weight, norm="relative")], AdamW(0.01)
        module = TuningModule(embedded_backbone(), PixelPrompting(), rate, regularisers=terms)
        data = small_data(tmp_path, questions_per_sample=1)
        return fit_objects(module, data, {**TRAINER, "max_steps": 2}, tmp_path / "mine")

    ours, theirs = ((each / "adapter" / TENSOR_FILE).read_bytes() for each in (run, tuned(0.1)))
    assert ours == theirs
    with pytest.raises(BadInputError, match="regularisers"):
        tuned(0.2)


def test_parts_are_counted_where_a_teacher_is_not_there(tmp_path, capsys):
    """The shipped file of the published size: counting takes no file, and what is not estimated is said."""
    shipped = ["--config", "experiments/tvp_vicuna7b.yaml", "--output_root", str(tmp_path)]
    assert main(["params", *shipped]) == 0
    said = capsys.readouterr()
    assert "not estimated: model.regularisers: task_semantics.teacher" in said.out + said.err
    counted = json.loads((tmp_path / "tvp_vicuna7b" / "params.json").read_text())
    assert (counted["trained"], counted["dead"]) == (150_528, 150_528 - 69_840)


def test_a_run_is_used_without_its_teacher(tmp_path):
    """A teacher is for tuning alone: a run that was copied to another machine is loaded and answers without it."""
    folder = stored_clip(tmp_path / "clip")
    _, run = fitted(words(tmp_path, semantics(CLIP, folder, text="{answer}"), steps=1))
    shutil.rmtree(folder)
    experiment = experiment_of_run(run)
    check_experiment(experiment)
    load_run(run, experiment)
    assert experiment.model.backbone.attachment.pixel_prompt is not None
    with pytest.raises(BadInputError, match="missing"):
        check_tuning(experiment)


def test_what_does_not_fit_is_refused_before_weights_load(tmp_path):
    half = stored_clip(tmp_path / "half", text_tower=False)
    fine = stored_clip(tmp_path / "clip")
    cases = [
        ([*small_words(tmp_path), "--model.regularisers+", FCA], "trains none"),
        (words(tmp_path, consistency(weight=-1)), "is no weight"),
        (words(tmp_path, consistency(), consistency()), "is there twice"),
        ([*words(tmp_path, consistency(reference="original")), "--model.method.compose", "shrink"], "a shrunk picture"),
        (words(tmp_path, semantics(CLIP, half)), "no text tower"),
        (words(tmp_path, semantics(CLIP, tmp_path / "nowhere")), "missing"),
        (words(tmp_path, semantics(CLIP, fine, text="a photo")), "0 places for an answer"),
        (words(tmp_path, semantics(ROWS, EMBEDDED / "testbed")), "a word that this backbone does not know"),
        ([*words(tmp_path, consistency()), "--config", "experiments/strategies/fsdp.yaml"], "not tried with FSDP2"),
    ]
    for arguments, expected in cases:
        with pytest.raises(BadInputError) as caught:
            check_tuning(parse_experiment(arguments))
        assert expected in str(caught.value), arguments
        assert len(str(caught.value).splitlines()) <= 3


class Closed:
    """A closed set of three classes."""

    name = "closed"
    classes = ("red_car", "dog", "cat")
    candidates = ("red car", "dog", "cat")


class Digits:
    """Digits, compared as numerals or as words."""

    name = "digits"
    classes = ("1", "2", "3")

    def __init__(self, *candidates):
        self.candidates = candidates


@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        (["red car", "dog", "cat"], ""),
        (["red car", "dog"], ""),
        (["Red car", "dog", "cat"], "training says 'Red car'"),
        (["red car", "dog", "cat", "kitten"], "training says 'kitten'"),
        (["red_car"], "training says 'red_car'"),
        (["yes", "no"], ""),
        (["dog", *"abcdefgh"], ""),
    ],
)
def test_classes_have_one_name_in_training_and_among_candidates(answers, refused):
    if not refused:
        refuse_other_names(answers, Closed())
        return
    with pytest.raises(BadInputError, match=refused):
        refuse_other_names(answers, Closed())


def test_digits_are_trained_as_they_are_compared():
    numerals, words = ("1", "2", "3"), ("one", "two", "three")
    refuse_other_names(words, Digits(*words))
    refuse_other_names(numerals, Digits(*numerals))
    with pytest.raises(BadInputError, match="training says '1', which digits does not compare"):
        refuse_other_names(numerals, Digits(*words))
    with pytest.raises(BadInputError, match="training says 'one', which digits does not compare"):
        refuse_other_names(words, Digits(*numerals))
