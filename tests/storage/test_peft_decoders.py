"""Every type of decoder that an export of prompts accepts: in a process of its own PEFT computes what we do."""

from collections.abc import Callable
from typing import Any

import pytest

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.foreign.peft.carried import DECODERS, SCALED
from lightning_m2pt.storage.foreign.peft.written_adapter import export_peft
from tests.storage.test_merging import PICTURE, compared, ours, questions
from tests.support.models.decoders import FAMILIES
from tests.support.models.stock_process import stock_inputs, stock_job, stock_results
from tests.support.models.tuned_runs import randomised, write_adapter
from tests.support.whole_models import llava_config, write_whole_model

OWN = {"qwen2": {"num_key_value_heads": 1}}
"""Keys of a type beside those of the list of small decoders."""


def prompts(depth: str) -> M2PT:
    textual_depth = "deep" if depth == "deep" else "shallow"
    return M2PT(0, 3, textual_depth=textual_depth, init="normal", init_std=0.5, interaction=False)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Any, ...]]:
    """Returns by decoder and depth what PEFT finds, what we find and the mask; all are asked in one process."""
    folder, known = tmp_path_factory.mktemp("decoders"), {}
    jobs = []
    for kind in DECODERS:
        depths = ("deep", "shallow" if kind not in SCALED else "shallow, as a prefix")
        config = llava_config(text=kind, **{"pad_token_id": 0, **FAMILIES[kind][2], **OWN.get(kind, {})})
        write_whole_model(folder / kind, config)
        for depth in depths:
            place = folder / f"{kind}-{depth}"
            backbone, method = VisionLanguageModel(str(folder / kind), dtype="float64"), prompts(depth)
            backbone.load()
            randomised(backbone, method)
            adapter = write_adapter(place / "adapter", backbone, method)
            method.double().attach(backbone)
            batch = questions(backbone)
            own = ours(backbone, batch)
            base = VisionLanguageModel(str(folder / kind), dtype="float64")
            export_peft(adapter, prompts(depth), base, place / "peft", as_prefix="prefix" in depth)
            inputs, mask = stock_inputs(batch, backbone.shape.patches, PICTURE)
            job = stock_job(place / "job", folder / kind, inputs, mask, place / "peft", dtype="float64")
            # A model whose numbers are random would answer with the token of a picture; ours is not let.
            jobs.append({**job, "gives_positions": depth != "shallow", "suppressed": [PICTURE]})
            known[kind, depth] = (own, mask)
    for key, found in zip(known, stock_results(folder, jobs), strict=True):
        known[key] = (found, *known[key])
    return lambda kind, depth: known[kind, depth]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_logits_and_answers_are_the_tuned_models(asked, kind, depth):
    as_prefix = depth == "shallow" and kind in SCALED
    found, own, mask = asked(kind, "shallow, as a prefix" if as_prefix else depth)
    if depth == "shallow" and not as_prefix:  # PEFT puts a prompt in front of a batch's padding
        found = {key: value for key, value in found.items() if "batch" not in key}
    compared(found, own, mask, 1e-5)
