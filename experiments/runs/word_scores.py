"""What the words that textual prompts are nearest to are worth: loss and answers on the validation split, measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.configuration.cli import Experiment
from experiments.runs.answering import answering_trainer
from experiments.runs.halving import Sums
from experiments.runs.loading import experiment_of
from experiments.runs.prepare import check_experiment
from experiments.runs.text_scores import TextScorer, chosen_samples, refuse_several_processes
from experiments.runs.training import require_validation_split, tuning_data
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.reworded_template import QUESTION_MARK, PromptText
from lightning_m2pt.inspection.prompt_rows import nearest_words
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.m2pt import M2PT, TEXTUAL_PROMPTS
from lightning_m2pt.methods.rows_of_words import rows_of_words
from lightning_m2pt.prompt_search.allowed_tokens import can_be_written, special_tokens
from lightning_m2pt.prompts.deep import DeepPrompts, choose_layers
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.system.tensor_hashes import hash_tensors

TUNED, WITHOUT, UNTOUCHED = "the run", "the run without textual prompts", "the untouched model"
ALONE, IN_FRONT, BEHIND = "", "in front of the question", "behind the question"
WORDS = "the words"
"""How rows of the table begin in which the prompts' words stand in their place."""


@dataclass(frozen=True)
class Words:
    """The words nearest to the rows of the first layer's prompts.

    Attributes:
        ids: One token a row.
        text: As they are written.
        is_read_back: Whether the tokenizer reads exactly these tokens of the text.
    """

    ids: list[int]
    text: str
    is_read_back: bool


class WordScores:
    """Measures a tuned run, the words of its textual prompts in several places, and the untouched model.

    Args:
        run: A run's folder; or
        adapter: an adapter's folder.
        settings: What the command line says beside the verb's own flags.
        samples: How many samples of the validation split; 0 takes all.
        seed: Decides which, and their order.

    Attributes:
        experiment: Its model is not loaded yet.

    Raises:
        BadInputError: If the run has no textual prompts at the first layer, there is no validation split, or a sample
            would be too long with so many words; before weights load.
    """

    def __init__(
        self, run: Path | None, adapter: Path | None, settings: Sequence[str], samples: int, seed: int
    ) -> None:
        self.experiment = experiment_of(run, adapter, settings)
        self.seed = seed
        refuse_without_first_rows(self.experiment, str(run or adapter))
        refuse_several_processes(self.experiment)
        self._device = answering_trainer(self.experiment, []).strategy.root_device
        check_experiment(self.experiment)
        require_validation_split(self.experiment)
        self._samples = chosen_samples(self.experiment, samples, seed)
        processor = self.experiment.model.backbone.processor()
        self._allowed = words_of(processor)
        length = m2pt_of(self.experiment.model.method).textual_length
        self._scorer(written(processor, self._allowed[:1] * length))  # as many words as there will be: lengths fit

    def measured(self) -> dict[str, Any]:
        """Returns the record of all rows; the model is loaded, and as it was afterwards.

        Raises:
            BadInputError: If a sample is too long with the words.
        """
        model = self.experiment.model
        model.to(self._device).eval()
        backbone, method = model.backbone, model.method
        prompts = backbone.attachment.textual_prompts
        assert prompts is not None
        vocabulary = backbone.token_embedding().weight.detach()
        allowed = torch.tensor(self._allowed, device=vocabulary.device)
        nearest = nearest_words(prompts.rows["0"][0].detach(), vocabulary[allowed], 1).token_ids[:, 0]
        words = written(backbone.processor(), allowed[nearest].tolist())
        scorer = self._scorer(words)
        method.detach(backbone)
        row = rows_of_words(backbone, words.ids, "embeddings")[0]
        rows: dict[str, Sums] = {}

        def measure(name: str, prepare: Callable[[], object], text: str = ALONE) -> None:
            prepare()
            model.compare_with_library("training")
            rows[name] = scorer.sums(text, range(len(self._samples)))

        def with_rows(deeper: bool) -> Callable[[], object]:
            return lambda: attach_with(method, model.backbone, with_first_rows(prompts, row, deeper))

        measure(TUNED, lambda: method.attach(backbone))
        if len(prompts.layers) > 1:
            measure(f"{WORDS} as layer 0's rows, deeper rows as tuned", with_rows(True))
        measure(f"{WORDS} as layer 0's rows, none of their own in deeper layers", with_rows(False))
        measure(WITHOUT, lambda: method.attach(backbone, {TEXTUAL_PROMPTS}))
        for place in (IN_FRONT, BEHIND):
            measure(f"{WORDS} as text {place}, no textual prompts", lambda: None, place)
        measure(UNTOUCHED, lambda: method.detach(backbone))
        for place in (IN_FRONT, BEHIND):
            measure(f"{UNTOUCHED}, {WORDS} as text {place}", lambda: None, place)
        method.attach(backbone)
        return self._record(words, rows, scorer)

    def table(self, record: dict[str, Any]) -> ReportTable:
        """Returns a record as people read it."""
        return table_of(record)

    def _scorer(self, words: Words) -> TextScorer:
        texts = {
            ALONE: PromptText(),
            IN_FRONT: PromptText(f"{words.text} {QUESTION_MARK}"),
            BEHIND: PromptText(f"{QUESTION_MARK} {words.text}"),
        }
        return TextScorer(self.experiment, self._samples, texts)

    def _record(self, words: Words, rows: dict[str, Sums], scorer: TextScorer) -> dict[str, Any]:
        data, model = tuning_data(self.experiment), self.experiment.model
        return {
            "base": model.backbone.fingerprint(),
            "adapter": hash_tensors(declared_tensors(model.method)),
            "template": data.template_label,
            "data_fingerprint": data.fingerprint(),
            "samples": len(self._samples),
            "samples_sha256": scorer.digest_of_samples(),
            "sample_seed": self.seed,
            "words": vars(words),
            "rows": {
                name: {"loss": sums.mean_loss, "answer_accuracy": sums.accuracy, "tokens": sums.tokens}
                for name, sums in rows.items()
            },
        }


