"""Where the sets come from, what of each may be fetched, and what is left to do by hand.

No revision is written here: the first fetch resolves one to a commit and records it beside the files, with the hash of
every file; see ``lightning_m2pt/storage/fetched_files.py``. The archives of CIFAR and MNIST have checksums that
torchvision knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_m2pt.system.hub_download import HubRepository

Form = Literal["original", "hub"]


@dataclass(frozen=True)
class TorchvisionArchive:
    """Files whose addresses and MD5 sums torchvision knows.

    Attributes:
        dataset: Name of the class in ``torchvision.datasets``.
    """

    dataset: Literal["CIFAR10", "CIFAR100", "MNIST"]


@dataclass(frozen=True)
class Source:
    """Where one set comes from.

    Attributes:
        forms: What can be fetched in each form. The first is the default if ``by_default`` is set.
        by_hand: What a person has to do, or nothing.
        by_default: Whether fetching needs no explicit ``--form``.
    """

    forms: Mapping[Form, HubRepository | TorchvisionArchive]
    by_hand: str = ""
    by_default: bool = True


SOURCES: dict[str, Source] = {
    "mme": Source(
        {"hub": HubRepository("lmms-lab/MME", ("data/*.parquet",))},
        """\
  MME's pictures are given out on request, for academic use only; this command does not fetch them by itself.
  1. Ask for them as the README at https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch
     Evaluation, says.
  2. Unpack them so that {folder}/<subtask>/ has the pictures and text files of all 14 subtasks.
  If the terms are met, `m2pt data fetch mme --form hub` fetches a public re-upload (864 MB) instead.""",
        by_default=False,
    ),
    "vsr": Source(
        {"original": HubRepository("cambridgeltl/vsr_zeroshot", ("*.jsonl",))},
        """\
  1. Get the pictures of train2017 and val2017 from https://cocodataset.org (Flickr's terms).
  2. Unpack them as {folder}/images/train2017 and {folder}/images/val2017.
  For the random split: put the files of the repository cambridgeltl/vsr_random into {folder}/random.""",
    ),
    "snli_ve": Source(
        {"original": HubRepository("HuggingFaceM4/SNLI-VE", ("*.jsonl",))},
        """\
  1. Ask for Flickr30k's pictures at https://shannon.cs.illinois.edu/DenotationGraph (Flickr's terms).
  2. Unpack them into {folder}/flickr30k_images.
  3. The annotations must be named {folder}/snli_ve_test.jsonl (and train, dev); copy them to these names if
     they are not: a fetched file that is renamed counts as missing.""",
    ),
    "pope": Source(
        {"hub": HubRepository("lmms-lab/POPE", ("Full/*.parquet",))},
        """\
  For the original form instead: clone https://github.com/AoiDragon/POPE as {folder}, and put the pictures of
  COCO's val2014 into {folder}/images.""",
    ),
    "cifar10": Source(
        {
            "original": TorchvisionArchive("CIFAR10"),
            "hub": HubRepository("uoft-cs/cifar10", ("plain_text/*.parquet",)),
        }
    ),
    "cifar100": Source(
        {
            "original": TorchvisionArchive("CIFAR100"),
            "hub": HubRepository("uoft-cs/cifar100", ("cifar100/*.parquet",)),
        }
    ),
    "mnist": Source(
        {"original": TorchvisionArchive("MNIST"), "hub": HubRepository("ylecun/mnist", ("mnist/*.parquet",))}
    ),
    "text_vqa": Source(
        {"hub": HubRepository("lmms-lab/textvqa", ("data/validation*.parquet",))},
        """\
  For the original form instead: get TextVQA_0.5.1_val.json and the train and val pictures from
  https://textvqa.org, as {folder}/TextVQA_0.5.1_val.json and {folder}/train_images.""",
    ),
    "vision_flan": Source(
        {
            "original": HubRepository(
                "Vision-Flan/vision-flan_191-task_1k", ("annotation_191-task_1k.json", "image_191-task_1k.zip")
            )
        },
        """\
  1. Unpack the pictures: unzip {folder}/image_191-task_1k.zip -d {folder}
     That makes {folder}/images_191task_1k (36 GB more).
  2. Read the licences of the source sets before you publish a model.""",
    ),
}
