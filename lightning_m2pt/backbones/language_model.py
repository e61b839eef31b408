"""A language model's folder: what it may hold, checked from headers alone, and the model read from it strictly."""

from pathlib import Path
from typing import Any

import torch

from lightning_m2pt.backbones.decoders.reference import check_decoder_config, check_decoder_model, runs_by_reference
from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.proven_forms import check_language_config
from lightning_m2pt.backbones.quantised import Quantization, quantise_layers
from lightning_m2pt.backbones.weight_files import Stored, compare_tensors, shapes_of, stored_in_folder
from lightning_m2pt.errors import BadInputError

KEY = "model.backbone.language_model"
ADAPTER = "adapter_config.json"
"""Of peft; transformers' own loading would put the adapter in."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
ROTARY_TABLE = "rotary_emb.inv_freq"
"""Older checkpoints keep this table, which follows from the configuration; the library leaves it out as well."""


def check_language_folder(folder: Path, *, by_reference: bool = False) -> None:
    """Looks whether a folder's configuration is a form that can be run, and its weight files hold exactly that model.

    Reads headers and builds the model without memory; opens no tensor.

    Args:
        folder: A language model's folder.
        by_reference: Whether the backbone runs forms that are not proven by the library's own forward, which it says
            with ``BackboneShape.runs_reference``.

    Raises:
        BadInputError: At the first file or key that is wrong.
    """
    refuse_foreign_code(folder, KEY)
    refuse_adapter(folder)
    path = folder / CONFIG_FILE
    config = read_json(path, KEY)
    if by_reference:
        check_decoder_config(config, path)
    else:
        check_language_config(config, path)
    model = model_on_meta(folder)
    if runs_by_reference(config):
        check_decoder_model(model, path)
    stored_language_model(folder, model)


def refuse_adapter(folder: Path) -> None:
    """Refuses a folder that holds an adapter of another tool beside the weights, which would be left unread.

    Raises:
        BadInputError: If there is one.
    """
    if (folder / ADAPTER).is_file():
        raise BadInputError(
            "an adapter stands beside the weights; it is not read",
            where=str(folder / ADAPTER),
            expected="the weights of one model",
            hint="merge it into the weights, or move it away",
        )


def model_on_meta(folder: Path, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401
    """Builds a folder's model without memory.

    Args:
        folder: Its ``config.json`` is a proven form.
        dtype: Type of the weights; None takes the configuration's.

    Raises:
        BadInputError: If transformers refuses the configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # its validators raise errors of their own kinds, and whatever their code meets
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(
            f"transformers cannot build this model: {ascii(reason)[1:-1]:.200}",
            where=str(folder / CONFIG_FILE),
            expected="a configuration that the library takes",
        ) from error


def stored_language_model(folder: Path, model: Any) -> Stored:  # noqa: ANN401
    """Returns the stored tensors of a model that was built on the meta device; they are exactly the model's.

    A tied head may be left out.

    Raises:
        BadInputError: If tensors are missing, left over, or of another shape or type.
    """
    stored = {name: one for name, one in stored_in_folder(folder).items() if not name.endswith(ROTARY_TABLE)}
    wanted = shapes_of(model)
    if model.config.tie_word_embeddings and HEAD not in stored:
        del wanted[HEAD]
    compare_tensors(wanted, stored, folder)
    return stored


def load_language_model(folder: Path, dtype: torch.dtype, quantization: Quantization | None = None) -> Any:  # noqa: ANN401
    """Reads a folder's model strictly: no tensor of it is drawn at random, and none of the files is left unread.

    Args:
        folder: The model's.
        dtype: Type of its weights.
        quantization: How the weights of its layers are packed; None leaves them as they are.

    Raises:
        BadInputError: If tensors are not exactly the model's, not finite, or a tied head has weights of its own, or a
            table of the model stands nowhere.
    """
    return unfilled_language_model(folder, dtype, quantization).fill()


def unfilled_language_model(folder: Path, dtype: torch.dtype, quantization: Quantization | None = None) -> Unfilled:
    """Builds what ``load_language_model`` reads, without memory.

    Raises:
        BadInputError: If stored tensors are not exactly the model's.
    """
    model = model_on_meta(folder, dtype)
    stored = stored_language_model(folder, model)
    if quantization:
        quantise_layers(model, model.model.layers, quantization)
    twin = (HEAD, EMBEDDING) if model.config.tie_word_embeddings else None
    names = {name: name for name in stored}

    def give_all_tables() -> None:
        model.tie_weights()
        give_tables(model.model)

    return Unfilled(model, stored, names, dtype, folder, twin, give_all_tables)


def give_tables(decoder: Any) -> None:  # noqa: ANN401
    """Makes the tables of a decoder that no file holds and that were built without memory as well."""
    decoder.rotary_emb = type(decoder.rotary_emb)(decoder.config)
    scale = getattr(decoder.embed_tokens, "scalar_embed_scale", None)
    if scale is not None:  # Gemma multiplies its embeddings
        decoder.embed_tokens.embed_scale = torch.tensor(scale)