def m2pt_of(method: Method) -> M2PT:
    """Returns the method that has textual prompts: the one of a run, or one that is combined with others."""
    members = method.methods() if isinstance(method, Combined) else [method]
    return next(member for member in members if isinstance(member, M2PT))


def refuse_without_first_rows(experiment: Experiment, where: str) -> None:
    """Refuses what has no rows where words stand; nothing needs to be loaded for that.

    Raises:
        BadInputError: If no textual prompts are trained, or none at the first layer.
    """
    model = experiment.model
    if TEXTUAL_PROMPTS not in model.method.part_names():
        raise BadInputError(
            f"method {model.method.name} has no textual prompts whose words could be measured",
            where=where,
            expected=f"a run with {TEXTUAL_PROMPTS}",
        )
    method = m2pt_of(model.method)
    layers = choose_layers(method.textual_layers, method.textual_depth, model.backbone.shape.text_layers, "layers")
    if layers[0] != 0:
        raise BadInputError(
            f"the first layer with textual prompts is layer {layers[0]}, and words stand at layer 0",
            where=where,
            expected="a run with textual prompts at layer 0",
        )


def words_of(processor: Processor) -> list[int]:
    """Returns the tokens that are words: no signs of the model, and to be written and read in a file."""
    tokenizer, special = processor.tokenizer, special_tokens(processor)
    rows = min(processor.vocabulary_size or len(tokenizer), len(tokenizer))
    return [number for number in range(rows) if number not in special and can_be_written(decoded(processor, [number]))]


def decoded(processor: Processor, ids: Sequence[int]) -> str:
    """Returns tokens as a text."""
    return str(processor.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)).strip()


def written(processor: Processor, ids: list[int]) -> Words:
    """Returns tokens with their text."""
    text = decoded(processor, ids)
    again = processor.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return Words(ids, text, again == ids)


def with_first_rows(prompts: DeepPrompts, row: Tensor, deeper: bool) -> DeepPrompts:
    """Returns prompts with other rows at layer 0.

    Args:
        prompts: The tuned ones.
        row: (1, P, D).
        deeper: Keep the rows of deeper layers; without them layer 0's flow on.
    """
    layers = prompts.layers if deeper else [0]
    made = DeepPrompts(layers, prompts.total_layers, prompts.length, row.shape[-1], dropout=0.0)
    made.to(row.device).requires_grad_(False)
    with torch.no_grad():
        for layer in layers:
            made.rows[str(layer)].copy_(row if layer == 0 else prompts.rows[str(layer)])
    return made.eval()


def attach_with(method: Method, backbone: Any, prompts: DeepPrompts) -> None:
    """Attaches a method with other textual prompts than its own."""
    method.attach(backbone)
    backbone.attachment = replace(backbone.attachment, textual_prompts=prompts)


def table_of(record: dict[str, Any]) -> ReportTable:
    """Returns the rows of a record, and what they say of the words."""
    rows = record["rows"]
    base = rows[UNTOUCHED]["loss"]
    cells = [
        [name, f"{row['loss']:.4f}", f"{row['loss'] - base:+.4f}", f"{row['answer_accuracy']:.1%}"]
        for name, row in rows.items()
    ]
    numbers = [Column(title, is_number=True) for title in ("loss", "against untouched", "answers right")]
    records = [{"name": name, **row} for name, row in rows.items()]
    return ReportTable("", [Column("what is asked"), *numbers], cells, records, notes_of(record))


def notes_of(record: dict[str, Any]) -> list[str]:
    """Returns what the words are, and how much of what textual prompts do is left of it."""
    rows, words = record["rows"], record["words"]
    notes = [f"nearest words of layer 0's rows: {words['text']}"]
    if not words["is_read_back"]:
        notes.append("the tokenizer reads other tokens of this text than these words: rows with text are of those")
    gain = rows[WITHOUT]["loss"] - rows[TUNED]["loss"]
    if gain <= 0:
        return [*notes, "the textual prompts do not lower the loss on these samples: words have nothing of it to keep"]
    kept = [
        f"{(rows[WITHOUT]['loss'] - row['loss']) / gain:.0%} {name.removeprefix(WORDS).strip()}"
        for name, row in rows.items()
        if name.startswith(WORDS)
    ]
    return [*notes, f"textual prompts lower the loss by {gain:.4f}; of this their words keep " + "; ".join(kept)]
