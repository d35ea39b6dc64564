"""What an update learns from: what may be replayed, what fits, who plays beside whom, what a mean is taken over."""

from dataclasses import replace

import numpy as np
import pytest

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner.batch import marked, played
from opcd_agents.learner.contexts import Drawn, Fixed
from opcd_agents.learner.distill import Subject, distill
from opcd_agents.learner.parallel import Alone
from opcd_agents.learner.replay import check_stored, replayed
from opcd_agents.learner.rows import Room
from opcd_agents.learner.teachers import Frozen
from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.render import Renderer
from opcd_agents.rollout import play
from opcd_agents.runs import RunFolder

from .conftest import tiny
from .test_distill import CONTEXT, TASKS, PlainHouse
from .test_recipes import SMALL, SOLVED, Fickle


def player(tokenizer, renderer, **named):
    return HuggingFacePolicy(tiny(len(tokenizer), **named), renderer, "tiny", longest=4)


def lines_of(tokenizer, renderer, subject, recipe, folder, **named):
    run = RunFolder.create(folder, {})
    distill(player(tokenizer, renderer), subject, recipe, run, seed=3, **named)
    return list(run.metrics())


@pytest.mark.parametrize("informed", [False, True])
def test_slots_change_nothing(tokenizer, renderer, informed):
    """Refilled as episodes end: of different lengths, with contexts of their own, in any number at a time."""
    policy = player(tokenizer, renderer)
    contexts = Drawn((CONTEXT, "Notes: coin Hall."))

    def dealt(slots):
        recipe = replace(SMALL, episodes=9, slots=slots)
        room, rng = Room.of(policy, None, recipe), np.random.default_rng(0)
        return played(policy, SOLVED, Fickle, contexts, recipe, rng, Alone(), room, informed=informed)

    assert len({len(e.turns) for e, _ in dealt(64)}) > 1

    def said(slots):
        return [(e.task, [t.sampled_ids for t in e.turns], e.outcome, text) for e, text in dealt(slots)]

    assert said(1) == said(2) == said(5) == said(64)


class Watched(PlainHouse):
    """Counts how many are open at a time."""

    open_now, most = 0, 0

    def reset(self, **named):
        Watched.open_now += 1
        Watched.most = max(Watched.most, Watched.open_now)
        return super().reset(**named)

    def close(self):
        Watched.open_now -= 1


def test_no_more_episodes_at_a_time_than_slots(tokenizer, renderer, tmp_path):
    subject = Subject(TASKS, TASKS, Watched, Fixed(CONTEXT))
    recipe = replace(SMALL, updates=1, episodes=8, slots=3, validate=1, validation_episodes=6)
    lines_of(tokenizer, renderer, subject, recipe, tmp_path / "run")
    assert Watched.most == 3
    assert Watched.open_now == 0


def test_replies_are_replayed_by_slots(tokenizer, renderer):
    policy = player(tokenizer, renderer)
    stored = play(policy, TASKS[:3], PlainHouse)

    def said(slots):
        recipe = replace(SMALL, rollouts="replay", episodes=7, slots=slots)
        rng, room = np.random.default_rng(0), Room.of(policy, None, recipe)
        found = replayed(policy, stored, Fixed(CONTEXT), recipe, rng, Alone(), room)
        return [(len(e.turns), e.turns[-1].sampled_ids) for e, _ in found]

    assert said(2) == said(64)


def never(task):
    raise AssertionError("an environment was made")


@pytest.mark.parametrize("rollouts", ["play", "replay"])
def test_a_context_that_leaves_no_room_is_refused_before_anything_is_sampled(
    tokenizer, renderer, tmp_path, monkeypatch, rollouts
):
    stored = play(player(tokenizer, renderer), TASKS[:3], PlainHouse)
    monkeypatch.setattr("opcd_agents.policies.huggingface._sample", never)
    monkeypatch.setattr(PlainHouse, "reset", never)
    whole = len(renderer.opening(CONTEXT, "")) + SMALL.longest
    network = tiny(len(tokenizer))
    network.config.max_position_embeddings = whole - 1
    policy = HuggingFacePolicy(network, renderer, "tiny")
    subject = Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT), stored=stored)
    with pytest.raises(ModelError, match=rf"at most {whole - 1} ids.* longest"):
        distill(policy, subject, replace(SMALL, rollouts=rollouts), RunFolder.create(tmp_path / "run", {}))


