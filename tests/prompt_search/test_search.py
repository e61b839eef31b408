"""Searched prompts: scores are the training loss of the rendered text, and proposers do what they say."""

import json
from dataclasses import replace

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.allowed_tokens import allowed_tokens
from lightning_m2pt.prompt_search.gradient import linearised_changes
from lightning_m2pt.prompt_search.proposers.base import promising_tokens
from lightning_m2pt.prompt_search.proposers.known import proposer_named
from lightning_m2pt.prompt_search.recomputed import loss_in_template
from lightning_m2pt.prompt_search.record import found_record, prompt_file, record_path
from lightning_m2pt.prompt_search.search import SearchTask, run_search, started
from lightning_m2pt.prompt_search.state import SearchState
from tests.support.prompt_searches import SAMPLES, drawn, ready


@pytest.mark.parametrize(
    ("template", "position", "shares"),
    [
        ("vicuna_v1", "behind_question", True),
        ("vicuna_v1", "before_question", True),
        ("vicuna_v1", "system", False),
        ("plain", "behind_question", True),
    ],
)
def test_scores_are_the_loss_of_the_file_s_text(tuned, split, tmp_path, template, position, shares):
    from lightning_m2pt.inputs.named_templates import read_prompt

    texts, allowed, scorer = ready(tuned, split, template, position)
    prompts = drawn(allowed, 12)
    assert scorer.shares == shares
    found = scorer.mean_losses(prompts)
    assert scorer.rows == scorer.rows_in_front + 12 * scorer.rows_of_prompt
    for prompt, loss in list(zip(prompts, found, strict=True))[::5]:
        (tmp_path / "p.yaml").write_bytes(prompt_file(texts.words(prompt), position, texts.template))
        worded = read_prompt(tmp_path / "p.yaml").on(texts.template)
        again = loss_in_template(tuned.model.backbone, texts.processor, split[:SAMPLES], worded)
        assert loss == pytest.approx(again, rel=1e-5)
    assert len(set(found)) > 6


def test_shared_rows_give_the_reference_s_losses_sample_by_sample(tuned, split):
    _, allowed, scorer = ready(tuned, split)
    prompts = drawn(allowed, 30)
    found = scorer.losses(prompts)
    for number in (0, 17, 29):
        expected = scorer.whole_losses(scorer.samples, prompts[number])
        torch.testing.assert_close(found[number], expected, rtol=1e-5, atol=1e-5)


def test_words_of_answers_and_signs_are_not_allowed(tuned, split):
    texts, allowed, _ = ready(tuned, split)
    words = {texts.words((number,)) for number in allowed.ids}
    assert not words & {"yes", "no", "red", "</s>", "<s>", "<unk>", "<pad>"}
    assert "yes" in {texts.words((number,)) for number in allowed_tokens(texts, split, answer_words=True).ids}


def test_prompts_that_are_read_otherwise_are_no_survivors(tuned, split, monkeypatch):
    texts, allowed, _ = ready(tuned, split)
    first, second, third = allowed.ids[:3]
    word = texts.words
    # As a tokenizer does that joins two tokens: this text is read as other tokens than were written.
    monkeypatch.setattr(texts, "words", lambda prompt: word((third,) if prompt == (first, second) else prompt))
    assert texts.survivors([(first, second), (second, first)]) == [(second, first)]


def test_the_gradient_is_that_of_the_mean_loss_over_all_samples(tuned, split):
    _, allowed, scorer = ready(tuned, split)
    present = {number for each in scorer.samples for number in each.opened.text.input_ids.tolist()}
    prompt = tuple(number for number in allowed.ids if number not in present)[:2]
    embedding, gradient = tuned.model.backbone.token_embedding(), scorer.gradient(prompt)
    direction = torch.randn(embedding.weight.shape[1], generator=torch.Generator().manual_seed(0))

    def moved(by: float) -> float:
        """The loss with the rows of the prompt's first token moved, wherever it stands."""
        hook = embedding.register_forward_hook(
            lambda _module, given, rows: rows + by * direction * (given[0] == prompt[0])[..., None]
        )
        try:
            return scorer.reference_loss(prompt)
        finally:
            hook.remove()

    slope = (moved(1e-3) - moved(-1e-3)) / 2e-3
    assert slope == pytest.approx(float(gradient[0] @ direction), rel=0.02)


def test_promising_tokens_lower_the_linearised_loss_most(tuned, split):
    _, allowed, scorer = ready(tuned, split)
    (prompt,) = drawn(allowed, 1)
    found = promising_tokens(prompt, scorer, allowed.ids, 5)
    changes = linearised_changes(scorer.gradient(prompt), scorer.rows_of(allowed.ids), scorer.rows_of(prompt))
    for place, row in enumerate(changes.tolist()):
        ranked = sorted(
            (change, token) for change, token in zip(row, allowed.ids, strict=True) if token != prompt[place]
        )
        assert found[place].tolist() == [token for _, token in ranked[:5]]


def test_exhaustive_is_brute_force_and_never_rises(tuned, split):
    texts, allowed, scorer = ready(tuned, split, length=1)
    few = allowed.ids[:12]
    losses = dict(zip(few, scorer.mean_losses([(token,) for token in few]), strict=True))
    state = started(scorer, (few[3],))
    task = SearchTask(proposer_named("exhaustive", 1, 1, 1), scorer, texts, few, 10**9, 0)
    end = run_search(task, state, lambda _: None)
    assert end.best == (min(losses, key=losses.get),)
    assert end.best_loss == pytest.approx(min(losses.values()), rel=1e-6)
    assert end.ended == "no other word in any place is better"
    assert [loss for _, loss in end.curve] == sorted((loss for _, loss in end.curve), reverse=True)


