"""What is measured beside the rows of words: free rows in the words' places, and what the gradient promises."""

import logging

from benchmarks.learning.prompt_words.base import Base
from benchmarks.learning.prompt_words.rows import LOSSES, RIGHT, SEARCHED, TABLE, TEXT
from benchmarks.learning.prompt_words.setting import SOFT
from lightning_m2pt.prompt_search.linearisation import single_swaps
from lightning_m2pt.prompt_search.prompt_texts import drawn_start
from lightning_m2pt.prompt_search.record import SearchRecord
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.soft_prompt import score_of_rows, trained_rows

LOG = logging.getLogger("prompt_words")
CURVE, SWAPS = "curve", "swaps"


def measure_soft(base: Base, seed: int, record: SearchRecord) -> None:
    """Trains free rows under the searches' budget and from their start, and compares promised with true changes.

    Both are in the record once each is done.
    """
    if SOFT in record.measured[TABLE] and SWAPS in record.measured:
        return
    setting, texts = base.setting, base.texts_of(base.searched(seed))
    scorer, start = base.scorer_of(texts), drawn_start(texts, base.allowed.ids, setting.length, seed)
    if SOFT not in record.measured[TABLE]:
        found = trained_rows(scorer, start, setting.budget)
        each = [score_of_rows(one, start, found.rows) for one in scorers_of_samples(base)]
        tokens = base.tokens_of(base.held_out)
        record.measured[TABLE][SOFT] = {
            TEXT: [],
            SEARCHED: found.loss,
            LOSSES: [score.loss * count for score, count in zip(each, tokens, strict=True)],
            RIGHT: [score.accuracy for score in each],
            CURVE: [list(point) for point in found.curve],
        }
        record.write()
        LOG.info("%s, seed %d, free rows: %.4f after %d steps", base.name, seed, found.loss, found.steps)
    if SWAPS not in record.measured:
        scorer.rows = 0
        swaps = single_swaps(scorer, texts, base.allowed.ids, start, setting.swaps, seed)
        interval = swaps.interval()
        record.measured[SWAPS] = {
            "spearman": swaps.rank_correlation(),
            "low": interval.low,
            "high": interval.high,
            "best_within": swaps.best_within(setting.top_k),
            "swaps": len(swaps.true),
            "better": int((swaps.true < 0).sum()),
        }
        record.write()
        LOG.info("%s, seed %d, rank correlation %.3f", base.name, seed, record.measured[SWAPS]["spearman"])


def scorers_of_samples(base: Base) -> list[PromptScorer]:
    """Returns a scorer of each held-out sample by itself."""
    whole = base.scorer_of(base.texts_of(base.held_out))
    return [PromptScorer(whole.backbone, whole.processor, [sample], whole.length) for sample in whole.samples]
