"""A whole vision-language model of transformers, as it lies in a folder, frozen and with prompts in both towers.

The library's own model is built and loaded; nothing of it is written anew. The decoder's ways are those of
``CausalDecoding``; the tower runs as the library runs it, with prompt rows put in by hooks or as keys and values.
"""

from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.chat_template_files import processor_chat_template
from lightning_m2pt.backbones.connected_rows import ConnectedRows, VisualRows
from lightning_m2pt.backbones.decoders.rotations import end_of_positions, usable_positions
from lightning_m2pt.backbones.families.family import TiledFamily, module_at, rows_given_to
from lightning_m2pt.backbones.families.geometry import GeometryOfFamily
from lightning_m2pt.backbones.filling.from_files import FilledFromFiles
from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.hub_ids import model_folder
from lightning_m2pt.backbones.library_forward import library_assembled, library_states, with_raw_rows
from lightning_m2pt.backbones.library_processor import library_processor
from lightning_m2pt.backbones.origins.said import BaseOrigin, origin_of
from lightning_m2pt.backbones.picture_geometry import PictureGeometry
from lightning_m2pt.backbones.quantised import (
    Quantization,
    parameter_count,
    quantised_fingerprint,
    refuse_missing_package,
)
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.tokenizer_files import check_tokenizer_files, load_tokenizer
from lightning_m2pt.backbones.towers.prompt_rows import TowerPrompts, rows_for_connector
from lightning_m2pt.backbones.whole_model_files import KEY, described_model
from lightning_m2pt.configuration.paths import FilePath, readable
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.prompts.rotary_axes import rotate_on_three_axes
from lightning_m2pt.prompts.tower_rows import TowerPrefixPath


