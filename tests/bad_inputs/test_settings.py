"""Bad settings, given as words: one a case, each refused by the key that is wrong, before anything is written."""

from pathlib import Path

import pytest

from tests.bad_inputs.refusal import Case, assert_refused
from tests.support.small_experiment import small_words

METHOD, OPTIMIZER, SCHEDULE, BACKBONE = "model.method", "model.optimizer", "model.schedule", "model.backbone"
RATE = f"{OPTIMIZER}.learning_rate"


def wrong(key: str, *values: str, named: tuple[str, ...] = ()) -> dict[str, Case]:
    """Returns a case for every value of one key; the message names the key's last part, or what is given."""
    return {f"{key}={value}": ((f"--{key}={value}",), named or (key.rpartition(".")[2],)) for value in values}


def method(name: str, file: str, key: str, value: str, named: str = "") -> dict[str, Case]:
    """Returns a case of another method's argument."""
    words = (f"--{METHOD}=lightning_m2pt.methods.{file}.{name}", f"--{METHOD}.{key}={value}")
    return {f"{name} {key}={value}": (words, (named or key,))}


CASES: dict[str, Case] = {
    # The method.
    **wrong(f"{METHOD}.visual_length", "-1", "1.5", "ten", "null", "[1]", "???", "1e30", "true"),
    **wrong(f"{METHOD}.textual_length", "-5", "0x", "{}", "???"),
    **wrong(f"{METHOD}.visual_length", "1000000000"),
    **wrong(f"{METHOD}.textual_length", "1000000000"),
    **wrong(f"{METHOD}.textual_length", "600", named=("position",)),
    **wrong(f"{METHOD}.visual_layers", "[99]", "[0,0]", "[1,0]", "[]", "[-1]", "last", "[last]", "[1.5]"),
    **wrong(f"{METHOD}.visual_layers", "[0,1]", named=("visual_rows_to_text", "layer")),
    **wrong(f"{METHOD}.textual_layers", "[99]", "[0,0]", "[]", "most"),
    **wrong(f"{METHOD}.visual_depth", "deeep", "shallow"),
    **wrong(f"{METHOD}.textual_depth", "deeep"),
    **wrong(f"{METHOD}.visual_rows_to_text", "some", "null"),
    **wrong(f"{METHOD}.visual_position", "behind"),
    **wrong(f"{METHOD}.init", "zeros", "1"),
    **wrong(f"{METHOD}.init_std", "-1", "0", ".nan", ".inf", "wide"),
    **wrong(f"{METHOD}.dropout", "1", "-0.1", "1.5", ".nan", "often"),
    **wrong(f"{METHOD}.path", "fast"),
    **wrong(f"{METHOD}.interaction", "maybe", "2"),
    **wrong(f"{METHOD}.lm_head", "yess"),
    **wrong(f"{METHOD}.dropuot", "0.1"),
    **wrong(f"{METHOD}.init", "words", named=("init_text",)),
    **wrong(f"{METHOD}.init_text", "what is it"),
    **wrong(f"{METHOD}.init_layers", "embeddings", "deeper"),
    **{
        f"prompts from {text!r:.20}": ((f"--{METHOD}.init=words", f"--{METHOD}.init_text={text}"), ("init_text", named))
        for text, named in (
            ("zebra crossing", "does not know"),
            ("<s> what", "sign of the model"),
            ("what is it " * 9, "27 tokens, and there are 10 rows"),
        )
    },
    "prefix path of shallow prompts": (
        (f"--{METHOD}.textual_depth=shallow", f"--{METHOD}.path=prefix"),
        ("path",),
    ),
    **method("Lora", "lora", "rank", "0"),
    **method("Lora", "lora", "rank", "-3"),
    **method("Lora", "lora", "rank", "2.5"),
    **method("Lora", "lora", "alpha", "0"),
    **method("Lora", "lora", "alpha", ".nan"),
    **method("Lora", "lora", "dropout", "1"),
    **method("Lora", "lora", "visual_length", "3"),
    **method("Adapter", "adapter", "size", "0"),
    **method("Adapter", "adapter", "placement", "attention"),
    **method("PrefixTuning", "prefix_tuning", "length", "0"),
    **method("PrefixTuning", "prefix_tuning", "freeze_first", "1", named="init_text"),
    **method("PrefixTuning", "prefix_tuning", "freeze_first", "-1"),
    "a prefix from an unknown word": (
        (
            f"--{RATE}=1e-3",
            f"--{METHOD}=lightning_m2pt.methods.prefix_tuning.PrefixTuning",
            f"--{METHOD}.init_text=zebra",
        ),
        ("init_text", "does not know"),
    ),
    **method("PrefixTuning", "prefix_tuning", "init_text", " "),
    **method("PrefixTuning", "prefix_tuning", "reparameterisation", "0"),
    **method("PrefixTuning", "prefix_tuning", "init_std", "-1"),
    **method("PrefixTuning", "prefix_tuning", "length", "100000"),
    **method("APrompt", "aprompt", "input_length", "0"),
    **method("APrompt", "aprompt", "attention_length", "-1"),
    **method("APrompt", "aprompt", "init_std", "0"),
    **method("LayerNormTuning", "layer_norm", "language", "false", "language"),
    **method("Combined", "combined", "methods", "[]"),
    **method("Combined", "combined", "methods", "3"),
    **wrong(METHOD, "lightning_m2pt.methods.m2pt.M3PT", "lightning_m2pt.methods.nope.M2PT", "M2PTT", "7", "[]"),
    **wrong(METHOD, "os.system", "subprocess.Popen", "builtins.eval", "torch.load", "pickle.loads", "shutil.rmtree"),
    "no method": (("--model.method=null",), ("method",)),
    # Optimizer and schedule.
    **wrong(RATE, "-1", ".nan", ".inf", "abc", "[1]", "1e-3x", "true"),
    **wrong(RATE, '{"foo": 1}', '{"visual_prompts": 1e-3}', '{"visual_prompts": -1}', "{}"),
    **wrong(f"{OPTIMIZER}.betas", "[1, 0.9]", "[0.9]", "[0.9, 1]", "[-0.1, 0.9]", "a", "[.nan, 0.9]", "0.9"),
    **wrong(f"{OPTIMIZER}.epsilon", "0", "-1", ".nan", "small"),
    **wrong(f"{OPTIMIZER}.weight_decay", "-1", ".nan", ".inf", "none"),
    **wrong(f"{OPTIMIZER}.momentum", "0.9"),
    **wrong(f"{SCHEDULE}.name", "cosin", "polynomial", "3"),
    **wrong(f"{SCHEDULE}.warmup_ratio", "2", "-1", ".nan", "1/3"),
    **wrong(f"{SCHEDULE}.warmup_steps", "3"),
    **wrong("model.loss_average", "mean"),
    **wrong("model.shortcuts.shared_rows_once", "perhaps"),
    **wrong("model.shortcuts.all", "true"),
    **wrong("model.optimiser", "1"),
    # The backbone.
    **wrong(f"{BACKBONE}.dtype", "float8", "float16", "32"),
    **wrong(f"{BACKBONE}.activation_checkpointing", "maybe"),
    **wrong(f"{BACKBONE}.compile_backend", "fast", named=("'inductor' or 'aot_eager' or null",)),
    **wrong(f"{BACKBONE}.activation_checkpointing", "sometimes", named=("expected: 'auto' or true or false",)),
    **wrong(f"{BACKBONE}.feature_cache_bytes", "x", "1.5"),
    **wrong(f"{BACKBONE}.vision_config", "/no/such.json", "experiments", named=("vision_config",)),
    **wrong(f"{BACKBONE}.language_config", "/no/such", named=("language_config",)),
    **wrong(f"{BACKBONE}.language_model", "/no/such", named=("/no/such",)),
    **wrong(f"{BACKBONE}.vision_weights", "/no/such.safetensors", named=("/no/such.safetensors",)),
    **wrong(f"{BACKBONE}.projector_weights", "/no/such.safetensors", named=("/no/such.safetensors",)),
    **wrong(f"{BACKBONE}.vision_weights", "README.md", named=("README.md",)),
    **wrong(f"{BACKBONE}.projector_weights", "README.md", named=("README.md",)),
    **wrong(BACKBONE, "lightning_m2pt.methods.m2pt.M2PT", "lightning_m2pt.backbones.base.Backbone", "os.system"),
    # The data.
    **wrong("data.batch_size", "0", "-1", "1.5", "17", "null", "many", "1e9"),
    **wrong("data.micro_batch_size", "0", "-2", "1.5"),
    **wrong("data.questions_per_sample", "0", "-1"),
    **wrong("data.max_text_length", "0", "5"),
    **wrong("data.num_workers", "-1", "two"),
    **wrong("data.order_seed", "x"),
    **wrong("data.group_by_length", "-1"),
    **wrong("data.template", "vicuna", "null", "VICUNA_V1"),
    **wrong("data.root", "/no/such/folder", named=("/no/such/folder",)),
    **wrong("data.validation_fraction", "2", "1", "-0.1", ".nan", "half"),
    **wrong("data.validation_file", "nothing.json", named=("nothing.json",)),
    **wrong("data.annotation_file", "nothing.json", named=("nothing.json",)),
    **wrong("data.image_folder", "nowhere", named=("nowhere",)),
    **wrong("data.bach_size", "3"),
    **wrong("data", "data_modules.vision_flan.Nope", "os.system", "data_modules.vsr"),
    # The rest.
    **wrong("seed_everything", "-1", "false", "true", "1.5", "4294967296", "abc", "null"),
    **wrong("save_every_n_steps", "0", "-1", "x", "1.5"),
    **wrong("validate_every_n_steps", "-1", "x", "1.5"),
    **wrong("trainner.max_steps", "3", named=("trainner",)),
    **wrong("modle.method", "3", named=("modle",)),
    **wrong("benchmarks", "3", "vsr", '[{"class_path": "os.system"}]', '["vsr"]'),
    # Interpolation.
    **wrong("data.num_workers", "${nothing}", "${oc.env:HF_TOKEN}", "${oc.env:HOME}", "${oc.create:1}", "${seed"),
    **wrong("data.num_workers", "${data.num_workers}", "${data.batch_size", "${}", "${oc.decode:1}"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


@pytest.mark.parametrize("name", CASES)
def test_a_bad_setting_is_refused_by_its_key(folder, capfd, monkeypatch, name):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    words, named = CASES[name]
    assert_refused(capfd, ["check", *small_words(folder), *words], named, folder, may_report=True)


def test_no_secret_is_shown(folder, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("M2PT_DATA", "/no/such")
    from lightning_m2pt.main import main

    for word in ("${oc.env:HF_TOKEN}", "a${oc.env:HF_TOKEN}b"):
        assert main(["check", *small_words(folder), f"--data.root={word}"]) == 2
        captured = capfd.readouterr()
        assert "hf_secret" not in captured.out + captured.err