def test_a_teacher_with_fewer_positions_is_heeded(tokenizer, renderer, tmp_path, monkeypatch):
    def other(_name):
        network = tiny(len(tokenizer), seed=5)
        network.config.max_position_embeddings = 12
        return network

    policy = player(tokenizer, renderer)
    assert Room.of(policy, Frozen(other("")), SMALL).most == 12
    assert Room.of(policy, None, SMALL).most == policy.network.config.max_position_embeddings
    monkeypatch.setattr(PlainHouse, "reset", never)
    subject = Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT))
    for teacher in ("another", "0.5 frozen + 0.5 another"):
        with pytest.raises(ModelError, match="at most 12 ids"):
            lines_of(tokenizer, renderer, subject, replace(SMALL, teacher=teacher), tmp_path / teacher[:2], load=other)


def test_room_is_measured_with_the_prompt(tokenizer, renderer):
    bare, held = renderer.opening(None, ""), renderer.opening(CONTEXT, "")
    room = Room(renderer, len(held) + 10 + 4, 4)
    room.check(CONTEXT)
    room.check(CONTEXT, [*bare, *range(10)])
    with pytest.raises(ModelError, match=f"would make them {len(held) + 11 + 4} with a reply of 4"):
        room.check(CONTEXT, [*bare, *range(11)])
    Room(renderer, None, 4).check(CONTEXT * 1000)


def test_stored_episodes_of_another_tokenizer_are_refused(tokenizer, renderer):
    other = train_tokenizer(["A quite different text, of other words entirely."] * 6, len(tokenizer))
    stored = play(player(tokenizer, Renderer(other), seed=3), TASKS[:2], PlainHouse)
    check_stored(stored, Renderer(other), SMALL)  # the first turn happens to read alike in both
    with pytest.raises(UsageError, match="of 'tiny' whose turn 2 has ids that do not stand for its reply"):
        check_stored(stored, renderer, SMALL)


def test_stored_episodes_must_follow_as_they_are_replayed(tokenizer, renderer, tmp_path):
    """Turns rendered afresh are no continuation of a row; rendering afresh what was appended loses nothing."""
    afresh = Renderer(tokenizer, "per_turn")
    grown, anew = (play(player(tokenizer, one), TASKS[:2], PlainHouse, context=CONTEXT) for one in (renderer, afresh))
    check_stored(grown, renderer, SMALL)
    check_stored(grown, afresh, SMALL)
    check_stored(anew, afresh, SMALL)
    with pytest.raises(UsageError, match="turn 2 does not follow the one before as history = 'append' has it"):
        check_stored(anew, renderer, SMALL)
    subject = Subject([], [], PlainHouse, Fixed(CONTEXT), stored=anew)
    with pytest.raises(UsageError, match="does not follow"):
        lines_of(tokenizer, renderer, subject, replace(SMALL, rollouts="replay"), tmp_path / "run")


def test_importance_wants_log_probabilities_of_what_is_stored(tokenizer, renderer):
    stored = [
        replace(e, turns=tuple(replace(t, logprobs=()) for t in e.turns))
        for e in play(player(tokenizer, renderer), TASKS[:2], PlainHouse)
    ]
    check_stored(stored, renderer, SMALL)
    with pytest.raises(UsageError, match="no log-probabilities, which importance wants"):
        check_stored(stored, renderer, replace(SMALL, importance=2.0))


