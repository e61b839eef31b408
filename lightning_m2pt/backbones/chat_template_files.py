"""Where a model's folder keeps its chat template, in the order in which the library looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.tokenizer_files import KEY
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.chat_template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEMPLATE_FILE, OLD_TEMPLATE_FILE = "chat_template.jinja", "chat_template.json"
PROCESSOR_SETTINGS, TOKENIZER_SETTINGS = "processor_config.json", "tokenizer_config.json"
GENERATION_SETTINGS = "generation_config.json"
CHAT_TEMPLATE, END_TOKENS, DEFAULT = "chat_template", "eos_token_id", "default"


def tokenizer_chat_template(folder: Path, tokenizer: "PreTrainedTokenizerFast") -> ChatTemplate | None:
    """Returns the chat template of a language model; None if it has none, or several and none of them the default.

    Args:
        folder: The model's.
        tokenizer: It was read from the folder, its template with it.

    Raises:
        BadInputError: If the model's generation settings cannot be read.
    """
    text = default_of(tokenizer.chat_template)
    if text is None:
        return None
    name = TEMPLATE_FILE if (folder / TEMPLATE_FILE).is_file() else TOKENIZER_SETTINGS
    return ChatTemplate(text, str(folder / name), other_end_token_ids=end_tokens(folder))


def processor_chat_template(
    folder: Path, tokenizer: "PreTrainedTokenizerFast", image_token_id: int, around_ids: Sequence[int] = ()
) -> ChatTemplate | None:
    """Returns the chat template of a model of text and pictures, its processor's before its tokenizer's.

    Args:
        folder: The model's.
        tokenizer: It was read from the folder.
        image_token_id: The token that stands for a picture in what the template writes, as the model's settings say.
        around_ids: The two tokens that the template writes around it and a picture's layout holds, too, if there are.

    Raises:
        BadInputError: If a file that may hold it cannot be read, or the tokenizer does not know the image token.
    """
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if image_token is None:
        raise BadInputError(
            f"the tokenizer has no token {image_token_id}",
            where=str(folder),
            expected="the token that stands for a picture in the model's texts",
            hint="take the tokenizer that belongs to the model",
        )
    begin, end = tokenizer.convert_ids_to_tokens(list(around_ids)) or ("", "")
    for name in (TEMPLATE_FILE, OLD_TEMPLATE_FILE, PROCESSOR_SETTINGS):
        path = folder / name
        if not path.is_file():
            continue
        text = read_text(path) if name == TEMPLATE_FILE else default_of(read_json(path, KEY).get(CHAT_TEMPLATE))
        if text is not None:
            return ChatTemplate(text, str(path), True, image_token, (begin, end), end_tokens(folder))
    text, path = default_of(tokenizer.chat_template), folder / TOKENIZER_SETTINGS
    return None if text is None else ChatTemplate(text, str(path), False, image_token, (begin, end), end_tokens(folder))


def default_of(stored: Any) -> str | None:  # noqa: ANN401  (whatever a JSON file holds)
    """Returns the only template, or that of several which is used where nothing else is asked for."""
    if isinstance(stored, dict):
        stored = stored.get(DEFAULT)
    return stored if isinstance(stored, str) else None


def read_text(path: Path) -> str:
    """Returns a text file's content.

    Raises:
        BadInputError: If it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInputError(
            "the chat template cannot be read",
            where=str(path),
            expected="a text file in UTF-8",
            hint="copy or download the folder again",
        ) from error


def end_tokens(folder: Path) -> tuple[int, ...]:
    """Returns the tokens at which a model stops, as its generation settings say; none if they do not.

    Raises:
        BadInputError: If the settings are no JSON, or say something else than numbers.
    """
    path = folder / GENERATION_SETTINGS
    if not path.is_file():
        return ()
    stored = read_json(path, KEY).get(END_TOKENS)
    ids = stored if isinstance(stored, list) else [] if stored is None else [stored]
    if not all(type(number) is int and number >= 0 for number in ids):
        raise BadInputError(
            f"{END_TOKENS} is {stored!r:.60}",
            where=str(path),
            expected="a token's id, or a list of them",
            hint="copy or download the folder again",
        )
    return tuple(ids)
