"""The pocket world: shortest solutions, an expert that needs no more, and a curriculum that keeps to its side."""

import re
from collections import deque
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from opcd_agents.pocket import names
from opcd_agents.pocket.curriculum import (
    Conversation,
    _legal_reply,
    _mark,
    _Recital,
    episode,
    house_episode,
    operator_episode,
    recall_episode,
)
from opcd_agents.pocket.expert import Imagination, expert_reply, notes_of
from opcd_agents.pocket.houses import HELD, Goal, HousePlan, HouseState, sample_house, solve
from opcd_agents.pocket.operators import SYMBOLS, Operator, sample_operator
from opcd_agents.pocket.tokens import SPECIAL, train_tokenizer

POOLS = (names.ROOMS, names.CONTAINERS, names.THINGS, names.DOORS, names.DIRECTIONS)


def house(seed: int, rooms: int = 8, containers: int = 4, things: int = 8) -> tuple[HousePlan, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return sample_house(rng, held_out=seed % 2 == 0, rooms=rooms, containers=containers, things=things), rng


def goals(plan: HousePlan) -> list[Goal]:
    return [Goal(thing, place) for thing in plan.things for place in (None, *plan.containers)]


@cache
def task(seed: int) -> tuple[HouseState, Goal]:
    """A start and a goal that does not hold there."""
    plan, rng = house(seed)
    start = plan.start(str(rng.choice(plan.rooms)))
    options = [goal for goal in goals(plan) if not start.achieves(goal)]
    return start, options[int(rng.integers(len(options)))]


def command_of(reply: str) -> str:
    return reply.rsplit("> ", 1)[-1]


def brute_force(start: HouseState) -> dict[tuple[str, str], int]:
    """Fewest commands of any kind after which each thing is at each place it can be brought to."""
    found: dict[tuple[str, str], int] = {}
    queue, seen = deque([(start, 0)]), set()
    while queue:
        state, length = queue.popleft()
        where = {thing: state.place_of(thing) for thing in state.plan.things}
        for at in where.items():
            found.setdefault(at, length)
        for command in state.commands():
            following, _ = state.apply(command)
            places = tuple(following.place_of(thing) for thing in state.plan.things)
            if (key := (following.room, following.open, places)) not in seen:
                seen.add(key)
                queue.append((following, length + 1))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_no_sequence_of_commands_is_shorter(seed):
    plan, rng = house(seed, rooms=2 + seed % 3, containers=1 + seed % 2, things=1)
    start = plan.start(str(rng.choice(plan.rooms)))
    shortest = brute_force(start)
    for goal in goals(plan):
        assert len(solve(start, goal)) == shortest[goal.thing, goal.container or HELD]


def test_a_second_thing_does_not_lead_astray():
    plan, rng = house(11, rooms=3, containers=1, things=2)
    start = plan.start(str(rng.choice(plan.rooms)))
    shortest = brute_force(start)
    assert all(len(solve(start, goal)) == shortest[goal.thing, goal.container or HELD] for goal in goals(plan))


def test_a_solution_can_be_played():
    for seed in range(40):
        state, goal = task(seed)
        for command in solve(state, goal):
            assert not state.achieves(goal)
            state, _ = state.apply(command)
        assert state.achieves(goal)


def test_what_cannot_be_reached_is_named():
    island = HousePlan({"Hall": (), "Cellar": ()}, {}, {"coin": "Cellar"})
    with pytest.raises(ValueError, match=r"no way to Find the coin and take it\. from Hall"):
        solve(island.start("Hall"), Goal("coin"))


def test_a_command_that_is_not_there_is_refused():
    start, _ = task(0)
    for command in ("go up", "take nothing", "", "look", f"close {start.room}"):
        with pytest.raises(ValueError, match="wanted one of"):
            start.apply(command)


def test_the_expert_with_notes_is_optimal():
    for seed in range(200):
        state, goal = task(seed)
        notes = notes_of(state.plan)
        for left in range(len(solve(state, goal)), 0, -1):
            assert not state.achieves(goal), (seed, left)
            state, _ = state.apply(command_of(expert_reply(state, goal, notes)))
        assert state.achieves(goal), seed


def test_what_is_imagined_leads_to_a_legal_command():
    checked = 0
    for seed in range(100):
        state, _ = task(seed)
        rng = np.random.default_rng(seed)
        wanted = goals(state.plan)
        while checked < 20 * (seed + 1):
            state, _ = state.apply(str(rng.choice(state.commands())))
            goal = wanted[int(rng.integers(len(wanted)))]
            if not state.achieves(goal):
                reply = expert_reply(state, goal, Imagination(state, goal, rng))
                assert command_of(reply) in state.commands(), (seed, reply)
                checked += 1
    assert checked == 2000


def test_a_house_is_well_formed():
    for seed in range(60):
        plan, _ = house(seed, rooms=2 + seed % 9, containers=min(2 + seed % 9, 4), things=5)
        assert sum(map(len, plan.exits.values())) == 2 * (len(plan.rooms) - 1)
        for room, ways in plan.exits.items():
            assert len({way.direction for way in ways}) == len(ways)
            for way in ways:
                back = next(w for w in plan.exits[way.room] if w.room == room)
                assert (back.direction, back.door) == (names.OPPOSITE[way.direction], way.door)
        assert len(plan.doors) == (len(plan.rooms) > 3)
        assert len(set(plan.containers.values())) == len(plan.containers)
        assert set(plan.things.values()) <= {*plan.rooms, *plan.containers}


def test_no_name_means_two_things():
    said = [name for pool in POOLS for name in pool]
    assert len(set(said)) == len(said)
    assert all(name.isalpha() and name[0].lower() not in "aeiou" for name in said if name not in names.DIRECTIONS)


def test_houses_are_on_the_side_that_was_asked_for():
    rng = np.random.default_rng(0)
    for held_out in (False, True):
        assert all(sample_house(rng, held_out=held_out, rooms=4).held_out == held_out for _ in range(40))
    drawn = [sample_house(np.random.default_rng(7), held_out=False) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].fingerprint == drawn[1].fingerprint


def test_a_sixteenth_of_the_houses_is_held_out():
    """Whatever is held out is found at once if drawn for play, and the fingerprint tells it apart again."""
    rng = np.random.default_rng(1)
    played = {sample_house(rng, held_out=True, rooms=3, containers=1, things=1).fingerprint[0] for _ in range(20)}
    taught = {sample_house(rng, held_out=False, rooms=3, containers=1, things=1).fingerprint[0] for _ in range(200)}
    assert played == {"0"}
    assert taught == set("123456789abcdef")


def test_operators_are_on_the_side_that_was_asked_for():
    everyone = [Operator(s, p, q) for s in SYMBOLS for p in range(1, 10) for q in range(1, 10)]
    assert 0.15 < sum(o.held_out for o in everyone) / len(everyone) < 0.25
    rng = np.random.default_rng(0)
    for held_out in (False, True):
        assert all(sample_operator(rng, held_out).held_out == held_out for _ in range(100))


def test_an_operator_answers_with_its_working():
    operator = Operator("#", 3, 7)
    assert operator.reply(4, 5) == "3 times 4 is 2. 7 times 5 is 5. 2 plus 5 is 7.\n> 7"
    for a in range(10):
        for b in range(10):
            assert int(command_of(operator.reply(a, b))) == operator(a, b) == (3 * a + 7 * b) % 10


# The curriculum.


@cache
def corpus() -> list[Conversation]:
    """The beginning of what the tokenizer is trained on, drawn as `train.make_tokenizer` does."""
    rng = np.random.default_rng(1)
    return [episode(rng, 8) for _ in range(1200)]


def said(conversation: Conversation, role: str) -> list[str]:
    return ["".join(s.text for s in message) for message in conversation if message[0].role == role]


def test_no_held_out_operator_is_taught():
    rule = re.compile(r"Notes: a (\S) b is the last digit of (\d) a plus (\d) b\.")
    taught = {rule.fullmatch(text) for c in corpus() for text in said(c, "system") if "digit" in text}
    assert len(taught) > 50
    assert not any(Operator(m[1], int(m[2]), int(m[3])).held_out for m in taught if m)
    assert None not in taught


def test_every_word_of_the_map_is_taught():
    words = {w for c in corpus() for m in c for s in m for w in re.findall(r"\w+", s.text)}
    assert {name for pool in POOLS for name in pool} <= words


def test_messages_take_turns():
    for conversation in corpus():
        roles = [message[0].role for message in conversation]
        assert all({span.role for span in message} == {role} for message, role in zip(conversation, roles, strict=True))
        talk = roles[1:] if roles[0] == "system" else roles
        assert talk == ["user", "assistant"] * (len(talk) // 2)
        assert not any(s.trained for message in conversation for s in message if s.role != "assistant")


def test_a_reply_is_a_thought_and_a_command():
    thought = re.compile(r"In [A-Z][a-z]+: [A-Za-z .]+\.\n> (go|open|take|put) [a-z ]+")
    for seed in range(60):
        for with_notes in (True, False):
            for reply in said(house_episode(np.random.default_rng(seed), 8, with_notes), "assistant"):
                assert thought.fullmatch(reply), reply


def test_without_notes_every_guess_is_taught():
    for seed in range(30):
        conversation = house_episode(np.random.default_rng(seed), 8, with_notes=False)
        assert all(span.trained for message in conversation for span in message if span.role == "assistant")


def test_a_clean_episode_states_only_what_the_notes_say():
    path = re.compile(r"In \w+: (?:\w+ held\. )?([\w ]+) (?:here|top)\.")
    for seed in range(40):
        conversation = house_episode(np.random.default_rng(seed), 8, with_notes=True, clean=True)
        facts = dict(re.findall(r"(\w+) (\w+)\.", said(conversation, "system")[0]))
        for reply in said(conversation, "assistant"):
            (recited,) = path.findall(reply)
            assert all(facts[key] == value for key, value in pairwise(recited.split()))
        assert all(span.trained for message in conversation for span in message if span.role == "assistant")


def test_what_is_recalled_is_noted():
    for seed in range(20):
        conversation = recall_episode(np.random.default_rng(seed), 8)
        facts = dict(re.findall(r"(\w+) (\w+)\.", said(conversation, "system")[0]))
        for asked, reply in zip(said(conversation, "user"), said(conversation, "assistant"), strict=True):
            path = reply.removeprefix("So: ").removesuffix(".").split()
            assert asked == f"Recall the {path[0]}."
            assert path[-1] == "top"
            assert all(facts[key] == value for key, value in pairwise(path))


def recitals(slip_rate: float):
    """Replies that recite notes with slips, and their slips."""
    for seed in range(150):
        state, goal = task(seed)
        rng = np.random.default_rng(seed)
        recital = _Recital(notes_of(state.plan), Imagination(state, goal, rng), rng, slip_rate)
        yield _legal_reply(state, goal, recital), recital.slips


def test_the_text_of_a_slip_is_never_trained():
    slipped = 0
    for reply, slips in recitals(0.3):
        spans = _mark(reply, slips)
        assert "".join(span.text for span in spans) == reply
        assert [span.text for span in spans if not span.trained] == [f" {value}" for _, value in slips]
        for i, (key, _) in enumerate(slips):
            assert "".join(span.text for span in spans[: 2 * i + 1]).endswith(key)
        slipped += len(slips)
    assert slipped > 50


def test_without_slips_all_is_trained():
    for reply, slips in recitals(0.0):
        assert [(s.text, s.trained) for s in _mark(reply, slips) if s.text] == [(reply, True)]


def test_in_an_episode_only_names_and_whole_guesses_are_untrained():
    partly = whole = 0
    for conversation in corpus():
        for message in conversation:
            untrained = [span.text for span in message if span.role == "assistant" and not span.trained]
            if untrained and len(message) > 1:
                assert all(text[1:] in (*names.ROOMS, *names.CONTAINERS) and text[0] == " " for text in untrained)
                partly += 1
            whole += len(message) == len(untrained)
    assert partly > 10
    assert whole > 100


def test_a_wrong_operator_is_not_trained_where_the_notes_tell_it():
    slips = 0
    for seed in range(300):
        conversation = operator_episode(np.random.default_rng(seed), with_notes=True)
        _, p, q = re.findall(r"is the last digit of ((\d) a plus (\d) b)", said(conversation, "system")[0])[0]
        for (span,) in (message for message in conversation if message[0].role == "assistant"):
            stated = re.findall(r"(\d) times", span.text)
            assert span.trained or stated
            if span.trained:
                assert stated == [p, q]
            slips += not span.trained
    assert slips > 10


# The tokenizer.


@cache
def tokenizer():
    return train_tokenizer(s.text for c in corpus() for m in c for s in m)


def test_every_word_of_the_curriculum_is_one_token():
    pre = tokenizer().backend_tokenizer.pre_tokenizer
    rng = np.random.default_rng(99)
    fresh = (episode(rng, 9) for _ in range(200))
    texts = {span.text for conversation in fresh for message in conversation for span in message}
    pieces = {text[a:b] for text in texts for _, (a, b) in pre.pre_tokenize_str(text)}
    split = {piece for piece in pieces if len(tokenizer().encode(piece, add_special_tokens=False)) > 1}
    assert not {piece for piece in split if piece.strip().isalnum()}


def test_every_name_is_one_token_after_a_space():
    for name in (name for pool in POOLS for name in pool):
        assert len(tokenizer().encode(f" {name}", add_special_tokens=False)) == 1, name


def test_the_tokenizer_is_the_same_when_trained_twice():
    texts = [s.text for c in corpus()[:400] for m in c for s in m]
    one, two = (train_tokenizer(texts).backend_tokenizer.to_str() for _ in range(2))
    assert one == two


def test_special_tokens_stand_first():
    assert tokenizer().convert_ids_to_tokens(list(range(len(SPECIAL)))) == list(SPECIAL)
    assert (tokenizer().pad_token_id, tokenizer().eos_token_id) == (0, 1)
