"""A tokenizer of a few words and a processor of small pictures, without files."""

from typing import TYPE_CHECKING

from lightning_m2pt.inputs.processing import Processor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
WORDS = ["A", "a", "the", "yes", "no", "Yes", "No", "it", "is", "user", "USER", "ASSISTANT", "Question", "Answer", ":"]
WORDS += ["?", ".", ",", "what", "color", "red", "blue"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def word_tokenizer(add_bos: bool = True, bos: bool = True) -> "PreTrainedTokenizerFast":
    """Returns a tokenizer whose tokens are words without spaces; unknown words are <unk>, so every text works."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def small_processor(image_size: int = 24) -> Processor:
    """Returns a processor with the tiny tokenizer and small pictures."""
    return Processor(word_tokenizer(), image_size, CLIP_MEAN, CLIP_STD)