def test_words_of_doubt_are_counted_in_new_replies_only(tokenizer, renderer, tmp_path):
    ids = tuple(renderer.reply("maybe maybe perhaps"))
    stored = [
        replace(
            e,
            turns=tuple(
                replace(
                    t,
                    reply=renderer.text(ids),
                    sampled_ids=ids,
                    logprobs=(-1.0,) * len(ids),
                    prompt_ids=tuple(renderer.following(ids, t.observation)) if n else t.prompt_ids,
                )
                for n, t in enumerate(e.turns)
            ),
        )
        for e in play(player(tokenizer, renderer), TASKS[:3], PlainHouse)
    ]
    subject = Subject([], [], PlainHouse, Fixed(CONTEXT), stored=stored)
    recipe = replace(SMALL, rollouts="replay", updates=2, episodes=6, longest=2)
    for line in lines_of(tokenizer, renderer, subject, recipe, tmp_path / "run"):
        assert line["hedges"] == 0
        assert 1 <= line["reply"] <= 2  # nothing of what was stored is learnt from


@pytest.mark.parametrize("history", ["append", "per_turn"])
@pytest.mark.parametrize("average", ["token", "sequence"])
def test_turns_are_told_apart_in_either_history(tokenizer, tmp_path, history, average):
    subject = Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT))
    recipe = replace(SMALL, updates=1, average=average)
    (line,) = lines_of(tokenizer, Renderer(tokenizer, history), subject, recipe, tmp_path / history)
    assert len(line["kl_by_turn"]) == 3
    assert None not in line["kl_by_turn"]


def test_rows_know_their_episode_and_turn(tokenizer):
    renderer = Renderer(tokenizer, "per_turn")
    policy = player(tokenizer, renderer)
    (episode,) = play(policy, TASKS[1:2], PlainHouse)
    room = Room.of(policy, None, SMALL)
    rows = marked(episode, CONTEXT, room, SMALL, number=7)
    assert [(one.episode, one.turn) for one in rows] == [(7, 0), (7, 1), (7, 2)]
    (last,) = marked(episode, CONTEXT, room, replace(SMALL, learn="final"), number=7)
    assert last.turn == 2


def test_a_group_without_advantage_counts_in_the_mean(tokenizer, renderer, tmp_path, monkeypatch):
    """Two groups, of which one has won and lost episodes: the update is half of what that group alone would make."""
    monkeypatch.setattr("opcd_agents.learner.playing.advantages", lambda episodes, group: [1.0, -1.0, 0.0, 0.0])
    recipe = replace(SMALL, method="grpo", group=2, updates=1, average="sequence")
    subject = Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT))
    (half,) = lines_of(tokenizer, renderer, subject, recipe, tmp_path / "half")
    monkeypatch.setattr("opcd_agents.learner.playing._teaches", lambda episode, _: episode in kept)
    kept = []
    monkeypatch.setattr(
        "opcd_agents.learner.playing.advantages",
        lambda episodes, group: kept.extend(episodes[:2]) or [1.0, -1.0, 0.0, 0.0],
    )
    (whole,) = lines_of(tokenizer, renderer, subject, recipe, tmp_path / "whole")
    assert half["loss"] == pytest.approx(whole["loss"] / 2, rel=1e-4)
    assert half["grad_norm"] == pytest.approx(whole["grad_norm"] / 2, rel=1e-3)
    assert half["sampled"] == whole["sampled"]


def test_an_update_without_any_advantage_is_none(tokenizer, renderer, tmp_path):
    class Lost(PlainHouse):
        def step(self, action):
            return "You wait.", 0.0, False, self.task is not None, {"won": False}

    subject = Subject(TASKS[:4], [], Lost, Fixed(CONTEXT))
    recipe = replace(SMALL, method="grpo", group=2, updates=2)
    assert all("loss" not in line for line in lines_of(tokenizer, renderer, subject, recipe, tmp_path / "run"))


def test_episodes_that_were_played_by_text_are_passed_over(tokenizer, renderer):
    stored = play(player(tokenizer, renderer), TASKS[:2], PlainHouse)
    text = replace(
        stored[0], turns=tuple(replace(t, prompt_ids=(), sampled_ids=(), logprobs=()) for t in stored[0].turns)
    )
    check_stored([text, stored[1]], renderer, SMALL)
    with pytest.raises(UsageError, match="with token ids"):
        check_stored([text], renderer, SMALL)
