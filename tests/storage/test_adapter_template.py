"""An adapter says the whole of its template: whatever it was tuned with comes back without the file it came from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template, read_prompt, shipped_names, template_named
from lightning_m2pt.storage.adapter_template import adapter_template, template_content

OWN = {"before_answer": "\nA: ", "before_question": "Q: ", "system": "Be brief.\n", "own_system": "<system>\n"}
WORDS = {"question": "{question} Answer with one word.", "system": "You look closely."}


def written(folder: Path, name: str, content: dict[str, Any]) -> str:
    (folder / name).write_text(yaml.safe_dump(content))
    return str(folder / name)


def said(template: Template) -> dict[str, Any]:
    """Returns what an adapter's configuration says, as it reads it back."""
    content = template_content(template)
    text = json.dumps({"template": template.name, **({} if content is None else {"template_content": content})})
    assert "/tmp" not in text
    config: dict[str, Any] = json.loads(text)
    return config


@pytest.mark.parametrize("name", ["plain", "vicuna_v1", "native", *shipped_names()])
def test_a_name_of_ours_says_everything(name: str) -> None:
    template = template_named(name)
    assert said(template) == {"template": name}
    assert adapter_template(said(template), "x") == template


def test_what_a_file_says_comes_back_without_it(tmp_path: Path) -> None:
    own = written(tmp_path, "own.yaml", OWN)
    native = written(tmp_path, "native.yaml", {"native": True, "system": "Be kind."})
    for template in (template_named(own), template_named(native)):
        assert adapter_template(said(template), "x") == template
    for base in (own, native, "plain", "chatml"):
        prompt = read_prompt(Path(written(tmp_path, "prompt.yaml", {**WORDS, "based_on": Path(base).name})))
        assert prompt.based_on is not None
        reworded = prompt.on(prompt.based_on)
        assert adapter_template(said(reworded), "x") == reworded


def test_a_name_of_ours_with_other_words_does_not_say_everything(tmp_path: Path) -> None:
    other = replace(template_named(written(tmp_path, "own.yaml", OWN)), name="vicuna_v1")  # type: ignore[type-var]
    assert "template_content" in said(other)
    assert adapter_template(said(other), "x") == other != template_named("vicuna_v1")


def test_an_adapter_may_say_none() -> None:
    assert adapter_template({}, "x") is None
    assert adapter_template({"template": None}, "x") is None


BASED = {**WORDS, "based_on": "plain"}
HOSTILE: dict[str, tuple[object, object, str]] = {
    "a file's name": ("own.yaml", None, "does not say what its template 'own.yaml' is"),
    "a path": ("/etc/passwd.yaml", None, "does not say what its template"),
    "a number": (3, None, "3 is no name"),
    "content without a name": (None, OWN, "None is no name"),
    "content of nonsense": ("own", ["x"], "is no template"),
    "an unknown key": ("own", {**OWN, "path": "/etc/x"}, "unknown key"),
    "a value that is no text": ("own", {**OWN, "system": {"a": 1}}, "is no text"),
    "no answer": ("own", {"system": "x"}, "what stands between a question and its answer"),
    "a native of more": ("own", {"native": True, "system": "x", "file": "y"}, "is no template"),
    "a native without system": ("own", {"native": True}, "is no template"),
    "a base that is a file": ("own", {**WORDS, "based_on": "/etc/x.yaml"}, "does not say what its template"),
    "a base that is a number": ("own", {**WORDS, "based_on": 3}, "3 is no template"),
    "a base without a name": ("own", {**WORDS, "based_on": OWN}, "is no template"),
    "words on words": ("own", {**WORDS, "based_on": {"name": "b", **BASED}}, "has a prompt's words already"),
    "words without the mark": ("own", {**BASED, "question": "x"}, "stands 0 times"),
    "words of more": ("own", {**BASED, "shots": "x"}, "unknown key"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_adapter_says_is_refused(what: str) -> None:
    name, content, message = HOSTILE[what]
    with pytest.raises(BadInputError, match=message) as refused:
        adapter_template({"template": name, "template_content": content}, "adapter_config.json")
    assert refused.value.where.startswith("adapter_config.json")
    assert len(str(refused.value).splitlines()) <= 3
