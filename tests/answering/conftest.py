"""A small language model on disk."""

from tests.support.models.language_model_folder import judge_folder

__all__ = ["judge_folder"]
