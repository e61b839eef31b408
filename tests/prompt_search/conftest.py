"""The loaded testbed base, once for all tests of searches, and a small language model on disk."""

from tests.support.models.language_model_folder import judge_folder
from tests.support.prompt_searches import split, tuned

__all__ = ["judge_folder", "split", "tuned"]
