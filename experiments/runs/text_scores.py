"""What prompts of words are worth on the validation split of the tuned tasks: loss and answer accuracy, paired."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy
import torch

from data_modules.sample_rows import layouts_of_samples, refuse_without_positions, rows_of_samples
from experiments.configuration.cli import Experiment
from experiments.runs.halving import Sums
from experiments.runs.training import tuning_data
from experiments.trainer.surface import configured_processes
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.named_templates import PromptFile, Template
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.positions import room_for_rows, run_rows


def chosen_samples(experiment: Experiment, number: int, seed: int) -> list[Sample]:
    """Returns samples of the validation split in an order that a seed decides; the first ones are seen first.

    Args:
        experiment: Its data are connected.
        number: How many; 0 takes all.
        seed: Decides which, and their order.

    Raises:
        BadInputError: If there are fewer.
    """
    validation = tuning_data(experiment).read_once()[1]
    if number > len(validation):
        raise BadInputError(
            f"{number:,} samples of {len(validation):,}",
            where="command line: --samples",
            expected=f"at most {len(validation):,}: the validation split has no more",
        )
    order = numpy.random.default_rng(seed).permutation(len(validation))[: number or None]
    return [validation[int(place)] for place in order]


def refuse_several_processes(experiment: Experiment) -> None:
    """Refuses more than one device: the samples of a round are few.

    Raises:
        BadInputError: If several are configured.
    """
    processes = configured_processes(experiment.config["trainer"])
    if processes > 1:
        raise BadInputError(
            f"{processes} processes are configured",
            where="trainer.devices",
            expected="one: texts are compared on one device",
            hint="--trainer.devices 1",
        )


class TextScorer:
    """Measures prompts of words on one fixed list of samples, each prompt on the same ones.

    Args:
        experiment: Its data are connected; its model may not be loaded yet.
        samples: What is measured on.
        texts: The prompts by name. All are read by the tokenizer here, and looked at for their lengths.

    Raises:
        BadInputError: If a prompt cannot be read, or a sample is too long with it; before weights load.
    """

    def __init__(self, experiment: Experiment, samples: Sequence[Sample], texts: Mapping[str, PromptText]) -> None:
        self.model = experiment.model
        data = tuning_data(experiment)
        self.collator, self.processor, self.samples = data.collator, data.processor, samples
        self.batch_size = data.batch_size if data.micro_batch_size is None else data.micro_batch_size
        self.templates: dict[str, Template] = {
            name: PromptFile(name, text, None).on(data.template) for name, text in texts.items()
        }
        shape, method = self.model.backbone.shape, self.model.method
        self.room, self.run_rows = room_for_rows(shape, method), run_rows(shape, method)
        self.layouts = layouts_of_samples(samples, self.processor)
        self.encoded: dict[str, list[EncodedText]] = {}
        self.rows: dict[str, numpy.ndarray] = {}
        for name, template in self.templates.items():
            self.encoded[name] = self.processor.encode_all(samples, template, max_text_length=data.max_text_length)
            self.rows[name] = rows_of_samples(self.encoded[name], self.layouts, self.run_rows)
            refuse_without_positions(samples, self.rows[name], self.room)

    @torch.inference_mode()
    def sums(self, name: str, places: range) -> Sums:
        """Returns what a prompt makes of some of the samples, in batches of the data's size.

        Args:
            name: The prompt's.
            places: Which of the samples.
        """
        found = Sums()
        for begin in range(places.start, places.stop, self.batch_size):
            chosen = range(begin, min(begin + self.batch_size, places.stop))
            batch = self.collator(
                [
                    encoded_sample(
                        self.samples[place], self.encoded[name][place], self.processor, self.samples[place].source
                    )
                    for place in chosen
                ]
            )
            assert isinstance(batch, Batch)
            rows = supervised_rows(self.model.backbone, batch.to(self.model.device), self.model.shortcuts)
            wrong = torch.zeros(len(chosen), device=rows.losses.device).index_add(0, rows.sample, (~rows.right).float())
            found += Sums(
                loss=float(rows.losses.to(torch.float64).sum()),
                tokens=len(rows.losses),
                right=int((wrong == 0).sum()),
                samples=len(chosen),
                rows=int(self.rows[name][chosen.start : chosen.stop].sum()),
            )
        return found

    def digest_of_samples(self) -> str:
        """Returns the SHA-256 of the samples' ids, in their order."""
        return hashlib.sha256(repr([sample.id for sample in self.samples]).encode()).hexdigest()
