"""The peers' formats by name, and which sets fit each."""

from collections.abc import Callable
from dataclasses import dataclass

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.peer_formats.common import Export
from lightning_m2pt.metrics.peer_formats.llava_answers import any_set_files
from lightning_m2pt.metrics.peer_formats.lmms_eval import lmms_eval_files
from lightning_m2pt.metrics.peer_formats.mme_official import mme_official_files
from lightning_m2pt.metrics.peer_formats.pope import llava_files, pope_official_files
from lightning_m2pt.metrics.peer_formats.vlmevalkit import DATASETS, vlmevalkit_files
from lightning_m2pt.metrics.predictions import PredictionFile


@dataclass(frozen=True)
class PeerFormat:
    """What a peer's scorer reads.

    Attributes:
        files: From a prediction file's content to the peer's files.
        sets: Names of the sets that the peer scores; none for any set.
        reader: What reads the files.
    """

    files: Callable[[PredictionFile], Export]
    sets: tuple[str, ...]
    reader: str

    def takes(self, benchmark: str) -> bool:
        """Tells whether the format is one of a set."""
        return not self.sets or benchmark in self.sets


FORMATS = {
    "mme_official": PeerFormat(mme_official_files, ("mme",), "calculation.py of MME's eval_tool"),
    "pope_official": PeerFormat(pope_official_files, ("pope",), "evaluate.py of POPE"),
    "llava": PeerFormat(llava_files, ("pope",), "llava/eval/eval_pope.py of LLaVA"),
    "llava_answers": PeerFormat(any_set_files, (), "tools that read answers of LLaVA's scripts"),
    "lmms_eval": PeerFormat(lmms_eval_files, ("mme", "pope"), "sample logs of lmms-eval"),
    "vlmevalkit": PeerFormat(vlmevalkit_files, tuple(DATASETS), "result files of VLMEvalKit"),
}


def export_files(content: PredictionFile, name: str) -> Export:
    """Returns a peer's files for a prediction file.

    Args:
        content: The checked prediction file.
        name: A key of ``FORMATS``.

    Raises:
        BadInputError: If the set does not fit the format, or a prediction is none that the peer could score.
    """
    benchmark = content.header["benchmark"]
    if not FORMATS[name].takes(benchmark):
        fitting = [other for other, peer in FORMATS.items() if peer.takes(benchmark)]
        raise BadInputError(
            f"the format {name} is for {' and '.join(FORMATS[name].sets)}, and this is {benchmark}",
            where="--format",
            expected=" or ".join(fitting),
        )
    if not content.predictions:
        raise BadInputError("there are no predictions", expected="at least one")
    return FORMATS[name].files(content)
