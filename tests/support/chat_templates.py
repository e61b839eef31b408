"""Chat templates in the forms of model families, each written for the tests, and tokenizers that know their signs.

``PARTS`` take a message's content as a list of parts, as processors of text and pictures do.
"""

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lightning_m2pt.inputs.chat_template import ChatTemplate

CHATML = (
    "{%- for message in messages %}"
    "{%- if loop.first and message.role != 'system' %}{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{%- endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
THINKING = (
    "{%- for message in messages %}"
    "{%- set content = message.content.split('</think>')[-1].lstrip('\n') %}"
    "{%- if message.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + content + '<|im_end|>\n' }}"
    "{%- else %}{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)
QWEN3 = THINKING + (
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
ALWAYS_THINKING = THINKING + "{%- endif %}"
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}"
    "{% if loop.index0 == 0 and system %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{- bos_token }}"
    "{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + day + '\n\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content | trim }}{%- endif %}{{- '<|eot_id|>' }}"
    "{%- for message in messages if message.role != 'system' %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = (
    "{%- set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{%- set rest = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{%- set users = rest | selectattr('role', 'equalto', 'user') | list %}{{ bos_token }}"
    "{%- for message in rest %}"
    "{%- if message.role == 'user' %}"
    "{%- if system and message.content == users[-1].content and loop.index0 >= rest | length - 2 %}"
    "{{ '[INST] ' + system + '\n\n' + message.content + '[/INST]' }}"
    "{%- else %}{{ '[INST] ' + message.content + '[/INST]' }}{%- endif %}"
    "{%- else %}{{ ' ' + message.content | trim + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAVA = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS3 = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN2_VL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><image><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = {
    "chatml": CHATML,
    "qwen3": QWEN3,
    "always_thinking": ALWAYS_THINKING,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi3": PHI3,
    "zephyr": ZEPHYR,
}
PARTS = {"llava": LLAVA, "idefics3": IDEFICS3, "qwen2_vl": QWEN2_VL}
ENDS = {
    **dict.fromkeys(("chatml", "qwen3", "always_thinking", "qwen2_vl"), "<|im_end|>"),
    **dict.fromkeys(("llama2", "mistral", "zephyr", "llava"), "</s>"),
    **{"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi3": "<|end|>", "idefics3": "<end_of_utterance>"},
}
"""The token that ends an answer in each of them."""

SIGNS = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|start_header_id|>"]
SIGNS += ["<|end_header_id|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<image>", "<|vision_start|>"]
SIGNS += ["<|vision_end|>", "<end_of_utterance>"]
WORDS = "What color is the red car? It is blue. USER: ASSISTANT: [INST] yes no 7 12 user assistant model system\n"


def in_form(name: str) -> ChatTemplate:
    """Returns one of the templates as a model brings it."""
    of_processor = name in PARTS
    return ChatTemplate({**TEXT, **PARTS}[name], f"{name}.jinja", of_processor, "<image>" if of_processor else "")


def chat_tokenizer(form: str = "bytes", begins: bool = True) -> PreTrainedTokenizerFast:
    """Returns a trained tokenizer of a few words that reads every text and knows the signs of all templates.

    Args:
        form: ``bytes`` as GPT-2 and its kin, ``pieces`` as Llama, which puts a word mark in front of every part.
        begins: Whether it begins its texts with ``<s>``.
    """
    backend = Tokenizer(models.BPE(unk_token=None if form == "bytes" else "<unk>", byte_fallback=form == "pieces"))
    base = ["<unk>", "<s>", "</s>"]
    settings: dict[str, Any] = {"special_tokens": base, "vocab_size": 700, "show_progress": False}
    if form == "bytes":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        settings["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        settings["special_tokens"] = [*base, *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator([WORDS * 4, *WORDS.split()], trainers.BpeTrainer(**settings))
    if begins:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SIGNS})
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer
