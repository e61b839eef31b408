"""Colours and words of attention figures: Okabe and Ito's palette, which colour-blind readers can tell apart."""

from lightning_m2pt.inputs.batch import Span

SPAN_COLOURS = {
    Span.LEARNED_KEY: "#56B4E9",
    Span.TEXTUAL_PROMPT: "#D55E00",
    Span.VISUAL_PROMPT: "#CC79A7",
    Span.CLS: "#000000",
    Span.PATCH: "#0072B2",
    Span.LINE_END: "#7F4F24",
    Span.IMAGE: "#F0E442",
    Span.SYSTEM: "#999999",
    Span.QUESTION: "#009E73",
    Span.ANSWER: "#E69F00",
}
SPAN_WORDS = {
    Span.LEARNED_KEY: "learned keys",
    Span.TEXTUAL_PROMPT: "textual prompts",
    Span.VISUAL_PROMPT: "visual prompts",
    Span.CLS: "CLS",
    Span.PATCH: "patches",
    Span.LINE_END: "line ends",
    Span.IMAGE: "around pictures",
    Span.SYSTEM: "system",
    Span.QUESTION: "question",
    Span.ANSWER: "answer",
}
