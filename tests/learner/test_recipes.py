"""Every way a recipe names runs through the one loop, and is resumed to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner.batch import marked
from opcd_agents.learner.contexts import Drawn, Fixed, Solutions
from opcd_agents.learner.distill import Subject, distill
from opcd_agents.learner.objectives import Divergence, ForwardKL, NegativeLogLikelihood, ReverseKL, SampledKL
from opcd_agents.learner.parallel import Alone
from opcd_agents.learner.replay import replayed
from opcd_agents.learner.roles import cast_roles
from opcd_agents.learner.rows import Room, next_prompt
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe, load_recipe
from opcd_agents.render import Renderer
from opcd_agents.rollout import play
from opcd_agents.runs import RunFolder

from .conftest import tiny
from .test_distill import CONTEXT, TASKS, PlainHouse

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
SMALL = Recipe(updates=4, episodes=4, lr=1e-3, longest=4, validate=0, keep="last", temperature=1.0)
SOLVED = [replace(task, kwargs={"solution": f"go {i}"}) for i, task in enumerate(TASKS)]
WAYS = {
    "jsd": {"divergence": "jsd", "support": "student", "top_k": 5},
    "renormalise": {"support": "union", "top_k": 3, "tail": "renormalise"},
    "sampled": {"divergence": "sampled", "entry_clip": 2.0},
    "cold": {"kl_temperature": 0.5, "average": "sequence"},
    "clipped": {"divergence": "forward", "entry_clip": 0.05},
    "off, reverse": {"method": "off-policy", "divergence": "reverse"},
    "grpo": {"method": "grpo", "group": 2},
    "ema": {"teacher": "ema"},
    "sync": {"teacher": "sync", "teacher_every": 2},
    "trust": {"teacher": "trust"},
    "ensemble": {"teacher": "0.5 frozen + 0.5 another"},
    "another": {"teacher": "another"},
    "random": {"contexts": "random"},
    "random, off": {"contexts": "random", "method": "off-policy"},
    "solution": {"contexts": "solution"},
    "final": {"learn": "final"},
    "answer": {"learn": "answer"},
    "importance": {"importance": 2.0},
    "lora": {"lora_rank": 2},
    "lora, off": {"lora_rank": 2, "method": "off-policy"},
    "bfloat16": {"dtype": "bfloat16", "checkpointing": True},
    "nca": {"nca": 0.5},
    "short rows": {"row_tokens": 40},
}
CONTEXTS = {"random": Drawn((CONTEXT, "Notes: coin Hall.")), "solution": Solutions(), "fixed": Fixed(CONTEXT)}


class Fickle(PlainHouse):
    """Won by short replies, so that attempts at one task end differently."""

    def step(self, action):
        text, _, _, truncated, info = super().step(action)
        won = self.turn == 1 and len(action) % 2 == 0
        return text, float(won), won, truncated and not won, info | {"won": won}


class Stop(Exception):
    pass


def run(tokenizer, renderer, recipe, folder, *, resume=False, stop=99):
    def watch(line):
        if line["update"] == stop:
            raise Stop

    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    game = Fickle if recipe.method == "grpo" else PlainHouse
    subject = Subject(SOLVED[:4], SOLVED[4:], game, CONTEXTS[recipe.contexts])
    run_folder = RunFolder.open(folder) if resume else RunFolder.create(folder, {})
    other = lambda name: tiny(len(tokenizer), seed=5)  # noqa: E731
    result = distill(policy, subject, recipe, run_folder, seed=3, resume=resume, load=other, watch=watch)
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in run_folder.metrics()]
    return result, lines, {n: p.detach().clone() for n, p in result.trained.named_parameters()}


@pytest.mark.parametrize("way", WAYS)
def test_it_runs_and_resumes_to_the_bit(tokenizer, renderer, tmp_path, monkeypatch, way):
    monkeypatch.setattr("opcd_agents.learner.distill._UPDATES", 1)
    recipe = replace(SMALL, **WAYS[way])
    result, lines, weights = run(tokenizer, renderer, recipe, tmp_path / "straight")
    assert [line["update"] for line in lines] == [1, 2, 3, 4]
    assert any("loss" in line for line in lines)
    with pytest.raises(Stop):
        run(tokenizer, renderer, recipe, tmp_path / "stopped", stop=2)
    again, same, resumed = run(tokenizer, renderer, recipe, tmp_path / "stopped", resume=True)
    assert (again.data, same) == (result.data, lines)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    before = dict(tiny(len(tokenizer)).named_parameters())
    moved = [name for name, one in weights.items() if name not in before or not torch.equal(one, before[name])]
    assert moved


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks by an old name
def test_an_adapter_is_all_that_is_trained_and_saved(tokenizer, renderer, tmp_path):
    from peft import AutoPeftModelForCausalLM, PeftModel

    result, _, weights = run(tokenizer, renderer, replace(SMALL, lora_rank=2), tmp_path / "run")
    assert isinstance(result.trained, PeftModel)
    base = dict(tiny(len(tokenizer)).named_parameters())
    for name, one in weights.items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert "lora_" in name or torch.equal(one, base[plain])
    tiny(len(tokenizer)).save_pretrained(tmp_path / "base")
    result.trained.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    result.trained.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    ids = torch.tensor([[2, 40, 41, 42]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, result.trained(ids).logits)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 40_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_cast(tokenizer, renderer, path):
    """Each can be carried out; what is only for comparison warns."""
    recipe = load_recipe(path)
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    if recipe.support != "exact" and recipe.tail == "truncate":
        with pytest.warns(UserWarning, match="no divergence"):
            roles = cast_roles(policy, recipe, lambda name: tiny(len(tokenizer)))
    else:
        roles = cast_roles(policy, recipe, lambda name: tiny(len(tokenizer)))
    assert roles.learner.settings.lr == recipe.lr


@pytest.mark.parametrize(
    ("named", "objective"),
    [
        ({}, ReverseKL),
        ({"method": "off-policy"}, ForwardKL),
        ({"divergence": "forward"}, ForwardKL),
        ({"method": "off-policy", "divergence": "reverse"}, ReverseKL),
        ({"divergence": "sampled"}, SampledKL),
        ({"divergence": "jsd"}, Divergence),
        ({"support": "student"}, Divergence),
        ({"method": "sft"}, NegativeLogLikelihood),
        ({"method": "grpo", "group": 2}, NegativeLogLikelihood),
    ],
)
def test_methods_and_divergences_are_two_things(tokenizer, renderer, named, objective):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    roles = cast_roles(policy, replace(SMALL, **named), lambda name: tiny(len(tokenizer)))
    assert type(roles.learner.objective) is objective
    assert (roles.learner.teacher is None) == (objective is NegativeLogLikelihood)


def test_a_live_teacher_is_warned_about(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    with pytest.warns(UserWarning, match=r"18\.8 % of Sokoban games won against 53\.9 %"):
        cast_roles(policy, replace(SMALL, teacher="live"), lambda name: tiny(len(tokenizer)))


def test_a_teacher_of_another_vocabulary_stops_before_a_step(tokenizer, renderer, tmp_path):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    subject = Subject(SOLVED[:4], [], PlainHouse, Fixed(CONTEXT))
    for named in ("another", "0.5 frozen + 0.5 another"):
        recipe, run_folder = replace(SMALL, teacher=named), RunFolder.create(tmp_path / named, {})
        with pytest.raises(ModelError, match=f"one vocabulary .* which knows {len(tokenizer) - 8}"):
            distill(policy, subject, recipe, run_folder, load=lambda name: tiny(len(tokenizer) - 8))
        assert run_folder.metrics() == []


def test_a_context_longer_than_the_model_stops_before_a_step(tokenizer, renderer, tmp_path):
    network = tiny(len(tokenizer))
    network.config.max_position_embeddings = 128
    policy = HuggingFacePolicy(network, renderer, "tiny")
    subject = Subject(SOLVED[:4], [], PlainHouse, Fixed("coin crate. " * 200))
    with pytest.raises(ModelError, match="at most 128 ids"):
        distill(policy, subject, SMALL, RunFolder.create(tmp_path / "run", {}))


@pytest.mark.parametrize("make", [lambda: Fixed(" "), lambda: Drawn(()), lambda: Drawn(("a", "\n"))])
def test_an_empty_context_is_refused(make):
    with pytest.raises(UsageError, match="got an empty one"):
        make()


def test_a_task_without_a_solution_is_refused(tokenizer, renderer, tmp_path):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    subject = Subject(TASKS[:4], [], PlainHouse, Solutions())
    with pytest.raises(UsageError, match="without one"):
        distill(policy, subject, replace(SMALL, contexts="solution"), RunFolder.create(tmp_path / "run", {}))


def test_the_weight_of_anchors_is_adapted_to_a_target(tokenizer, renderer, tmp_path):
    from .test_distill import anchors as rows_of
    from .test_distill import play

    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    anchors = [
        row for e in play(policy, TASKS[:3], PlainHouse, context="Notes: other.") for row in rows_of(e, renderer)
    ]
    subject = Subject(SOLVED[:4], [], PlainHouse, Fixed(CONTEXT), anchors)
    held = {}
    for target in (1e-6, 10.0):
        recipe = replace(SMALL, anchors=2, hold=1.0, hold_target=target, updates=5, lr=3e-3)
        folder = RunFolder.create(tmp_path / str(target), {})
        distill(HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny"), subject, recipe, folder, seed=3)
        held[target] = [line["hold"] for line in folder.metrics()]
    assert held[1e-6][-1] >= 4
    assert held[10.0] == [1.0, 0.5, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("history", ["append", "per_turn"])
def test_beginnings_are_replayed_without_a_game(tokenizer, tmp_path, history):
    """What the student says next on a stored beginning is learnt, and nothing else; no environment is made."""
    renderer = Renderer(tokenizer, history)
    player = HuggingFacePolicy(tiny(len(tokenizer), seed=2), renderer, "player", longest=4)
    stored = play(player, TASKS[:3], PlainHouse, context="Notes: other.")
    subject = Subject([], [], PlainHouse, Fixed(CONTEXT), stored=stored)
    recipe = replace(SMALL, rollouts="replay", episodes=9)
    room = Room.of(player, None, recipe)
    drawn = replayed(player, stored, subject.contexts, recipe, np.random.default_rng(0), Alone(), room)
    assert {len(e.turns) for e, _ in drawn} == {1, 2, 3}
    for episode, context in drawn:
        (pair,) = marked(episode, context, room, replace(recipe, rollouts="play", learn="final"))
        prompt = next_prompt(episode, len(episode.turns) - 1, renderer)
        assert list(pair.student.ids) == prompt + list(episode.turns[-1].sampled_ids)
        assert pair.counts == len(episode.turns[-1].sampled_ids)
        assert len(pair.teacher.ids) > len(pair.student.ids)
    folder = RunFolder.create(tmp_path / "run", {})
    distill(HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny"), subject, recipe, folder, seed=3)
    losses = [line["loss"] for line in folder.metrics()]
    assert losses[-1] < losses[0]
    assert {line["won"] for line in folder.metrics()} == {None}


def test_there_must_be_something_to_replay(tokenizer, renderer, tmp_path):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    subject = Subject([], [], PlainHouse, Fixed(CONTEXT))
    with pytest.raises(UsageError, match="wanted stored episodes with token ids"):
        distill(policy, subject, replace(SMALL, rollouts="replay"), RunFolder.create(tmp_path / "run", {}))
