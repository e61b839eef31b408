"""A causal language model from a local folder: safetensors and a tokenizer, nothing downloaded, unpickled or run."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from lightning_m2pt.backbones.chat_template_files import default_of
from lightning_m2pt.backbones.foreign_code import refuse_foreign_code
from lightning_m2pt.backbones.weight_files import is_finite
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.chat_template import ChatRenderer, ChatTemplate
from lightning_m2pt.system.file_hashes import sha256_of_file
from lightning_m2pt.system.strict_json import parse_json
from lightning_m2pt.visible_text import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHT_INDEX = "model.safetensors.index.json"
DECIDING_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")


def check_model_folder(folder: Path, called: str) -> None:
    """Refuses a folder that holds no complete causal language model; opens no weights.

    Args:
        folder: The folder.
        called: What the model is called in errors.

    Raises:
        BadInputError: If the folder, its configuration, its tokenizer or a weight file is missing, the folder asks for
            code of its own, or the weights are pickles.
    """
    if not folder.is_dir():
        raise BadInputError(f"{called}'s folder does not exist", where=str(folder), hint="nothing is downloaded")
    if not (folder / "config.json").is_file():
        raise BadInputError(
            "there is no config.json", where=str(folder), expected="a folder of a causal language model"
        )
    refuse_foreign_code(folder, "command line: --model")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise BadInputError("there is no tokenizer", where=str(folder), expected=" or ".join(TOKENIZER_FILES))
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for ending in ("*.bin", "*.pt", "*.pth") for path in folder.glob(ending))
        raise BadInputError(
            f"the weights are pickles, which are never opened: {pickles[0]}" if pickles else "there are no weights",
            where=str(folder),
            expected="*.safetensors",
            hint=f"`m2pt convert {folder}` writes them" if pickles else "",
        )
    missing = [name for name in indexed_files(folder / WEIGHT_INDEX) if not (folder / name).is_file()]
    if missing:
        raise BadInputError(f"{len(missing)} weight files are missing: {missing[0]}", where=str(folder / WEIGHT_INDEX))


def indexed_files(index: Path) -> list[str]:
    """Returns the weight files that an index names; none where there is no index.

    Raises:
        BadInputError: If the index cannot be read.
    """
    if not index.is_file():
        return []
    try:
        return sorted({str(name) for name in parse_json(index.read_bytes(), index)["weight_map"].values()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInputError("this is no index of weights", where=str(index), expected="a weight_map") from error


def model_fingerprint(folder: Path) -> str:
    """Returns the SHA-256 over configuration, tokenizer and weight files and their names, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in DECIDING_FILES for path in folder.glob(pattern)}):
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(sha256_of_file(path)))
    return digest.hexdigest()


def refuse_other_tensors(folder: Path, model: "PreTrainedModel", found: Mapping[str, Collection[str]]) -> None:
    """Refuses weights that are not the model's: the library would draw what is missing at random and say nothing.

    Args:
        folder: Where they are.
        model: The loaded model.
        found: The library's report on its loading.

    Raises:
        BadInputError: If tensors are missing, left over or not finite.
    """
    not_finite = [name for name, one in model.named_parameters() if one.is_floating_point() and not is_finite(one)]
    faults = {
        "missing": found["missing_keys"],
        "left over": found["unexpected_keys"],
        "not finite": not_finite,
    }
    parts = [f"{word} {counted(sorted(names))}" for word, names in faults.items() if names]
    if parts:
        raise BadInputError(
            f"tensors {'; '.join(parts)}", where=str(folder), expected="exactly the tensors that config.json describes"
        )


class LocalModel:
    """A causal language model that replies to prompts; what it does is fixed by its class.

    Args:
        model: The model, on the device where it shall run.
        tokenizer: Its tokenizer; if it has a chat template, prompts are put into it as a user's message.

    Attributes:
        called: What it is called in errors.
        max_new_tokens: Of a reply.
        temperature: Replies are drawn at this one; 0: each token is the most likely one.
    """

    called = "the model"
    max_new_tokens = 32
    temperature = 0.0

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        from transformers import GenerationConfig

        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise BadInputError(f"{self.called}'s tokenizer has neither a padding token nor an end token")
        self.model = model
        self.tokenizer = tokenizer
        # The folder's own settings would fill every gap: sampling, beams, penalties.
        drawn: dict[str, Any] = {"temperature": self.temperature, "top_k": 0, "top_p": 1.0} if self.temperature else {}
        self.model.generation_config = GenerationConfig(
            do_sample=bool(self.temperature),
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            **drawn,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Loads a local folder; nothing is downloaded, unpickled, or run as code from the folder.

        Args:
            folder: A folder that ``check_model_folder`` accepts.
            device: Where the model runs, in the type its weights are stored in.

        Raises:
            BadInputError: If transformers cannot make a causal language model of it, or would draw a part of it at
                random or leave a part of it unread.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        own_files: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **own_files)
            model, found = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype="auto", use_safetensors=True, output_loading_info=True, **own_files
            )
        except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise BadInputError(
                f"transformers cannot load {cls.called}: {str(error).strip().splitlines()[0][:200]}",
                where=str(folder),
                expected="a causal language model that transformers knows, with its tokenizer",
            ) from error
        refuse_other_tensors(folder, model, found)
        return cls(model.to(device).eval(), tokenizer)

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts are put into the tokenizer's chat template."""
        return default_of(self.tokenizer.chat_template) is not None

    @torch.inference_mode()
    def replies(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """Returns the new text after each prompt, and nothing of the prompt.

        Args:
            prompts: What the model reads.
            seed: Decides what is drawn; nothing outside changes by it.

        Raises:
            BadInputError: If a prompt is longer than the model can read.
        """
        texts = [self.as_chat(prompt) for prompt in prompts] if self.has_chat_template else list(prompts)
        encoded = self.tokenizer(
            texts, padding=True, add_special_tokens=not self.has_chat_template, return_tensors="pt"
        ).to(self.model.device)
        length = encoded["input_ids"].shape[1]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and length + self.max_new_tokens > limit:
            raise BadInputError(
                f"a prompt has {length} tokens",
                where=self.called,
                expected=f"at most {limit - self.max_new_tokens} for this model",
            )
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            sequences = self.model.generate(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
        return list(self.tokenizer.batch_decode(sequences[:, length:], skip_special_tokens=True))

    def as_chat(self, prompt: str) -> str:
        """Returns a prompt in the tokenizer's chat template, up to where the reply starts; the same on every day.

        Raises:
            BadInputError: If the template cannot be used.
        """
        text = default_of(self.tokenizer.chat_template) or ""
        renderer = ChatRenderer(self.tokenizer, ChatTemplate(text, str(self.tokenizer.name_or_path)))
        return renderer.render([{"role": "user", "content": prompt}], goes_on=True)
