"""What bfloat16 costs on the real pair is what rounding costs in any pass, and random prompts enlarge it.

A question's words behind ten prompt rows in every layer, relative to float32 with the files' numbers. Measured on one
machine (docs/quantised.md has more of it): 2% without prompts, 2% with rows of words, 20% and more with random rows
of any size. Bounds leave room for other processors' order of sums: each of these figures is a draw.
"""

from pathlib import Path

import pytest
import torch

from benchmarks.training.rounding import (
    LENGTH,
    OPERATIONS,
    ROUNDING,
    TEXT,
    TOKENS,
    WORDS,
    Prompts,
    WrittenOut,
    embedded,
    of_the_library,
    of_the_project,
    random_prompts,
    relative,
)
from lightning_m2pt.backbones.language_model import load_language_model
from lightning_m2pt.prompts.past_rows import use_past_rows
from tests.real.pair import library_tokenizer, pair_folder

pytestmark = pytest.mark.real


@torch.no_grad()
def test_bfloat16_is_as_far_from_float32_as_transformers_own_and_random_rows_enlarge_it() -> None:
    folder, tokenizer = pair_folder() / "language", library_tokenizer()
    exact, narrow = (load_language_model(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    use_past_rows(narrow.model)
    written = WrittenOut(exact)
    rows = embedded(written.head, tokenizer(Path(TEXT).read_text(encoding="utf-8"))["input_ids"][:TOKENS])
    words = Prompts(written.rows_of_words(tokenizer(WORDS, add_special_tokens=False)["input_ids"][:LENGTH]))
    kinds = {"none": Prompts(), "random": random_prompts(30, 576, 0.3, seed=0), "words": words}
    assert all(each.shape == (1, LENGTH, 576) for each in words.rows)
    growth, errors = {}, {}
    for name, prompts in kinds.items():
        expected, _ = written.logits(rows, prompts)
        assert relative(of_the_library(exact, rows, prompts), expected) < 1e-4  # what is written out is the model
        growth[name] = relative(written.logits(rows, prompts, noise=ROUNDING)[0], expected) / ROUNDING
        errors[name] = [relative(run(narrow, rows, prompts), expected) for run in (of_the_project, of_the_library)]
        errors[name].append(relative(written.logits(rows, prompts, OPERATIONS)[0], expected))
        assert errors[name][0] < 2 * max(errors[name][1:])
        assert max(errors[name]) < 3 * min(errors[name])
    for index in range(3):
        assert errors["random"][index] > 4 * errors["none"][index]
        assert errors["words"][index] < 3 * errors["none"][index]
    assert growth["random"] > 5 * growth["words"]
