"""The tables of several devices: their shapes have the published numbers, and the page shows what they give."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.report import several_devices
from benchmarks.report.base_shapes import BFLOAT16, DECODERS, Decoder, base_bytes, model_of
from lightning_m2pt.parallel.costs import all_sharing, held_bytes


def test_the_page_shows_what_the_arithmetic_gives() -> None:
    page = several_devices.PAGE.read_text(encoding="utf-8")
    assert page == several_devices.page_of(page), "run: python -m benchmarks.report.several_devices"


def test_the_7b_base_has_the_counted_numbers() -> None:
    counted = json.loads(Path("benchmarks/results/parameters.json").read_text())["m2pt_vicuna7b"]
    model = model_of(DECODERS[0])
    assert base_bytes(model) == BFLOAT16 * counted["base"]
    assert model.trained == counted["trained"]


@pytest.mark.parametrize("decoder", [*DECODERS, Decoder("grouped", 2, 256, 96, 4, 2, 50)], ids=lambda each: each.name)
def test_a_decoder_has_transformers_numbers(decoder: Decoder) -> None:
    config = LlamaConfig(
        hidden_size=decoder.width,
        intermediate_size=decoder.hidden,
        num_hidden_layers=2,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.key_value_heads,
        head_dim=decoder.head_width,
        vocab_size=decoder.vocabulary,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        library = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    numbers = sum(parameter.numel() for parameter in library.parameters())
    assert numbers == 2 * decoder.layer_numbers + 2 * decoder.vocabulary * decoder.width + decoder.width


def test_what_is_said_to_fit_fits_and_half_of_it_does_not() -> None:
    assert several_devices.smallest(DECODERS[0], 24) == "DDP"
    assert several_devices.smallest(DECODERS[-1], 1) == "no"
    words, number = several_devices.smallest(DECODERS[-1], 80).split(" on ")
    assert words == "FSDP2"
    model = model_of(DECODERS[-1])
    assert held_bytes(model, all_sharing("fsdp2", int(number))).total < 0.9 * 80e9
    assert held_bytes(model, all_sharing("fsdp2", int(number) // 2)).total > 0.9 * 80e9 - 10e9


def test_a_slower_link_needs_more_samples() -> None:
    few, many = (several_devices.hidden_samples(DECODERS[0], 8, rate, recomputes=True) for rate in (300e9, 30e9))
    assert many == pytest.approx(10 * few)
    # 27.9 GB, of which 7/8 are sent, against 6 operations of 6.48e9 numbers in 556 rows and of the tower's.
    assert few == pytest.approx(0.0814 / (6 * (6.476e9 * 556 + 0.3023e9 * 256) / 400e12), rel=1e-2)
