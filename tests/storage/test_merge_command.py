"""``m2pt merge``: what it writes beside the weights, and what it refuses before anything is written."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.storage.foreign.library_names import refuse_other_extent
from lightning_m2pt.storage.foreign.llava.beside import LARGEST, is_carried
from tests.support.models.tuned_runs import write_run
from tests.support.whole_models import llava_config, write_whole_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of several methods, by their folder's name; no test changes one."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "m2pt", M2PT(3, 2))
    write_run(folder / "lora", Lora(2))
    write_run(folder / "both", Combined([Lora(2, interaction=False), M2PT(0, 2, interaction=False)]))
    write_run(folder / "beside", Combined([M2PT(3, 2, interaction=False), Adapter(2, interaction=False)]))
    write_run(folder / "prefix", PrefixTuning(2))
    write_run(folder / "aprompt", APrompt())
    write_run(folder / "dora", PeftTuner("lora", {"r": 2, "use_dora": True}))
    return folder


def merged(run: Path, output: Path, *words: str) -> int:
    return main(["merge", str(run), "--output", str(output), *words])


def test_the_processor_reads_texts_and_pictures_as_this_project_does(runs, tmp_path, capsys):
    from transformers import AutoProcessor

    left_out = ["--leave-out", "visual_prompts", "--leave-out", "textual_prompts"]
    assert merged(runs / "m2pt", tmp_path / "out", *left_out) == 0
    assert str(tmp_path / "out" / "model.safetensors") in capsys.readouterr().out
    own = embedded_backbone().processor()
    processor = AutoProcessor.from_pretrained(
        str(tmp_path / "out"), backend="pil", local_files_only=True, trust_remote_code=False
    )
    pixels = numpy.random.default_rng(0).integers(0, 255, (70, 130, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    given = processor(
        text="<image>Question: what is it? Answer:", images=Image.open(tmp_path / "picture.png"), return_tensors="pt"
    )
    assert torch.equal(given["pixel_values"][0], own.image(tmp_path / "picture.png"))
    picture = own.vocabulary_size
    ids = given["input_ids"][0].tolist()
    assert ids.count(picture) == 36
    words = own.tokenizer("Question: what is it? Answer:", add_special_tokens=False)["input_ids"]
    assert [token for token in ids if token != picture] == [*own.bos_ids, *words]
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["suppress_tokens"] == [picture]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Left out, though it was trained: visual_prompts, textual_prompts" in card
    assert "Question: QUESTION Answer:" in card
    assert not list(tmp_path.glob(".*"))


def test_the_projectors_base_is_read_by_this_project_as_well(runs, tmp_path):
    assert merged(runs / "lora", tmp_path / "out") == 0
    backbone = VisionLanguageModel(str(tmp_path / "out"), dtype="float32")
    backbone.check_files()
    backbone.load()
    trained = load_file(runs / "lora" / "adapter" / "adapter_model.safetensors")
    assert torch.equal(backbone.projector.linear_1.weight, trained["interaction.weight"])


def test_a_bases_type_and_what_stands_beside_its_weights_are_kept_without_code(tmp_path, capsys):
    base = tmp_path / "base"
    write_whole_model(base, llava_config())
    (base / "LICENSE").write_text("free")
    (base / "README.md").write_text("another's")
    (base / ".hidden.json").write_text("{}")
    (base / "generation_config.json").write_text('{"temperature": 0.5}')
    code = {"convert.py": "1 / 0", "run.sh": "false", "LICENSE.py": "1 / 0", "handler": "#!/bin/false"}
    for name, text in code.items():
        (base / name).write_text(text)
    write_run(tmp_path / "run", Lora(2), base, dtype="bfloat16")
    assert merged(tmp_path / "run", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    left = "these are left out, for no code is carried over: LICENSE.py, convert.py, handler and 1 more"
    assert said.endswith(f"of the base's folder {left}")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    names = {path.name for path in base.iterdir()} - {*code, ".hidden.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for name in sorted(names - {"config.json", "model.safetensors", "README.md"}):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes(), name
    card = (tmp_path / "out" / "README.md").read_text()
    assert "rounded to bfloat16" in card
    assert "folder these files are not here: `LICENSE.py`, `convert.py`, `handler`, `run.sh`. " in card
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


def test_a_file_that_is_too_large_for_a_text_is_left_out(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(LARGEST)
        assert is_carried(tmp_path / "a.json")
        file.truncate(LARGEST + 1)
    assert not is_carried(tmp_path / "a.json")


ALL_PROMPTS = "visual_prompts, textual_prompts of m2pt cannot be merged into weights: more keys than there are tokens"
REFUSED: dict[str, tuple[str, list[str], list[str]]] = {
    "prompts": (
        "m2pt",
        [],
        [ALL_PROMPTS, "linear\n", "--leave-out visual_prompts --leave-out textual_prompts\n", "m2pt export peft"],
    ),
    "textual prompts": ("m2pt", ["--leave-out", "visual_prompts"], ["textual_prompts of m2pt cannot be merged"]),
    "prompts beside low-rank updates": ("both", [], ["textual_prompts of m2pt cannot be merged"]),
    "several methods": (
        "beside",
        ["--leave-out", "visual_prompts"],
        [
            "textual_prompts of m2pt; adapters of adapter cannot be merged into weights: textual_prompts: more keys",
            "not linear; adapters: it computes beside them\n",
            "or --leave-out textual_prompts --leave-out adapters\n",
        ],
    ),
    "keys and values": ("prefix", [], ["prefix of prefix cannot be merged"]),
    "learned queries": ("aprompt", [], ["of aprompt cannot be merged"]),
    "a tuner of peft": ("dora", [], ["language_low_rank of peft_tuner cannot be merged", "is not tried\n"]),
    "a part that is none": ("lora", ["--leave-out", "visual_prompts"], ["lora has no part 'visual_prompts'"]),
    "no run": ("nothing", [], ["neither a run nor an adapter", "m2pt fit"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_named_and_nothing_is_written(runs, tmp_path, capsys, name):
    run, words, expected = REFUSED[name]
    assert merged(runs / run, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 3
    for part in expected:
        assert part in error
    assert not list(tmp_path.iterdir())


def other_base(run: Path) -> None:
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_fingerprint": "v2:0"}))


def flipped(run: Path) -> None:
    path = run / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def packed(run: Path) -> None:
    config = json.loads((run / "config.yaml").read_text())
    config["model"]["backbone"]["init_args"]["dtype"] = "float16"
    (run / "config.yaml").write_text(json.dumps(config))


HARMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another base": (other_base, "adapter of another backbone"),
    "a flipped bit": (flipped, "its content is not what was saved"),
    "no adapter": (lambda run: shutil.rmtree(run / "adapter"), "no adapter here"),
    "a type that is none": (packed, "float16"),
}


@pytest.mark.parametrize("name", HARMED)
def test_a_harmed_run_is_refused(runs, tmp_path, capsys, name):
    harm, expected = HARMED[name]
    run = Path(shutil.copytree(runs / "lora", tmp_path / "run"))
    harm(run)
    assert merged(run, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) <= 3
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_folder_that_is_there_stays_as_it_is(runs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert merged(runs / "lora", tmp_path / "out") == 2
    assert "something stands there already" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_packed_weights_take_no_update_in(tmp_path, capsys):
    base = tmp_path / "base"
    write_whole_model(base, llava_config())
    write_run(tmp_path / "run", Lora(2), base, quantization="int8", dtype="float32")
    assert merged(tmp_path / "run", tmp_path / "out") == 2
    assert "the base's weights are packed (int8)" in capsys.readouterr().err


def test_numbers_that_do_not_fit_are_refused(runs, tmp_path, capsys):
    from lightning_m2pt.storage.adapter_manifest import CONFIG_DIGEST, config_digest, manifest_of

    run = Path(shutil.copytree(runs / "lora", tmp_path / "run"))
    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: torch.full_like(tensor, 1e30) for name, tensor in tensors.items()}, path)
    config = run / "adapter" / "adapter_config.json"
    said = {**json.loads(config.read_text()), **manifest_of(path.read_bytes())}
    config.write_text(json.dumps({**said, CONFIG_DIGEST: config_digest(said)}))
    assert merged(run, tmp_path / "out") == 2
    assert "does not fit into torch.float32" in capsys.readouterr().err
    assert {each.name for each in tmp_path.iterdir()} == {"run"}


def test_a_full_disk_ends_as_the_machines_failure(runs, tmp_path, capsys, monkeypatch):
    from lightning_m2pt.storage.foreign.llava import merging

    monkeypatch.setattr(merging, "free_bytes", lambda path: 10)
    assert merged(runs / "lora", tmp_path / "out") == 3
    monkeypatch.undo()
    error = OSError(errno.ENOSPC, "No space left on device")

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(merging, "write_processor", full)
    assert merged(runs / "lora", tmp_path / "out") == 3
    assert "free some space" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_pair_is_told_of_the_command_that_has_a_form_for_it() -> None:
    with pytest.raises(BadInputError, match="no one model for TowerAndDecoder") as refused:
        refuse_other_extent(TowerAndDecoder.__new__(TowerAndDecoder), "whole")
    assert refused.value.hint.startswith("m2pt export peft ")  # m2pt merge has no --on
    assert "--on language" in refused.value.hint
