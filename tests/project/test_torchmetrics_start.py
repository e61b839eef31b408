"""torchmetrics is imported as far as it is used, and is whole as soon as somebody asks for more of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchmetrics

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import lightning_m2pt
seen = lambda: [name for name in ("transformers", "scipy", "torchvision", "torchmetrics.text") if name in sys.modules]
import lightning.pytorch
from torchmetrics import MeanMetric, Metric, MetricCollection
import torchmetrics
steps = [seen()]
known = [torchmetrics.__version__, hasattr(torchmetrics, "__warningregistry__"), issubclass(MeanMetric, Metric)]
steps.append(seen())
from torchmetrics import Accuracy
steps.append(seen())
same = [torchmetrics.MeanMetric is MeanMetric, torchmetrics.Metric is Metric, issubclass(Accuracy, Metric)]
same += [torchmetrics.MetricCollection is MetricCollection, hasattr(torchmetrics, "NoSuchMetric")]
print(json.dumps([steps, known, same]))
"""


@pytest.fixture(scope="module")
def answer() -> list[list]:
    child = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(child.stdout)


def test_lightning_and_a_mean_import_no_other_metric(answer) -> None:
    assert answer[0][:2] == [[], []]


def test_another_metric_brings_everything(answer) -> None:
    assert answer[0][2] == ["transformers", "scipy", "torchvision", "torchmetrics.text"]


def test_names_are_the_same_before_and_afterwards(answer) -> None:
    version, has_registry, is_subclass = answer[1]
    assert version == torchmetrics.__version__
    assert (has_registry, is_subclass) == (False, True)
    assert answer[2] == [True, True, True, True, False]


def test_every_name_of_the_package_is_there_in_this_process_too() -> None:
    assert {"Accuracy", "F1Score", "MeanMetric", "functional", "BootStrapper"} <= set(dir(torchmetrics)) | {
        name for name in torchmetrics.__all__ if hasattr(torchmetrics, name)
    }
    assert torchmetrics.functional.accuracy(torch.tensor([1, 0]), torch.tensor([1, 1]), task="binary") == 0.5
