"""Grammars: their sentences by number, what no grammar is, and the search through one."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.grammar import Grammar, read_grammar, shipped_grammars
from lightning_m2pt.prompt_search.proposers import grammar_sentences
from lightning_m2pt.prompt_search.proposers.grammar_sentences import GrammarSentences
from lightning_m2pt.prompt_search.search import SearchTask, run_search, started
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts
from tests.support.prompt_searches import ready

SMALL = Grammar(
    ("see the {what}.", "{please} tell {what} {please}"), {"what": ("image", "color"), "please": ("", "do")}
)


def test_sentences_are_numbered_with_the_last_place_turning_first():
    assert SMALL.size == 2 + 2 * 2 * 2
    assert [SMALL.sentence(number) for number in range(SMALL.size)] == [
        "see the image.",
        "see the color.",
        "tell image",
        "tell image do",
        "tell color",
        "tell color do",
        "do tell image",
        "do tell image do",
        "do tell color",
        "do tell color do",
    ]
    with pytest.raises(ValueError, match="not so many"):
        SMALL.sentence(10)
    assert SMALL.digest() != Grammar(SMALL.sentences, {**SMALL.words, "please": ("", "so")}).digest()


@pytest.mark.parametrize("name", shipped_grammars())
def test_shipped_grammars_make_sentences(name):
    grammar = read_grammar(name)
    made = {grammar.sentence(number) for number in range(grammar.size)}
    assert len(made) == grammar.size > 50
    assert not any(sign in text for text in made for sign in "{}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sentences: ['a {b}']\nwords: {}", "'b' has no words"),
        ("sentences: [a, c]\nwords: {b: [x]}", "'b' stands in no sentence"),
        ("sentences: [a]", "makes 1 sentences"),
        ("sentences: []", "no list of texts"),
        ("sentences: a", "no list of texts"),
        ("sentences: [1, 2]", "no list of texts"),
        ("sentences: ['a {', b]", "a brace that is no place"),
        ("sentences: ['{b}', c]\nwords: {b: ['{b}', x]}", "a brace that is no place"),
        ("sentences: ['{b}', c]\nwords: {b: []}", "no list of texts"),
        ("sentences: ['{b}', c]\nwords: [b]", "no list of places"),
        ("sentences: [a, b]\nwords: {}\nverbs: [x]", "has no 'verbs'"),
        (f"sentences: [{'a' * 2001}, b]", "2,001 letters"),
        ("sentences: ['" + "{b}" * 60 + "']\nwords: {b: [x, y]}", "makes 1,152,921,504,606,846,976 sentences"),
        ("- a", "x.yaml"),
        ("sentences: [a, *b]", "x.yaml"),
    ],
)
def test_what_is_no_grammar_is_refused(tmp_path, content, said):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(BadInputError, match="(?s)" + said):
        read_grammar(str(tmp_path / "x.yaml"))


def test_a_grammar_that_is_not_there_is_refused(tmp_path):
    for word in ("verbs", str(tmp_path / "x.yaml")):
        with pytest.raises(BadInputError):
            read_grammar(word)


@pytest.fixture
def searched(tuned, split):
    return ready(tuned, split)


def test_texts_become_the_tokens_that_are_read_of_them(searched):
    texts, allowed, _ = searched
    prompts = WrittenPrompts(texts, allowed, most_tokens=4)
    see = prompts.read("  see the\nimage. ")
    assert texts.words(see) == "see the image ."
    assert texts.survivors([see]) == [see]
    assert prompts.read("see the xylophone") == "it has a word that the model does not know, or a special token"
    assert prompts.read("answer yes") == "it has a word of answers"
    assert prompts.read("see the image. see") == "it has more than 4 tokens"
    for text in ("", " ", "see {question}", "see <image>", "see\x07"):
        assert prompts.read(text) == "it cannot be written in a prompt's file"
    assert isinstance(prompts.read("see </s>"), str)
    texts.max_text_length = max(len(each) for each in texts.untouched) + 2
    assert WrittenPrompts(texts, allowed).read("see the image") == "a conversation becomes too long with it"
    assert len(WrittenPrompts(texts, allowed).read("see image")) == 2


def test_a_grammar_is_gone_through_once_and_its_best_sentence_is_found(searched):
    texts, allowed, scorer = searched
    grammar = Grammar(("see the {what}.", "tell the {what}", "say {what}"), {"what": ("image", "color", "yes", "tree")})
    proposer = GrammarSentences(grammar, WrittenPrompts(texts, allowed), width=2, seed=0)
    assert len(proposer.sentences) == 4
    assert proposer.longest == 4
    assert sum(proposer.left_out.values()) == 8
    assert proposer.settings() == GrammarSentences(grammar, WrittenPrompts(texts, allowed), width=2, seed=1).settings()
    scorer.length, scorer.rows = proposer.longest, 0
    seen = []
    task = SearchTask(proposer, scorer, texts, allowed.ids, 10**9, 0)
    end = run_search(task, started(scorer, proposer.start((1, 2))), seen.append)
    assert end.ended == "all 4 sentences were tried"
    assert end.scored == 4
    losses = {prompt: scorer.reference_loss(prompt) for prompt in proposer.sentences}
    assert end.best == min(losses, key=losses.get)
    assert end.best_loss == pytest.approx(min(losses.values()), rel=1e-5)
    lengths = [len(prompt) for prompt in proposer.sentences]
    assert len(set(lengths)) == 2
    # Rows of each length by itself: the first sentence, then a round of two and one of one.
    assert end.rows == 3 * scorer.rows_in_front + sum(map(scorer.rows_added, lengths))
    assert [state.round for state in seen] == [1, 2, 2]


def test_a_large_grammar_is_sampled(searched, monkeypatch):
    texts, allowed, _ = searched
    monkeypatch.setattr(grammar_sentences, "MOST_IN_ORDER", 30)
    words = ("see", "the", "image", "tell", "is", "this")
    grammar = Grammar(("{w} {w} {w}",), {"w": words})
    sampled = [GrammarSentences(grammar, WrittenPrompts(texts, allowed), 2, seed).sentences for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert 2 <= len(sampled[0]) <= 30
    assert len(set(sampled[0])) == len(sampled[0])
    with pytest.raises(BadInputError, match="1 sentences of the grammar can be tried"):
        GrammarSentences(Grammar(("see {w}",), {"w": ("image", "yes")}), WrittenPrompts(texts, allowed), 2, 0)


def test_prompts_of_several_lengths_share_rows_and_lose_what_each_loses_alone(searched):
    _, allowed, scorer = searched
    ids = allowed.ids
    prompts = [(ids[3],), (ids[5], ids[9], ids[2]), (ids[4], ids[1]), (ids[8],)]
    scorer.rows = 0
    found = scorer.losses(prompts)
    assert scorer.rows == scorer.rows_in_front + sum(scorer.rows_added(len(prompt)) for prompt in prompts)
    for prompt, losses in zip(prompts, found, strict=True):
        expected = scorer.whole_losses(scorer.samples, prompt)
        assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)
    front = scorer.rows_in_front + scorer.rows_added(1)
    assert scorer.paid_for(prompts, front - 1) == []
    assert scorer.paid_for(prompts, front) == prompts[:1]
    assert scorer.paid_for(prompts, front + scorer.rows_added(3) - 1) == prompts[:1]
    assert scorer.paid_for(prompts, 10**9) == prompts
