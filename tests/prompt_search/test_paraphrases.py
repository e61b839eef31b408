"""Texts that a language model writes: what it is asked, what of its replies is tried, and what is counted."""

import numpy
import pytest
import torch

from experiments.commands.search_prompt import start_of_text
from lightning_m2pt.answering.local_model import model_fingerprint
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.proposers.base import ScoredPrompt
from lightning_m2pt.prompt_search.proposers.paraphrases import (
    ASKED,
    LEFT_OUT,
    REPLIES,
    Paraphrases,
    Writer,
    WritingModel,
    first_line,
)
from lightning_m2pt.prompt_search.search import SearchTask, run_search, started
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.support.prompt_searches import ready


class Says(WritingModel):
    """Says what it is told to, in turn, and remembers what it was asked."""

    def __init__(self, replies: list[str]) -> None:
        self.said, self.asked, self.seeds = replies, [], []

    def replies(self, prompts, seed=0):
        self.asked += prompts
        self.seeds.append(seed)
        return [self.said[(len(self.asked) - len(prompts) + each) % len(self.said)] for each in range(len(prompts))]


@pytest.fixture
def searched(tuned, split):
    return ready(tuned, split)


def paraphrasing(searched, said, width=4, beam=2):
    texts, allowed, _ = searched
    prompts = WrittenPrompts(texts, allowed, most_tokens=6)
    writer = Writer(None, Says(said))
    return Paraphrases(writer, prompts, "see the image", prompts.read("see the image"), width, beam)


def test_the_best_texts_are_said_in_other_words_and_the_best_reply_is_found(searched, monkeypatch):
    texts, allowed, scorer = searched
    said = ["tell this", '"see the picture"\nIn other words: no', "yes", "see the xylophone", "the image"]
    proposer = paraphrasing(searched, said, width=5)
    assert (proposer.longest, proposer.start((1, 2))) == (6, proposer.first)
    scorer.length, scorer.rows = proposer.longest, 0
    budget = 3 * (scorer.rows_in_front + 4 * scorer.rows_of_prompt)
    states = []
    task = SearchTask(proposer, scorer, texts, allowed.ids, budget, 0)
    run_search(task, started(scorer, proposer.first), states.append)
    read = proposer.prompts.read
    tried = {read(text) for text in ("tell this", "see the picture", "the image")} | {proposer.first}
    losses = {prompt: scorer.reference_loss(prompt) for prompt in tried}
    first = states[0]
    assert first.best == min(losses, key=losses.get)
    assert first.memory[REPLIES] == 5
    assert first.memory[LEFT_OUT] == {
        "it has a word of answers": 1,
        "it has a word that the model does not know, or a special token": 1,
    }
    asked = proposer.writer.model.asked
    assert asked[:5] == [ASKED.format(text="see the image")] * 5
    best = sorted(losses, key=losses.get)[:2]  # the next round asks for other words for the two best, 3 and 2 replies
    assert asked[5:10] == [ASKED.format(text=texts.words(best[0]))] * 3 + [ASKED.format(text=texts.words(best[1]))] * 2
    assert states[1].memory[REPLIES] == 10
    assert states[1].memory[LEFT_OUT]["it has a word of answers"] == 2
    assert len(set(proposer.writer.model.seeds)) == len(proposer.writer.model.seeds)


def test_draws_hang_on_the_round_s_generator_alone(searched):
    proposer = paraphrasing(searched, ["tell this"], width=40)
    from lightning_m2pt.prompt_search.state import SearchState

    state = SearchState(proposer.first, 1.0, proposer.first, 1.0, 0)
    seeds = []
    for number in (1, 1, 2):
        proposer.writer.model.seeds = []
        proposed, _ = proposer.propose(state, None, (), numpy.random.default_rng(number))
        seeds.append(proposer.writer.model.seeds)
        assert proposed == [proposer.prompts.read("tell this")] * 40
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(set(seeds[0])) == 3  # sixteen at once, each sixteen by a seed of their own
    after = proposer.accept(state, [ScoredPrompt((1,), 2.0), ScoredPrompt((2,), 0.5), ScoredPrompt((3,), 3.0)])
    assert (after.current, after.current_loss) == ((2,), 0.5)
    texts_kept = [tuple(prompt) for prompt, _ in after.memory["beam"]]
    assert texts_kept == [(2,), proposer.first]


@pytest.mark.parametrize(
    ("reply", "line"),
    [("a b\nc", "a b"), ("\n  'a b'  \n", "a b"), ("“a”", "a"), ("", ""), ("\n\n", ""), ("a 'b' c", "a 'b' c")],
)
def test_a_reply_s_first_line_counts(reply, line):
    assert first_line(reply) == line


def test_a_model_from_disk_draws_by_its_seed_and_leaves_the_global_generator_alone(judge_folder):
    writer = Writer(judge_folder)
    writer.check()
    with pytest.raises(ValueError, match="not loaded"):
        writer.other_words("see the image", 2, 0)
    settings = Paraphrases(writer, None, "see", (1,), width=4, beam=2).settings()
    assert settings == {
        "proposer": "model",
        "model": model_fingerprint(judge_folder),
        "text": "see",
        "width": 4,
        "beam": 2,
    }
    writer.load(torch.device("cpu"))
    assert writer.model.model.generation_config.do_sample
    assert writer.model.model.generation_config.temperature == 1.0  # and not the folder's own 5
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    replies = [writer.model.replies([ASKED.format(text="see the image")] * 3, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert replies[0] == replies[1] != replies[2]
    assert len(set(replies[0])) == 3
    assert all(len(word_tokenizer().tokenize(reply)) <= WritingModel.max_new_tokens for reply in replies[0])


def test_what_is_no_model_is_refused_before_weights_load(tmp_path):
    with pytest.raises(BadInputError, match="the writing model's folder does not exist"):
        Writer(tmp_path / "none").check()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BadInputError, match="pickles"):
        Writer(tmp_path).check()


@pytest.mark.parametrize(("text", "may_be_allowed"), [("see the xylophone", False), ("see yes", True)])
def test_a_start_that_cannot_be_read_says_what_would_help(searched, text, may_be_allowed):
    texts, allowed, _ = searched
    with pytest.raises(BadInputError) as refused:
        start_of_text(WrittenPrompts(texts, allowed, most_tokens=6), text)
    assert ("--answer-words" in refused.value.hint) is may_be_allowed
