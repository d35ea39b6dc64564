"""Who plays what, how it ended, and that one broken game stays one broken game."""

import math
from typing import Any

import numpy as np
import pytest

from opcd_agents.policies.scripted import HumanPolicy, RandomPolicy, ScriptedPolicy
from opcd_agents.rollout import answers, code_version, deal, play
from opcd_agents.types import Info, Outcome, Reply, Split, Task


class Corridor:
    """Doors in a row: `on` opens the next, `off` ends it badly; `kwargs` say how long it is and what breaks."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.at = self.turn = 0
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        assert seed == self.task.seed
        assert options == {"task": self.task}
        if "reset" in self.task.kwargs:
            raise self.task.kwargs["reset"]
        return self.seen()

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        if self.turn == self.task.kwargs.get("breaks_at"):
            raise RuntimeError("the engine died")
        word = action.removeprefix("> ")
        self.turn += 1
        self.at += word == "on"
        won = self.at >= self.task.kwargs.get("doors", 2)
        ended = won or word == "off"
        observation, info = self.seen()
        info |= {"won": won, "action": word}
        if word not in info["admissible_commands"]:
            info["invalid_action"] = "no such word"
        return observation, float(won), ended, not ended and self.turn == self.task.limit, info

    def close(self) -> None:
        self.closed = True

    def seen(self) -> tuple[str, Info]:
        return f"Door {self.at} of {self.task.fingerprint}.", {"admissible_commands": ["on", "wait", "wait", "off"]}


class Listener:
    """Notes what it is begun with, and says `on`."""

    name = "listener"
    weights = "abc"

    def __init__(self) -> None:
        self.begun: list[tuple[str | None, list[int]]] = []
        self.heard: list[dict[int, str]] = []

    def begin(self, context, seeds):
        self.begun.append((context, list(seeds)))
        return self

    def reply(self, heard):
        self.heard.append({slot: observation for slot, (observation, _) in heard.items()})
        return {slot: Reply("> on", (1, 2), (3,), (-0.5,)) for slot in heard}


def tasks(count: int, limit: int = 3, **kwargs: Any) -> list[Task]:
    return [Task("test/Corridor-v0", kwargs, 100 + i, Split.TRAIN, "c", f"t{i}", None, limit) for i in range(count)]


@pytest.mark.parametrize(
    ("lines", "outcome", "length"),
    [
        (["> on"], Outcome.WON, 2),
        (["> wait", "> on"], Outcome.WON, 3),
        (["> wait", "> wait", "> on"], Outcome.TRUNCATED, 3),
        (["> on", "> off"], Outcome.LOST, 2),
        (["> sing"], Outcome.TRUNCATED, 3),
    ],
)
def test_how_an_episode_ends(lines, outcome, length):
    (episode,) = play(ScriptedPolicy(lines), tasks(1), Corridor)
    assert episode.outcome is outcome
    assert episode.won == (outcome is Outcome.WON)
    assert len(episode.turns) == length
    assert episode.error is None


def test_a_turn_keeps_what_was_heard_said_and_done():
    (episode,) = play(ScriptedPolicy(["> sing", "> on"]), tasks(1), Corridor)
    first, second, third = episode.turns
    assert (first.observation, first.reply, first.action) == ("Door 0 of t0.", "> sing", "sing")
    assert (first.invalid, second.invalid) == ("no such word", None)
    assert [t.observation for t in (second, third)] == ["Door 0 of t0.", "Door 1 of t0."]
    assert [t.reward for t in episode.turns] == [0.0, 0.0, 1.0]
    assert episode.final == "Door 2 of t0."


def test_ids_are_kept_as_sampled():
    (episode,) = play(Listener(), tasks(1), Corridor)
    assert [(t.prompt_ids, t.sampled_ids, t.logprobs) for t in episode.turns] == [((1, 2), (3,), (-0.5,))] * 2


def test_the_weights_are_hashed_once():
    class Heavy(Listener):
        asked = 0

        @property
        def weights(self):
            self.asked += 1
            return "abc"

    policy = Heavy()
    play(policy, tasks(5), Corridor, slots=2)
    assert policy.asked == 1


def test_who_played_is_written_down():
    policy = Listener()
    first, second = play(policy, tasks(2), Corridor, context="Notes: on.", context_id="c1", seed=7)
    assert (first.provenance.model, first.provenance.weights) == ("listener", "abc")
    assert first.provenance.context_id == "c1"
    assert first.provenance.code_version == code_version() != ""
    assert policy.begun == [("Notes: on.", [first.provenance.seed, second.provenance.seed])]
    assert first.provenance.seed != second.provenance.seed


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 64])
def test_the_order_is_that_of_the_tasks(slots):
    mixed = [task for pair in zip(tasks(4, limit=1), tasks(4, limit=5), strict=True) for task in pair]
    done = []
    episodes = play(ScriptedPolicy(["> on"]), mixed, Corridor, slots=slots, done=done.append)
    assert [e.task for e in episodes] == mixed
    assert done == episodes


@pytest.mark.parametrize("slots", [1, 2, 5, 40])
def test_what_is_played_does_not_depend_on_the_batch(slots):
    many = tasks(40, limit=6)
    assert play(RandomPolicy(), many, Corridor, seed=3, slots=slots) == play(RandomPolicy(), many, Corridor, seed=3)


def test_another_seed_plays_otherwise():
    many = tasks(40, limit=6)
    assert play(RandomPolicy(), many, Corridor, seed=3) != play(RandomPolicy(), many, Corridor, seed=4)
    assert len({e.turns[0].action for e in play(RandomPolicy(), many, Corridor)}) == 3


def test_a_finished_slot_is_not_asked_again():
    policy = Listener()
    play(policy, [*tasks(1, doors=1), *tasks(1, doors=3)], Corridor)
    assert [set(heard) for heard in policy.heard] == [{0, 1}, {1}, {1}]


def test_a_slot_is_refilled_at_once():
    policy = Listener()
    games = [*tasks(1, doors=1), *tasks(1, doors=3), *tasks(2, doors=1), *tasks(1, doors=2)]
    play(policy, games, Corridor, slots=2)
    assert [set(heard) for heard in policy.heard] == [{0, 1}, {1, 2}, {1, 3}, {4}, {4}]


class OneByOne:
    """Answers the latest that was asked, and owes the others their answers."""

    name, weights = "one by one", "0"

    def __init__(self):
        self.owed, self.asked = {}, []

    def begin(self, context, seeds):
        self.inner = ScriptedPolicy(["> on"]).begin(context, seeds)
        return self

    def reply(self, heard):
        assert not heard.keys() & self.owed.keys()  # nobody is asked twice
        self.asked.append(len(heard))
        self.owed |= heard
        slot = max(self.owed)
        return self.inner.reply({slot: self.owed.pop(slot)})


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
def test_answers_may_come_one_by_one(slots):
    policy = OneByOne()
    mixed = [*tasks(3), *tasks(4, limit=5)]
    episodes, wanted = (play(p, mixed, Corridor, slots=slots) for p in (policy, ScriptedPolicy(["> on"])))
    assert [(e.turns, e.outcome) for e in episodes] == [(e.turns, e.outcome) for e in wanted]
    assert max(policy.asked[1:]) == 1  # who is answered goes on at once, alone


def test_all_answers_can_be_waited_for():
    session = OneByOne().begin(None, range(4))
    assert list(answers(session, {slot: ("", {}) for slot in range(4)})) == [3, 2, 1, 0]
    assert answers(session, {}) == {}


def opened(games, slots, policy=None):
    """Play, and return the environments that were made; every one of them must be closed."""
    made = []

    def make(task):
        made.append(Corridor(task))
        return made[-1]

    try:
        play(policy or ScriptedPolicy(["> on"]), games, make, slots=slots)
    finally:
        assert all(env.closed for env in made)
    return made


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_every_environment_is_closed(slots):
    assert len(opened([*tasks(3), *tasks(1, breaks_at=1), *tasks(1, reset=OSError("no game"))], slots)) == 5
    with pytest.raises(KeyboardInterrupt):
        opened([*tasks(2), *tasks(1, reset=KeyboardInterrupt())], slots)


def test_an_environment_that_cannot_be_made_fails_alone():
    def make(task):
        if task.fingerprint == "t1":
            raise OSError("no engine")
        return Corridor(task)

    episodes = play(ScriptedPolicy(["> on"]), tasks(3), make)
    assert [e.outcome for e in episodes] == [Outcome.WON, Outcome.FAILED, Outcome.WON]
    assert episodes[1].error == "OSError: no engine"


@pytest.mark.parametrize("slots", [1, 64])
@pytest.mark.parametrize(
    ("trouble", "error", "length"),
    [({"breaks_at": 1}, "RuntimeError: the engine died", 1), ({"reset": OSError("no game")}, "OSError: no game", 0)],
)
def test_a_broken_game_fails_alone(trouble, error, length, slots):
    games = [*tasks(1), *tasks(1, **trouble), *tasks(1)]
    well, broken, also_well = play(ScriptedPolicy(["> on"]), games, Corridor, slots=slots)
    assert [well.outcome, also_well.outcome] == [Outcome.WON] * 2
    assert (broken.outcome, broken.error, len(broken.turns)) == (Outcome.FAILED, error, length)
    assert not broken.won


def test_all_may_fail():
    episodes = play(ScriptedPolicy(["> on"]), tasks(3, reset=ValueError("x")), Corridor)
    assert [e.outcome for e in episodes] == [Outcome.FAILED] * 3


def test_ctrl_c_is_no_failed_episode():
    with pytest.raises(KeyboardInterrupt):
        play(ScriptedPolicy(["> on"]), tasks(2, reset=KeyboardInterrupt()), Corridor)


def test_what_a_policy_raises_flies():
    def ask(observation):
        raise EOFError(observation)

    with pytest.raises(EOFError, match="Door 0"):
        play(HumanPolicy(ask), tasks(1), Corridor)


def test_a_person_is_asked():
    lines = iter(["on", "on"])
    (episode,) = play(HumanPolicy(lambda _heard: next(lines)), tasks(1), Corridor)
    assert episode.won


def test_nothing_to_play():
    assert play(RandomPolicy(), [], Corridor) == []


@pytest.mark.parametrize("count", [0, 1, 5, 7, 23])
def test_dealt_rounds_are_whole(count):
    dealt = deal("abcde", count, np.random.default_rng(0))
    assert len(dealt) == count
    for first in range(0, count, 5):
        part = dealt[first : first + 5]
        assert len(set(part)) == len(part)
    assert {dealt.count(x) for x in "abcde"} <= {count // 5, math.ceil(count / 5)}
    assert deal([], count, np.random.default_rng(0)) == []


def test_chance_that_is_told_no_commands_says_nothing_and_disturbs_no_other():
    session = RandomPolicy().begin(None, [1, 2])
    heard = {0: ("", {"admissible_commands": ()}), 1: ("", {"admissible_commands": ("look",)})}
    assert {slot: reply.text for slot, reply in session.reply(heard).items()} == {0: "", 1: "> look"}
