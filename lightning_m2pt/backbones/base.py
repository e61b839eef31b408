"""The backbone contract: a frozen vision tower, a connector and a frozen causal language model.

A backbone knows nothing of methods. It runs with an ``Attachment``: prompt rows per layer and stand-ins for its
connector and head. The empty attachment is the untouched model.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.connected_rows import AssembledRows, ConnectedRows, VisualRows, positions_in_order
from lightning_m2pt.backbones.model_output import DecodingState, ModelOutput
from lightning_m2pt.backbones.origins.said import BaseOrigin
from lightning_m2pt.backbones.picture_geometry import PictureGeometry
from lightning_m2pt.backbones.quantised import Quantization
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch, Span
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.splice import splice
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.past_rows import PastRows


class Backbone(nn.Module, ABC):
    """Base class of frozen models. Constructors read configuration, never weights.

    Attributes:
        shape: Sizes, for checks before any weight is loaded.
        attachment: What the attached method put in; replaced by ``attach`` and emptied by ``detach``.
        projector: Pretrained connector.
        is_loaded: Whether the weights are in.
        activation_checkpointing: Whether activations are computed again in the backward pass.
        checkpointing_is_automatic: Whether that is for an estimate of the memory to decide, before weights load.
        compile_backend: What ``torch.compile`` is called with for every layer; None compiles nothing.
        quantization: How the weights of the decoder's layers are packed; None if they are as the files have them.
        attached_method: The method that is attached.
        runs_in_lockstep: Whether weights are shared out among ranks, each of which has to run the same modules in the
            same order, whatever its samples are. The reference then runs: prompt rows in the sequence.
        never_answered: Tokens that stand for pictures in the model's own texts: no decoded answer holds one.
    """

    shape: BackboneShape
    projector: nn.Module
    is_loaded: bool = False
    activation_checkpointing: bool = False
    checkpointing_is_automatic: bool = False
    compile_backend: str | None = None
    quantization: Quantization | None = None
    runs_in_lockstep: bool = False
    never_answered: tuple[int, ...] = ()
    attached_method: "weakref.ref[nn.Module] | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.attachment = Attachment()

    @abstractmethod
    def processor(self) -> Processor:
        """Returns the tokenizer and image transform that belong to the weights."""

    @abstractmethod
    def check_files(self) -> None:
        """Raises BadInputError that says which files are missing and how to get them; opens no weights."""

    @abstractmethod
    def load(self) -> None:
        """Builds the modules and loads the weights. Calling it again does nothing."""

    def load_in_shares(self, share_out: Callable[[], None]) -> None:
        """Loads where a strategy shares the frozen weights out among processes.

        This default reads all of them in every process first. Backbones that build their modules without memory
        override it: each process then reads its share alone.

        Args:
            share_out: Shares out what ``sharding_units`` names, with numbers in it or without; called once.
        """
        self.load()
        share_out()

    @abstractmethod
    def build_on_meta(self) -> None:
        """Builds the modules without memory, for counting."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns what names the frozen model: a version and the SHA-256 over all that it is built from."""

    def former_fingerprint(self) -> str:
        """Returns the fingerprint by which adapters and runs of an earlier version name the same model, if one was."""
        return self.fingerprint()

    def readable_name(self) -> str:
        """Returns what an adapter's configuration calls the frozen model; a fingerprint, not this, decides anything."""
        return type(self).__name__

    def origin(self) -> BaseOrigin:
        """Returns where another machine finds the files; this default says that nothing but their content does."""
        return BaseOrigin("files", type(self).__name__)

    @abstractmethod
    def verify_files(self) -> None:
        """Reads the weights again; raises BadInputError if they are not what the fingerprint is known to be of."""

    def library_visual_rows(self, pixel_values: Tensor) -> Tensor | None:
        """Returns what ``visual_rows`` must equal before anything trains, (B, N, D), by its library, or None."""
        return None

    def library_decoder(
        self, embeddings: Tensor, attention: Literal["eager"] | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Returns what our passes of the decoder must equal, made by the library's whole model, prompts put in.

        Args:
            embeddings: (B, S, D).
            attention: The library's attention function; None takes the one that our passes are built upon.
            positions: (3, B, S) as ``library_assembled`` gives them; None: a row's position is its number.

        Returns:
            Hidden states (B, S, D) after the final norm and logits (B, S, V). None: there is no such pass, which is
            said before anything trains or answers.
        """
        return None

    def library_assembled(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Returns what ``assembled`` must equal by the library's whole model: rows (B, S, D), positions (3, B, S)."""
        return None

    def library_logits_of_tokens(self, tokens: Tensor) -> Tensor | None:
        """Returns (B, S, V) of the library's whole model over tokens (B, S) alone, nothing put into the sequence.

        What the library makes of their embeddings must equal it where the reference runs. None: there is no such pass.
        """
        return None

    def attention_layers(self) -> tuple[list[Any], list[Any]]:
        """Returns the tower's computed blocks and the decoder's layers, whose attention ``inspection`` reads.

        Raises:
            BadInputError: If the backbone does not name them.
        """
        raise BadInputError(
            f"attention of {type(self).__name__} cannot be read",
            where="model.backbone",
            expected="a backbone that names its blocks and layers, such as OpenClipLlama",
        )

    def sharding_units(self) -> list[nn.Module]:
        """Returns the modules whose weights can be shared out among ranks, each whole only while it runs.

        What they do not hold stays whole on every rank. Weights are read in a module's own forward and nowhere else.

        Raises:
            BadInputError: If the backbone does not name them.
        """
        raise BadInputError(
            f"the weights of {type(self).__name__} cannot be shared out",
            where="trainer.strategy",
            expected="ddp, or a backbone that names its blocks and layers, such as OpenClipLlama",
        )

    def picture_geometry(self) -> PictureGeometry:
        """Returns where the rows of pictures lie in them; this default is that of one square tile a picture."""
        return PictureGeometry(self.shape)

    @abstractmethod
    def base_parameters(self) -> int:
        """Returns how many numbers the untouched model has, as the paper counts them."""

    def base_bytes(self) -> int:
        """Returns how many bytes the untouched model takes once its modules are built, on the meta device too."""
        dtype: torch.dtype = getattr(torch, self.dtype_name)
        return self.base_parameters() * dtype.itemsize

    @abstractmethod
    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        """Runs the vision tower on (B, 3, H, W), as the tower reads them, with the attachment's visual prompts."""

    def connected_rows(self, pixel_values: Tensor, picture_sizes: Tensor | None = None) -> ConnectedRows:
        """Returns the rows of a batch's pictures in the decoder's width, the attachment's pixel prompt put in.

        Args:
            pixel_values: As in ``Batch``, of I pictures; I may be 0.
            picture_sizes: As in ``Batch``.
        """
        if not len(pixel_values):
            return ConnectedRows.none(self.token_embedding().weight)
        return self.connected_pixels(self.prompted_pixels(pixel_values), picture_sizes)

    def prompted_pixels(self, pixel_values: Tensor) -> Tensor:
        """Returns pictures as the tower reads them: with the attachment's pixel prompt, or as they are given.

        Args:
            pixel_values: (B, 3, S, S), normalised; B are tiles where a picture is read in tiles.
        """
        prompt = self.attachment.pixel_prompt
        return pixel_values if prompt is None else prompt(pixel_values)

    def pixel_normalisation(self) -> tuple[Tensor, Tensor]:
        """Returns what is subtracted from pixels in 0..1 and what they are divided by then, (3, 1, 1) each."""
        return self.shape.normalisation() or self.processor().normalisation()

    def connected_pixels(self, pixel_values: Tensor, picture_sizes: Tensor | None) -> ConnectedRows:
        """Runs tower and connector on pictures as the tower reads them.

        This default is that of towers that read one picture of one size: each becomes one run of rows.

        Args:
            pixel_values: As in ``Batch``, of at least one picture.
            picture_sizes: As in ``Batch``.
        """
        del picture_sizes
        visual = self.visual_rows(pixel_values)
        return ConnectedRows.of_alike(self.connect(visual.rows), visual.spans)

    def rows_of_runs(self, pixel_values: Tensor, picture_sizes: Tensor | None = None) -> list[int]:
        """Returns how many rows each run has that ``connected_rows`` would give, by arithmetic."""
        beside = self.attachment.rows_beside_patches(has_cls=self.shape.vision_rows_in_front > 0)
        return [self.shape.connected_patches + beside] * len(pixel_values)

    def invented_pictures(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Returns the pixels of so many random pictures as ``Batch`` has them, and their sizes."""
        size = self.shape.image_size
        return torch.randn(number, 3, size, size, generator=generator), None

    @abstractmethod
    def decode_rows(self, embeddings: Tensor, positions: Tensor | None = None) -> Tensor:
        """Runs the decoder on (B, S, D) rows with the attachment's textual prompts; returns (B, S, D).

        Args:
            embeddings: (B, S, D).
            positions: (B, S) as ``assembled`` gives them; None: a row's position is its number.
        """

    @abstractmethod
    def prefill(self, batch: Batch) -> DecodingState:
        """Runs questions without answers and returns the state from which answers are decoded."""

    @abstractmethod
    def append_rows(
        self, past: PastRows, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor | None = None
    ) -> tuple[Tensor, PastRows]:
        """Runs N new rows of every sample behind K past rows.

        Args:
            past: The past rows.
            embeddings: (B, N, D).
            positions: (B or 1, N) int64 rotary positions.
            visible: (B or 1, N, K + N) bool, which past and new rows each new row sees, windows left aside.
            wanted: (B, W) the new rows whose output is needed, W may be 0; None: all.

        Returns:
            (B, W or N, D) after the final norm, and the past with the new rows behind it.
        """

    @abstractmethod
    def decoder(self) -> Any:  # noqa: ANN401
        """Returns the language model without its head, in the form of transformers' Llama."""

    @abstractmethod
    def shares_prefix(self) -> bool:
        """Tells whether what is learned in front of all rows is past rows, no prompt row standing in the sequence."""

    @abstractmethod
    def learned_keys_and_values(self) -> PastRows:
        """Returns what stands in front of all rows in every layer, for one sample."""

    @abstractmethod
    def token_embedding(self) -> nn.Embedding:
        """Returns the frozen token embedding, (V, D)."""

    @abstractmethod
    def pretrained_lm_head(self) -> nn.Module:
        """Returns the frozen head."""

    @abstractmethod
    def release_hooks(self) -> None:
        """Takes away every hook and shadowed method that prompts needed."""

    @abstractmethod
    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        """Returns the frozen tensors that the output depends on, by their name in this module.

        The keys are ``vision``, ``interaction`` and ``language``. A tied tensor stands under each of its names.
        """

    @abstractmethod
    def sublayer(self, layer: int, name: Literal["attention", "mlp"]) -> nn.Module:
        """Returns the part of a decoder layer whose output, or the first of its outputs, is added to the residual."""

    @property
    @abstractmethod
    def dtype_name(self) -> str:
        """Returns the type of the frozen weights, such as ``bfloat16``."""

    def recompute_activations(self, is_on: bool) -> None:
        """Switches activation checkpointing; takes effect when weights load."""
        self.activation_checkpointing = self.shape.recomputes_activations = is_on

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Maps (..., D) hidden states to (..., V) logits, with the attachment's head if it has one."""
        head = self.attachment.lm_head
        if head is None:
            return self.pretrained_lm_head()(hidden_states)  # type: ignore[no-any-return]
        weight = next(head.parameters())
        return head(hidden_states.to(weight.dtype))  # type: ignore[no-any-return]

    def connect(self, rows: Tensor) -> Tensor:
        """Maps visual rows (B, N, D_vision) to the decoder's width; the trained connector computes in its own dtype."""
        connector = self.attachment.connector or self.projector
        weight = next(connector.parameters())
        return connector(rows.to(weight.dtype)).to(self.token_embedding().weight.dtype)  # type: ignore[no-any-return]

    def assemble(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Puts the pictures' rows where their placeholders stand.

        Returns:
            Embeddings (B, S, D), labels (B, S) and spans (B, S), S rows in the longest sample; shorter ones, which may
            have fewer pictures or smaller ones, end in padding.

        Raises:
            BadInputError: If the longest sample has more rows than the language model has positions.
        """
        rows = self.assembled(batch)
        return rows.embeddings, rows.labels, rows.spans

    def assembled(self, batch: Batch) -> AssembledRows:
        """Does what ``assemble`` does, and says where each row stands."""
        nothing = self._nothing_of_a_picture() if self.runs_in_lockstep and not len(batch.pixel_values) else None
        pictures = self.connected_rows(batch.pixel_values, batch.picture_sizes)
        order = splice(batch.input_ids, batch.spans != Span.PADDING, pictures.counts).order
        self.refuse_beyond_positions(order.shape[1] + self.attachment.rows_before_text())
        ids = nn.functional.pad(batch.input_ids.clamp(min=0).flatten(), (0, 1))
        words = self.token_embedding()(ids)
        rows = torch.cat([words, pictures.rows])
        embeddings = rows.index_select(0, order.flatten()).view(*order.shape, -1)
        embeddings = embeddings if nothing is None else embeddings + nothing
        no_labels = batch.labels.new_full((1 + len(pictures.rows),), IGNORED_LABEL)
        labels = torch.cat([batch.labels.flatten(), no_labels])[order]
        padding = batch.spans.new_full((1,), Span.PADDING)
        spans = torch.cat([batch.spans.flatten(), padding, pictures.spans.to(batch.spans)])[order]
        positions = positions_in_order(pictures, order, batch.input_ids.numel())
        return AssembledRows(embeddings, labels, spans, positions, frozen_words=not words.requires_grad)

    def _nothing_of_a_picture(self) -> Tensor:
        """Runs tower and connector over a black picture and returns 0, which depends on them as a picture's rows would.

        For a rank whose samples have no picture: another's may, and its tower waits for this rank's shares, forward and
        backward. It has to run where a picture would, before words are embedded: the backward pass goes the same way.
        """
        pixels, sizes = self.invented_pictures(1, torch.Generator().manual_seed(0))
        device = self.token_embedding().weight.device
        given = torch.zeros_like(pixels).to(device), None if sizes is None else sizes.to(device)
        return self.connected_rows(*given).rows.sum() * 0

    def refuse_beyond_positions(self, rows: int) -> None:
        """Refuses a sequence that is longer than the language model knows; data modules' checks find it earlier.

        Raises:
            BadInputError: If it has more rows.
        """
        if rows > self.shape.maximum_positions:
            raise BadInputError(
                f"a sequence has {rows:,} rows",
                where="model.backbone",
                expected=f"at most {self.shape.maximum_positions:,}: {self.shape.end_of_positions}",
                hint="shorten prompts, questions or answers, or take a backbone with more positions",
            )

    def before_passes(self) -> None:
        """Does nothing; called once where weights are shared out: torch takes for the root whatever runs first."""

    def forward(self, batch: Batch) -> ModelOutput:
        """Runs a batch; padding stands on the right, so a causal decoder needs no padding mask."""
        rows = self.assembled(batch)
        given = (rows.embeddings,) if rows.positions is None else (rows.embeddings, rows.positions)
        return ModelOutput(hidden_states=self.decode_rows(*given), labels=rows.labels, spans=rows.spans)

    def supervised_states(self, batch: Batch, shortcuts: Shortcuts) -> tuple[Tensor, Tensor]:
        """Runs a batch for the rows that predict a supervised token.

        This is the reference: every row is computed, then chosen from. Backbones that can do less override it.

        Args:
            batch: B samples with answers.
            shortcuts: What may be left out.

        Returns:
            Hidden states (N, D) after the final norm, sample by sample, and labels (B, S), not shifted.
        """
        output = self(batch)
        return output.hidden_states[:, :-1][output.labels[:, 1:] != IGNORED_LABEL], output.labels