class VisionLanguageModel(FilledFromFiles):
    """A model of a known family: LLaVA-1.5 and kin, and others under ``lightning_m2pt/backbones/families``.

    Args:
        model: Folder with ``config.json``, safetensors, the tokenizer and the image processor's configuration, as
            published; or ``hub:OWNER/NAME``, which was fetched before.
        revision: Branch, tag or commit of a hub's model; None takes ``main``.
        dtype: Type of the frozen weights.
        activation_checkpointing: Recompute activations in the backward pass (non-reentrant). ``auto`` recomputes where
            an estimate of the memory says that training would not fit otherwise.
        compile_backend: Compile every decoder layer with ``torch.compile``; None does not compile.
        quantization: Keep the weights of the decoder's layers in ``nf4`` or ``int8``; None keeps them in ``dtype``,
            in which everything is computed.
    """

    def __init__(
        self,
        model: FilePath,
        revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float64"] = "bfloat16",
        activation_checkpointing: bool | Literal["auto"] = "auto",
        compile_backend: Literal["inductor", "aot_eager"] | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        super().__init__()
        self.folder = model_folder(model, revision, KEY)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.compile_backend = compile_backend
        self.checkpointing_is_automatic = activation_checkpointing == "auto"
        self.files = described_model(self.folder)
        self.family = self.files.family
        self.form = self.family.tower_form(self.files.config)
        self.never_answered = self.family.picture_tokens(self.files.config)
        self.shape = self._shape()
        self.quantise_decoder(quantization)
        self.recompute_activations(activation_checkpointing is True)
        self._prompts = TowerPrompts(TowerPrefixPath())
        self._base_parameters = 0

    def _shape(self) -> BackboneShape:
        tower, text = self.files.config.vision_config, self.files.config.text_config
        heads = text.num_attention_heads
        return BackboneShape(
            vision_layers=self.form.used_blocks + 1,  # the last one's input goes through the connector
            vision_width=tower.hidden_size,
            patches=self.form.patches,
            patch_size=tower.patch_size,
            image_size=self.form.image_size,
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            text_heads=heads,
            text_key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
            text_head_width=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocabulary_size=text.vocab_size,
            maximum_positions=usable_positions(text.to_dict()),
            end_of_positions=end_of_positions(text.to_dict()),
            vision_mlp_width=tower.intermediate_size,
            vision_quick_gelu=tower.hidden_act == "quick_gelu",
            text_mlp_width=text.intermediate_size,
            raw_rows_refused=self.family.raw_rows_refused,
            visual_prompts_refused=self.family.visual_prompts_refused,
            vision_rows_in_front=int(self.form.has_cls),
            joined_patches=self.form.patches // self.form.rows_behind_connector,
            vision_gated_mlp=self.family.has_gated_tower,
            tiles_are_patches=not isinstance(self.family, TiledFamily),
        )

    @property
    def projector(self) -> nn.Module:  # type: ignore[override]
        """The library's connector; it belongs to the library's model and is registered nowhere else."""
        return self._at(self.family.connector)  # type: ignore[no-any-return]

    @property
    def dtype_name(self) -> str:
        """Returns the type of the frozen weights."""
        return str(self.dtype).removeprefix("torch.")

    def processor(self) -> Processor:
        """Returns the folder's tokenizer and the library's image processor."""
        rules_of = partial(self.family.picture_rules, self.files.config)
        tokenizer, shape = load_tokenizer(self.folder), self.shape
        config = self.files.config
        around = self.family.tokens_around_picture(config)
        own = processor_chat_template(self.folder, tokenizer, self.family.picture_tokens(config)[0], around)
        made = library_processor(self.folder, tokenizer, rules_of, shape.image_size, shape.vocabulary_size, own)
        made.picture_tokens = self.never_answered
        return made

    def check_files(self) -> None:
        """Raises BadInputError if a file is not what the configuration says; opens no tensor."""
        self.files.check()
        refuse_missing_package(self.quantization)
        check_tokenizer_files(self.folder)
        self.processor()

    def build_on_meta(self) -> None:
        """Builds the library's model on the meta device."""
        self.language_model = self.files.on_meta(self.dtype)
        self.pack_on_meta()
        self._base_parameters = self._count_parameters()

    def build_unfilled(self) -> list[Unfilled]:
        """Builds the library's model on the meta device in ``dtype``."""
        whole = self.files.unfilled(self.dtype, self.quantization)
        self.language_model = whole.module
        return [whole]

    def finish(self) -> None:
        """Puts the built model into its frozen state; also called by tests that build random weights."""
        self.eval()
        self._base_parameters = self._count_parameters()
        self.ready_language_model()
        if self.family.has_three_axes:
            rotate_on_three_axes(self.decoder())
        self._let_library_hook_its_tower()
        for module in self._modules_behind_features():
            module.forward = as_given
        self.is_loaded = True

    def train(self, mode: bool = True) -> Self:
        """Keeps everything in evaluation mode; blocks that shall recompute have to say that they are in training."""
        super().train(mode)
        if self.activation_checkpointing and self.is_loaded:
            for block in self.tower_blocks():
                block.training = mode
        return self

    def fingerprint(self) -> str:
        """Returns the SHA-256 over what the model is built from, independent of where the files lie."""
        return quantised_fingerprint(self.files.fingerprint(), self.quantization)

    def readable_name(self) -> str:
        """Returns the folder."""
        return readable(str(self.folder))

    def origin(self) -> BaseOrigin:
        """Returns the model's repository and commit, if it is one of the hub's."""
        return origin_of(type(self), {"model": self.folder}, {})

    def verify_files(self) -> None:
        """Raises BadInputError if a weight file changed though its size and times are what they were."""
        self.files.verify()

    def base_parameters(self) -> int:
        """Counts the whole model as it was built, what is not used of its tower included."""
        return self._base_parameters

    def decoder(self) -> Any:  # noqa: ANN401
        """Returns the library's language model inside the whole one, without its head."""
        return self._at(self.family.decoder)

    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        """Leaves out what stands behind the features in the tower. Rows between pictures count as language."""
        # A connector may lie inside the tower.
        places = {"interaction": self.family.connector, "vision": self.family.tower}
        found: dict[str, dict[str, nn.Parameter]] = {"vision": {}, "interaction": {}, "language": {}}
        blocks = [f"{self.family.tower}.{self.family.blocks}.{number}." for number in range(self.form.used_blocks)]
        unused = tuple(f"{self.family.tower}.{name}." for name in self.form.unused)
        for name, parameter in self.language_model.named_parameters(remove_duplicate=False):
            component = next((part for part, place in places.items() if name.startswith(f"{place}.")), "language")
            is_block = name.startswith(f"{self.family.tower}.{self.family.blocks}.")
            if name.startswith(unused) or (is_block and not name.startswith(tuple(blocks))):
                continue
            found[component][f"language_model.{name}"] = parameter
        return found

    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        """Runs the library's tower on (tiles, 3, H, W) and selects what goes through the connector."""
        prompts, has_cls = self.attachment.visual_prompts, int(self.form.has_cls)
        rows: list[Tensor | None] = [] if prompts is None else prompts.layer_rows()
        self._prompts.put(self.tower_blocks(), rows[:-1], self.attachment, has_cls)
        family = self.tiled_family()
        states = family.tower_states(self.language_model, pixel_values.to(self._tower_type()))
        return rows_for_connector(states, rows[-1] if rows else None, self.attachment, has_cls)

    def connected_pixels(self, pixel_values: Tensor, picture_sizes: Tensor | None) -> ConnectedRows:
        """Runs tower and connector, and lays the rows out as the family does."""
        return self.family.connected(self.language_model, pixel_values, picture_sizes, self)

    def rows_of_runs(self, pixel_values: Tensor, picture_sizes: Tensor | None = None) -> list[int]:
        """Lays out rows without numbers: how many there are follows from sizes alone."""
        beside = self.attachment.rows_beside_patches(has_cls=self.form.has_cls)
        number = self.form.rows_behind_connector + beside
        rows = torch.empty(len(pixel_values), number, self.shape.text_width, device="meta")
        return self.family.run_lengths(self.language_model, rows, picture_sizes)

    def library_visual_rows(self, pixel_values: Tensor) -> Tensor | None:
        """Runs the library's own tower, with hooks of its own for what is attached; grids take no prompts anyway."""
        if not isinstance(self.family, TiledFamily):
            return None
        self._prompts.put(self.tower_blocks(), (), self.attachment, 0)
        states = library_states(self, pixel_values.to(self._tower_type()))
        return with_raw_rows(self.attachment, states, self.form.has_cls)

    def library_assembled(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Runs the library's whole model up to its decoder, where the family says what it is given."""
        return library_assembled(self, batch)

    def attention_layers(self) -> tuple[list[Any], list[Any]]:
        """Returns the tower's blocks that are used, and the decoder's layers."""
        return list(self.tower_blocks()), list(self.decoder().layers)

    def picture_geometry(self) -> PictureGeometry:
        """Returns where the family lays the rows of pictures out."""
        return GeometryOfFamily(self.family, self.files.config, self.shape)

    def release_hooks(self) -> None:
        """Takes every hook and every attention function of ours out of the tower, and the decoder's hooks away."""
        self._prompts.remove()
        super().release_hooks()

    def invented_pictures(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Returns the pixels of random pictures as the family reads them, and their sizes."""
        return self.family.invented_pictures(self.files.config, number, generator)

    def tiled_family(self) -> TiledFamily:
        """Returns the family, whose tower reads tiles.

        Raises:
            BadInputError: If it reads grids, whose rows are no tower's alone.
        """
        if not isinstance(self.family, TiledFamily):
            raise BadInputError(
                f"rows of the tower of {self.family.architecture} follow from each picture's grid",
                where="model.backbone",
                expected="what connects them: connected_rows",
            )
        return self.family

    def _at(self, place: str) -> Any:  # noqa: ANN401
        return module_at(self.language_model, place)

    def tower_blocks(self) -> list[nn.Module]:
        """Returns the blocks of the tower that its features depend on."""
        blocks = module_at(self._at(self.family.tower), self.family.blocks)
        return list(blocks)[: self.form.used_blocks]

    def _tower_type(self) -> torch.dtype:
        """Returns the type that the tower reads pictures in: float32 where a copy of it is trained."""
        return next(self._at(self.family.tower).parameters()).dtype  # type: ignore[no-any-return]

    def _let_library_hook_its_tower(self) -> None:
        """The library hooks the blocks when hidden states are asked for first, and for good: not while one trains."""
        family, size = self.family, self.shape.image_size
        if not isinstance(family, TiledFamily):
            return
        pixels = torch.ones(1, 3, size, size, dtype=self.dtype)
        with torch.no_grad():
            rows_given_to(self.tower_blocks()[0], lambda: family.tower_states(self.language_model, pixels))

    def _modules_behind_features(self) -> list[nn.Module]:
        """Returns the tower's modules whose output nothing depends on; where a copy is trained they have no part."""
        tower = self._at(self.family.tower)
        blocks = list(module_at(tower, self.family.blocks))[self.form.used_blocks :]
        return [*blocks, *(module_at(tower, name) for name in self.form.unused if hasattr(tower, name))]

    def _count_parameters(self) -> int:
        return parameter_count(self.language_model)


def as_given(states: Tensor, *_others: object, **_named: object) -> Tensor:
    """Stands in for the forward of modules that need not be computed."""
    return states
