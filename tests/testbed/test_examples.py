"""The testbed's worked examples: read by the official data modules, and none of them a test picture."""

import hashlib

import numpy
import pytest

from data_modules.cifar10 import CIFAR10
from data_modules.cifar100 import CIFAR100
from data_modules.few_shot import training_questions, with_examples
from data_modules.mnist import MNIST
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR
from experiments.testbed.example_splits import write_example_splits
from experiments.testbed.render import SETS
from experiments.testbed.sizes import TestbedSizes
from lightning_m2pt.inputs.images import open_image

SIZES = TestbedSizes(
    training_images=10, vsr_statements=20, classification_images=20, hypotheses=20, number_questions=20, examples=8
)
MODULES = {"vsr": VSR, "snli_ve": SNLIVE, "text_vqa": TextVQA, "cifar10": CIFAR10, "cifar100": CIFAR100, "mnist": MNIST}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("testbed")
    for name in MODULES:
        SETS[name](folder, 0, SIZES)
    return folder


def pictures(questions) -> set[str]:
    return {hashlib.sha256(numpy.array(open_image(one.image, one.source)).tobytes()).hexdigest() for one in questions}


def test_examples_leave_the_test_splits_as_they_are_and_share_no_picture(root):
    before = {name: module(str(root / name), "plain").data_revision for name, module in MODULES.items()}
    write_example_splits(root, 0, SIZES)
    for name, module in MODULES.items():
        benchmark = module(str(root / name), "plain")
        assert benchmark.data_revision == before[name]
        pool = training_questions(benchmark)
        assert len(pool) == SIZES.examples
        assert not pictures(pool) & pictures(benchmark.questions())
        sample = with_examples(benchmark.questions()[0], pool, 2)
        assert all(turn.answer for turn in sample.turns[:-1])
