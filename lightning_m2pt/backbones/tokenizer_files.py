"""A tokenizer's files: there, readable and without code of their own."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_m2pt.backbones.foreign_code import TOKENIZER_SETTINGS, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KEY = "model.backbone.language_model"
FAST, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"


def check_tokenizer_files(folder: Path) -> None:
    """Looks for the fast tokenizer of a language model's folder.

    Raises:
        BadInputError: If a file is missing or no JSON, or asks to run code.
    """
    refuse_foreign_code(folder, KEY)
    read_json(folder / TOKENIZER_SETTINGS, KEY)
    if not (folder / FAST).is_file():
        from_hub = (folder / SENTENCEPIECE).is_file()
        raise BadInputError(
            f"the file is missing{f'; {SENTENCEPIECE} alone is not read' if from_hub else ''}",
            where=str(folder / FAST),
            expected="a fast tokenizer",
            hint="AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it; that needs sentencepiece "
            "(lightning_m2pt/embedded/vicuna7b/README.md)",
        )
    read_json(folder / FAST, KEY)


def refuse_unknown_class(settings: Path) -> None:
    """Refuses a class that transformers does not have; it would take another without a word, with other rules.

    Raises:
        BadInputError: Naming file and class.
    """
    import transformers

    name = read_json(settings, KEY).get("tokenizer_class")
    if name is not None and not (isinstance(name, str) and hasattr(transformers, name)):
        raise BadInputError(
            f"transformers has no tokenizer {name!r:.60}",
            where=f"{settings}: tokenizer_class",
            expected="a class of transformers, or no such line",
        )


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Loads a folder's tokenizer; nothing is downloaded or run as code.

    Raises:
        BadInputError: If files are missing, or transformers cannot read them.
    """
    from transformers import AutoTokenizer

    check_tokenizer_files(folder)
    refuse_unknown_class(folder / TOKENIZER_SETTINGS)
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        tokenizer("a")  # settings and rules that contradict each other are found when a text is read
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(
            f"transformers cannot read this tokenizer: {ascii(reason)[1:-1]:.200}",
            where=str(folder),
            expected=f"{FAST} and {TOKENIZER_SETTINGS} as save_pretrained writes them",
        ) from error
    return tokenizer
