"""The embedded backbone's word-level tokenizer: lower case, punctuation and digits by themselves."""

import re
from string import Formatter

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from experiments.testbed.asking import TRUE_FALSE, YES_NO
from experiments.testbed.evaluation_questions import EVALUATION_PHRASINGS
from experiments.testbed.questions import QUESTION_TYPES
from experiments.testbed.vocabulary import COLOURS, COLUMNS, NAMES, NOTHING, ROWS, SIZES
from lightning_m2pt.inputs.named_templates import PUBLISHED

UNKNOWN, BEGINNING, END, PADDING = "<unk>", "<s>", "</s>", "<pad>"
SPECIAL_TOKENS = (UNKNOWN, BEGINNING, END, PADDING)
OFFICIAL_PROMPTS = (
    "Please answer yes or no.",
    "Answer the question using a single word or phrase.",
    "Is there an object in the image?",
    "Is this statement true?",
    "Answer with the option's letter from the given choices directly. Options: (a) (b) (c) (d)",
    "not sure",
    "it is possible to tell, maybe",
)
"""Words of official evaluation prompts that the world's own text does not have."""
PUNCTUATION = ".,:;?!'\"()-/"
CHARACTERS = "0123456789"


def vocabulary_texts() -> list[str]:
    """Returns texts that together hold every word the tokenizer must know."""
    texts = [" ".join(words) for words in (NAMES, COLOURS, SIZES, ROWS, COLUMNS, YES_NO, TRUE_FALSE)]
    texts += [NOTHING, "a an left right of above below higher lower leftmost rightmost", *OFFICIAL_PROMPTS]
    texts += [_without_slots(phrasing.text) for kind in QUESTION_TYPES for phrasing in kind.phrasings]
    texts += [_without_slots(phrasing) for phrasing in EVALUATION_PHRASINGS]
    for template in PUBLISHED:
        texts += [template.system, template.before_question, template.before_answer]
    return texts


def vocabulary_words() -> list[str]:
    """Returns the tokens in the order of their ids: special ones, characters, then words by the alphabet."""
    words = set(re.findall(r"[a-z]+", " ".join(vocabulary_texts()).lower()))
    return [*SPECIAL_TOKENS, *PUNCTUATION, *CHARACTERS, *sorted(words)]


def build_tokenizer(maximum_positions: int) -> PreTrainedTokenizerFast:
    """Builds the tokenizer.

    Args:
        maximum_positions: The longest sequence the language model takes.

    Returns:
        A tokenizer that puts ``<s>`` in front when asked for special tokens, as Llama's does. Decoding joins words
        with spaces: ``small red ring top left , large blue bar bottom right``.
    """
    words = vocabulary_words()
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGINNING} $A", special_tokens=[(BEGINNING, words.index(BEGINNING))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        bos_token=BEGINNING,
        eos_token=END,
        pad_token=PADDING,
        padding_side="right",
        model_max_length=maximum_positions,
        clean_up_tokenization_spaces=False,
    )


def _without_slots(phrasing: str) -> str:
    return " ".join(text for text, *_ in Formatter().parse(phrasing))
