"""Whether everything that is tuned on or asked fits into the language model's positions; needs no weights."""

from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from lightning_m2pt.answering.decoding import Answering, LikelihoodAnswering
from lightning_m2pt.answering.own_candidates import OwnCandidateAnswering
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.positions import room_for_rows, run_rows


def check_sample_lengths(model: TuningModule, data: InstructionDataModule) -> None:
    """Looks at every sample of a tuning set.

    Raises:
        BadInputError: If one is too long.
    """
    shape, method = model.backbone.shape, model.method
    data.check_lengths(run_rows(shape, method), room_for_rows(shape, method))


def check_question_lengths(model: TuningModule, benchmark: BenchmarkDataModule, answer_tokens: int) -> None:
    """Looks at every question of an evaluation set.

    Args:
        model: Its method's rows take positions.
        benchmark: A connected set.
        answer_tokens: The longest answer that may be given.

    Raises:
        BadInputError: If a question leaves too little room.
    """
    shape, method = model.backbone.shape, model.method
    benchmark.check_lengths(run_rows(shape, method), room_for_rows(shape, method) - answer_tokens)


def check_premise_lengths(model: TuningModule, answering: Answering) -> None:
    """Looks at everything that candidates are set against.

    Args:
        model: Its method's rows take positions.
        answering: How a set's questions are answered.

    Raises:
        BadInputError: If a premise leaves too little room.
    """
    if not isinstance(answering, LikelihoodAnswering | OwnCandidateAnswering) or answering.premises is None:
        return
    shape, method = model.backbone.shape, model.method
    room = room_for_rows(shape, method) - answering.most_tokens
    rows = answering.premises.most_rows(run_rows(shape, method))
    if rows > room:
        raise BadInputError(
            f"the text without content has {rows:,} rows with what stands around it",
            where="command line: --answer",
            expected=f"at most {max(0, room):,}: the language model knows no later position",
            hint="take a shorter --calibration-text or --premise",
        )