@pytest.mark.parametrize("name", ["random", "autoprompt", "gcg", "beam", "pez", "reinforce"])
def test_a_stopped_search_goes_on_as_it_would_have(tuned, split, name):
    texts, allowed, scorer = ready(tuned, split)
    proposer, states = proposer_named(name, 6, 4, 2), []
    scorer.rows = 0
    first = started(scorer, drawn(allowed, 1)[0])
    budget = 4 * (proposer.gradients * scorer.rows_of_gradient + scorer.rows_in_front + 8 * scorer.rows_of_prompt)
    task = SearchTask(proposer, scorer, texts, allowed.ids, budget, 0)
    end = run_search(task, first, states.append)
    assert end.ended == "the budget is spent"
    assert scorer.rows == end.rows <= budget
    assert end.best_loss <= first.best_loss
    middle = type(end).from_json(json.loads(json.dumps(states[1].to_json())))
    assert run_search(task, middle, lambda _: None) == end


def test_a_round_that_the_budget_cuts_short_settles_nothing_and_is_made_again(tuned, split):
    """The best word stands last: a cut round does not see it, and must not say that no word is better."""
    texts, allowed, scorer = ready(tuned, split, length=1)
    few = allowed.ids[:12]
    losses = dict(zip(few, scorer.mean_losses([(token,) for token in few]), strict=True))
    ranked = sorted(losses, key=losses.get)
    words = [ranked[1], *ranked[2:], ranked[0]]  # the start has no better word before the last one
    scorer.rows = 0
    first = started(scorer, (ranked[1],))
    budget = scorer.rows + scorer.rows_in_front + 6 * scorer.rows_of_prompt
    task = SearchTask(proposer_named("exhaustive", 1, 1, 1), scorer, texts, words, budget, 0)
    cut = run_search(task, first, lambda _: None)
    assert (cut.ended, cut.best, cut.scored, cut.rows) == ("the budget is spent", (ranked[1],), 7, budget)
    again = SearchTask(task.proposer, scorer, texts, words, 10**9, 0)
    whole = run_search(again, replace(cut, ended=""), lambda _: None)
    assert (whole.best, whole.ended) == ((ranked[0],), "no other word in any place is better")
    cut_by_one = run_search(replace(task, budget=budget - 1), first, lambda _: None)
    assert (cut_by_one.scored, cut_by_one.rows) == (6, budget - scorer.rows_of_prompt)


def test_gcg_goes_on_from_the_round_s_best_and_autoprompt_from_the_better_alone(tuned, split):
    from lightning_m2pt.prompt_search.proposers.base import ScoredPrompt

    state, worse = SearchState((1, 2), 1.0, (1, 2), 1.0, 0), [ScoredPrompt((1, 3), 1.5), ScoredPrompt((4, 2), 1.2)]
    assert proposer_named("gcg", 2, 2, 2).accept(state, worse).current == (4, 2)
    assert proposer_named("autoprompt", 2, 2, 2).accept(state, worse).current == (1, 2)
    assert proposer_named("autoprompt", 2, 2, 2).accept(state, [ScoredPrompt((5, 2), 1.0)]).current == (1, 2)
    assert proposer_named("random", 2, 2, 2).accept(state, [ScoredPrompt((5, 2), 0.9)]).current == (5, 2)


def test_a_record_of_another_search_is_refused(tmp_path):
    record = found_record(tmp_path / "p.json", {"seed": 0})
    record.write()
    assert found_record(tmp_path / "p.json", {"seed": 0}).states == {}
    with pytest.raises(BadInputError, match="seed is 0, and 1 now"):
        found_record(tmp_path / "p.json", {"seed": 1})
    with pytest.raises(BadInputError, match="width is None, and 3 now"):
        found_record(tmp_path / "p.json", {"seed": 0, "width": 3})
    with pytest.raises(BadInputError, match=r"ends in \.yaml"):
        record_path(tmp_path / "p.txt")


def test_a_record_whose_numbers_were_changed_is_refused_and_an_older_one_goes_on(tmp_path):
    record = found_record(tmp_path / "p.json", {})
    record.states["random"] = SearchState((1, 2), 0.5, (1, 2), 0.5, 12, curve=((12, 0.5),))
    record.write()
    content = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps(content))  # laid out otherwise
    assert found_record(tmp_path / "p.json", {}).states == record.states
    content["states"]["random"]["best"] = [1, 3]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="not those that the search wrote"):
        found_record(tmp_path / "p.json", {})
    del content["sha256"]
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert found_record(tmp_path / "p.json", {}).states["random"].best == (1, 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", "12"),
        ("rows", -1),
        ("round", 1.5),
        ("moves", True),
        ("best", []),
        ("best_loss", "0.5"),
        ("current_loss", None),
        ("memory", [1]),
        ("ended", 0),
    ],
)
def test_a_record_with_other_values_is_no_record(key, value, tmp_path):
    record = found_record(tmp_path / "p.json", {})
    record.states["random"] = SearchState((1, 2), 0.5, (1, 2), 0.5, 12)
    record.write()
    assert found_record(tmp_path / "p.json", {}).states == record.states
    content = json.loads((tmp_path / "p.json").read_text())
    content["states"]["random"][key] = value
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(BadInputError, match="no record of a search"):
        found_record(tmp_path / "p.json", {})
