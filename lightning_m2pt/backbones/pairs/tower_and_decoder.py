"""Any proven vision tower, a projector and any proven causal language model, each from a folder as it lies.

Which tower it is, its configuration says (``lightning_m2pt/backbones/towers``); which projector, the names of its
tensors; which language model, ``lightning_m2pt/backbones/proven_forms.py``
and ``lightning_m2pt/backbones/decoders/reference.py``.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_m2pt.backbones.chat_template_files import tokenizer_chat_template
from lightning_m2pt.backbones.connected_rows import VisualRows
from lightning_m2pt.backbones.decoders.reference import check_decoder_config, runs_by_reference
from lightning_m2pt.backbones.decoders.rotations import end_of_positions, usable_positions
from lightning_m2pt.backbones.feature_cache import FeatureCache
from lightning_m2pt.backbones.filling.from_files import FilledFromFiles
from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE
from lightning_m2pt.backbones.hub_ids import model_folder
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import KEY as LANGUAGE_KEY
from lightning_m2pt.backbones.language_model import check_language_folder, model_on_meta, unfilled_language_model
from lightning_m2pt.backbones.library_processor import LibraryProcessor, tried
from lightning_m2pt.backbones.origins.said import BaseOrigin, origin_of
from lightning_m2pt.backbones.pairs.alignment_record import refuse_other_features
from lightning_m2pt.backbones.pairs.files import PairFiles
from lightning_m2pt.backbones.pairs.library_pass import library_tower_rows
from lightning_m2pt.backbones.pairs.projector import described_projector
from lightning_m2pt.backbones.quantised import parameter_count, quantised_fingerprint, refuse_missing_package
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.tokenizer_files import check_tokenizer_files, load_tokenizer
from lightning_m2pt.backbones.towers.kind import KEY as TOWER_KEY
from lightning_m2pt.backbones.towers.known import tower_of
from lightning_m2pt.backbones.towers.picture_rules import PICTURE_FILE
from lightning_m2pt.backbones.towers.prompt_rows import TowerPrompts, rows_for_connector
from lightning_m2pt.configuration.paths import FilePath, readable
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_rules.one_tile import OneTile
from lightning_m2pt.inputs.processing import Processor


class TowerAndDecoder(FilledFromFiles):
    """Vision tower + projector + causal language model.

    Args:
        vision_tower: Folder of the tower: transformers' CLIP, SigLIP or DINOv2 (alone, or inside a whole contrastive
            model), a vision transformer of timm's, or an open_clip model, as the hub keeps them; or ``hub:OWNER/NAME``,
            which was fetched before.
        language_model: Folder of the language model, with its safetensors and tokenizer; or ``hub:OWNER/NAME``.
        projector: safetensors file of a linear layer, or of LLaVA's layers with GELU between them (``0.weight``,
            ``2.weight``, ...; ``linear_1.weight``, ...). An aligned one, with its record in the folder above its
            own, goes with no other models than those that the record names.
        feature_layer: Which of the tower's hidden states goes to the projector: 0 is what the first block reads, -1 the
            last block's output, -2 the output of the one before it, as LLaVA takes it of CLIP. Later blocks never run.
        feature_norm: Put the features through the tower's last norm; only with ``feature_layer: -1``.
        vision_revision: Branch, tag or commit of a hub's tower; None takes ``main``.
        language_revision: The same of a hub's language model.
        image_size: Side of the pictures in pixels, where it shall be another one than the tower's positions were
            learned for, which are then interpolated as its library does. None: the tower's own.
        dtype: Type of the frozen weights, and of what is computed with packed ones.
        quantization: Pack the weights of the decoder's layers into four bits (``nf4``) or eight (``int8``) each while
            they are read. None keeps them in ``dtype``.
        activation_checkpointing: Recompute activations in the backward pass (non-reentrant). ``auto`` recomputes where
            an estimate of the memory says that training would not fit otherwise.
        compile_backend: Compile every block and layer with ``torch.compile``: ``inductor`` writes fused kernels (for
            GPUs; the first steps take minutes), ``aot_eager`` only traces. None does not compile.
        feature_cache: Folder that keeps the tower's features while nothing in the tower is trained; None keeps none.
            A batch's features are then computed without the pictures that are there, which may change last bits.
        feature_cache_bytes: Size beyond which the cache takes nothing more.
    """

    def __init__(
        self,
        vision_tower: FilePath,
        language_model: FilePath,
        projector: FilePath,
        feature_layer: int = -2,
        feature_norm: bool = False,
        image_size: int | None = None,
        vision_revision: str | None = None,
        language_revision: str | None = None,
        dtype: Literal["float32", "bfloat16", "float64"] = "float32",
        quantization: Literal["nf4", "int8"] | None = None,
        activation_checkpointing: bool | Literal["auto"] = "auto",
        compile_backend: Literal["inductor", "aot_eager"] | None = None,
        feature_cache: FilePath | None = None,
        feature_cache_bytes: int = 100_000_000_000,
    ) -> None:
        super().__init__()
        self.tower = tower_of(model_folder(vision_tower, vision_revision, TOWER_KEY), image_size)
        self.language_folder = model_folder(language_model, language_revision, LANGUAGE_KEY)
        self.projector_path = Path(projector)
        self._names = (vision_tower, language_model)
        self._settings = {"feature_layer": feature_layer, "feature_norm": feature_norm, "image_size": image_size}
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.compile_backend = compile_backend
        self.checkpointing_is_automatic = activation_checkpointing == "auto"
        self.used_blocks = self._number_of_blocks(feature_layer, feature_norm=feature_norm)
        self.feature_norm = feature_norm
        language = read_json(self.language_folder / CONFIG_FILE, LANGUAGE_KEY)
        check_decoder_config(language, self.language_folder / CONFIG_FILE)
        self.shape = self._shape_with(language)
        self.recompute_activations(activation_checkpointing is True)
        self.quantise_decoder(quantization)
        features = {"blocks": self.used_blocks, "norm": feature_norm, "image_size": self.shape.image_size}
        self.files = PairFiles(
            self.tower.described, self.tower.weights(), features, self.language_folder, self.projector_path
        )
        self._prompts = TowerPrompts(None if self.tower.prefix_refused else self.tower.prefix_path())
        self._base_parameters = 0
        self.feature_cache: FeatureCache | None = None
        if feature_cache:
            computing = json.dumps({"tower": self.tower.described, "features": features}, sort_keys=True)
            self.feature_cache = FeatureCache(Path(feature_cache), feature_cache_bytes, computing)

    def _number_of_blocks(self, feature_layer: int, *, feature_norm: bool) -> int:
        """Returns how many blocks run.

        Raises:
            BadInputError: If the tower has no such hidden state, or no norm that it could go through.
        """
        layers = self.tower.sizes.layers
        used = feature_layer + layers + 1 if feature_layer < 0 else feature_layer
        if not 1 <= used <= layers:
            raise BadInputError(
                f"hidden state {feature_layer} is no block's output",
                where="model.backbone.feature_layer",
                expected=f"1 to {layers}, or -1 to {-layers}: the tower has {layers} blocks",
            )
        if feature_norm and (self.tower.norm_refused or used < layers):
            raise BadInputError(
                self.tower.norm_refused or f"block {used} of {layers} has no norm behind it",
                where="model.backbone.feature_norm",
                expected="false" if self.tower.norm_refused else "false, or feature_layer: -1",
            )
        return used

    def _shape_with(self, language: dict[str, Any]) -> BackboneShape:
        sizes, pictures = self.tower.sizes, self.tower.pictures
        heads = language["num_attention_heads"]
        return BackboneShape(
            vision_layers=self.used_blocks + 1,  # the connector's input may have prompt rows like a block's
            vision_width=sizes.width,
            patches=(pictures.size // sizes.patch_size) ** 2,
            patch_size=sizes.patch_size,
            image_size=pictures.size,
            image_mean=pictures.mean,
            image_std=pictures.std,
            interpolation=pictures.interpolation,
            resize=pictures.resize,
            text_layers=language["num_hidden_layers"],
            text_width=language["hidden_size"],
            text_heads=heads,
            text_key_value_heads=language.get("num_key_value_heads") or heads,
            text_head_width=language.get("head_dim") or language["hidden_size"] // heads,
            vocabulary_size=language["vocab_size"],
            maximum_positions=usable_positions(language),
            runs_reference=runs_by_reference(language),
            end_of_positions=end_of_positions(language),
            vision_mlp_width=sizes.mlp_width,
            vision_quick_gelu=sizes.quick_gelu,
            text_mlp_width=language["intermediate_size"],
            vision_rows_in_front=sizes.rows_in_front,
            visual_prefix_refused=self.tower.prefix_refused,
        )

    def processor(self) -> Processor:
        """Returns the tokenizer of the language model's folder with the tower's image transform."""
        tokenizer, pictures = load_tokenizer(self.language_folder), self.tower.pictures
        vocabulary, own = self.shape.vocabulary_size, tokenizer_chat_template(self.language_folder, tokenizer)
        if pictures.library_class:
            rules = tried(
                lambda: OneTile(pictures.library_processor(), pictures.size, self.shape.patches),
                pictures.library_class,
                self.tower.folder / PICTURE_FILE,
            )
            return LibraryProcessor(tokenizer, rules, pictures.size, vocabulary, own)
        look = (pictures.size, pictures.mean, pictures.std, pictures.interpolation, pictures.resize)
        return Processor(tokenizer, *look, vocabulary_size=vocabulary, chat_template=own)

    @property
    def dtype_name(self) -> str:
        """Returns the type of the frozen weights."""
        return str(self.dtype).removeprefix("torch.")

    def check_files(self) -> None:
        """Raises BadInputError if a file is not what the configuration, or the projector's record, says."""
        self.tower.check()
        described_projector(self.projector_path).check(self.shape.vision_width, self.shape.text_width)
        check_language_folder(self.language_folder, by_reference=True)
        check_tokenizer_files(self.language_folder)
        refuse_missing_package(self.quantization)
        self.processor()
        if self.feature_cache is not None:
            self.feature_cache.check()
        layers = self.tower.sizes.layers
        refuse_other_features(self.projector_path, self.used_blocks, layers, normed=self.feature_norm)
        self.files.refuse_other_base()  # last: it may have to read all weights

    def build_on_meta(self) -> None:
        """Builds all modules on the meta device; how many layers the projector has, its file says."""
        self.vision_tower = self.tower.on_meta()
        self.language_model = model_on_meta(self.language_folder)
        self.pack_on_meta()
        projector = described_projector(self.projector_path)
        self.projector = projector.on_meta(self.shape.vision_width, self.shape.text_width)
        self._base_parameters = self._count_parameters()

    def build_unfilled(self) -> list[Unfilled]:
        """Builds all modules on the meta device in ``dtype``."""
        tower = self.tower.unfilled(self.dtype)
        described = described_projector(self.projector_path)
        projector = described.unfilled(self.shape.vision_width, self.shape.text_width, self.dtype)
        language = unfilled_language_model(self.language_folder, self.dtype, self.quantization)
        self.vision_tower, self.projector, self.language_model = tower.module, projector.module, language.module
        return [tower, projector, language]

    def finish(self) -> None:
        """Puts the built modules into their frozen state."""
        self.eval()
        self._base_parameters = self._count_parameters()
        self.ready_language_model()
        if self.compile_backend is not None:
            for block in self.tower_blocks():
                block.forward = torch.compile(block.forward, backend=self.compile_backend)
        self.is_loaded = True

    def fingerprint(self) -> str:
        """Returns the SHA-256 over what the model is built from, independent of where the files lie."""
        return quantised_fingerprint(self.files.fingerprint(), self.quantization)

    def readable_name(self) -> str:
        """Returns the folders, or hub names, of tower and language model."""
        return " + ".join(readable(name) for name in self._names)

    def origin(self) -> BaseOrigin:
        """Returns the parts' repositories and commits, if all of them are of the hub."""
        files = {
            "vision_tower": self.tower.folder,
            "language_model": self.language_folder,
            "projector": self.projector_path,
        }
        return origin_of(type(self), files, self._settings)

    def verify_files(self) -> None:
        """Raises BadInputError if a weight file changed though its size and times are what they were."""
        self.files.verify()

    def base_parameters(self) -> int:
        """Counts language model, vision tower and projector as they were built, unused blocks of the tower included."""
        return self._base_parameters

    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        """Leaves out what the features do not depend on: later blocks of the tower, pooling, norms."""
        unused = self.tower.unused(self.used_blocks, normed=self.feature_norm)
        components = {"vision": "vision_tower", "interaction": "projector", "language": "language_model"}
        return {
            component: {
                f"{attribute}.{name}": parameter
                for name, parameter in getattr(self, attribute).named_parameters(remove_duplicate=False)
                if component != "vision" or not name.startswith(unused)
            }
            for component, attribute in components.items()
        }

    def tower_blocks(self) -> list[nn.Module]:
        """Returns the tower's blocks that run."""
        return self.tower.blocks(self.vision_tower)[: self.used_blocks]

    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        """Runs the used vision blocks and selects what goes through the connector."""
        prompts, in_front = self.attachment.visual_prompts, self.shape.vision_rows_in_front
        rows: list[Tensor | None] = [] if prompts is None else prompts.layer_rows()
        self._prompts.put(self.tower_blocks(), rows[:-1], self.attachment, in_front)
        states = self.vision_states(pixel_values) if rows else self.frozen_states(pixel_values)
        return rows_for_connector(states, rows[-1] if rows else None, self.attachment, in_front)

    def frozen_states(self, pixel_values: Tensor) -> Tensor:
        """Returns the states of the tower without prompts, from the cache where they are constants."""
        if self.feature_cache is None or not self.feature_cache.may_serve(self.vision_tower, pixel_values):
            return self.vision_states(pixel_values)
        form = self.shape.vision_rows_in_front + self.shape.patches, self.shape.vision_width
        return self.feature_cache.features(self.vision_tower, pixel_values, self.vision_states, form)

    def vision_states(self, pixel_values: Tensor) -> Tensor:
        """Returns the chosen hidden state of (B, 3, H, W): (B, F + N, D), without prompt rows."""
        pixels = pixel_values.to(next(self.vision_tower.parameters()).dtype)  # float32 where a copy of it is trained
        states, named = self.tower.embedded(self.vision_tower, pixels), self.tower.for_blocks(self.vision_tower, pixels)
        for block in self.tower_blocks():
            if self.activation_checkpointing:
                states = checkpoint(self.tower.run_block, block, states, named, use_reentrant=False)
            else:
                states = self.tower.run_block(block, states, named)
        return self.tower.norm(self.vision_tower)(states) if self.feature_norm else states

    def library_visual_rows(self, pixel_values: Tensor) -> Tensor:
        """Runs the library's whole tower, with hooks of its own for what is attached."""
        self._prompts.put(self.tower_blocks(), (), self.attachment, 0)
        return library_tower_rows(self, pixel_values)

    def attention_layers(self) -> tuple[list[Any], list[Any]]:
        """Returns the blocks whose output is used, and the decoder's layers."""
        return list(self.tower_blocks()), list(self.decoder().layers)

    def release_hooks(self) -> None:
        """Takes every hook and every attention function of ours away; called when a method detaches."""
        self._prompts.remove()
        super().release_hooks()

    def _count_parameters(self) -> int:
        uncounted = self.tower.uncounted()
        tower = [each for name, each in self.vision_tower.named_parameters() if not name.startswith(uncounted)]
        counted = sum(int(parameter.numel()) for parameter in [*tower, *self.projector.parameters()])
        return counted + parameter_count(self.language_model)
