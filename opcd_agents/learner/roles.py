"""Who plays, who teaches and who learns: a recipe and a model made into the parts of a distillation. Plays nothing itself."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from transformers import PreTrainedModel

from opcd_agents.errors import MissingError, ModelError, UsageError
from opcd_agents.learner import sharding
from opcd_agents.learner.averages import Average
from opcd_agents.learner.endpoint import Endpoint
from opcd_agents.learner.ensemble import Ensemble
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import Divergence, ForwardKL, NegativeLogLikelihood, Objective, ReverseKL, SampledKL
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.sharding import whole
from opcd_agents.learner.teachers import LIVE, AdapterOff, Following, Frozen, Live, Teacher, TrustRegion
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import head_of, quiet_peft
from opcd_agents.recipe import Recipe, is_endpoint
from opcd_agents.types import Info, Policy, Reply, Session

Load = Callable[[str], PreTrainedModel]  # a model of the same vocabulary, by its name

_FEED_FORWARD: Final = ".mlp."  # in the names of its weights


@dataclass(frozen=True)
class Roles:
    """The parts of a distillation.

    Attributes:
        player: The student as it plays; `refresh` before it does.
        informed: The teacher as it plays, with the context, where it plays and not the student; else None.
        learner: Who learns.
        refresh: Takes the student's newest weights over to `player`.
        trained: What was trained, whole and with the newest weights: the model, or the model of peft around it.
    """

    player: HuggingFacePolicy
    informed: Policy | None
    learner: Learner
    refresh: Callable[[], None]
    trained: Callable[[], Any]


def cast_roles(
    policy: HuggingFacePolicy, recipe: Recipe, load: Load, workers: Workers | None = None, seed: int = 0
) -> Roles:
    """Give everyone a role.

    Args:
        policy: The student as it comes in; it is changed in place.
        recipe: What is done.
        load: Loads another teacher by its name.
        workers: The processes that share an update.
        seed: Of what an adapter begins with.

    Raises:
        OpcdError: A teacher is not there or has another vocabulary, or something that is needed is not installed.
    """
    workers = workers or Alone()
    student, sharded = policy.network, sharding.wanted() and workers.size > 1
    if sharded and recipe.lora_rank:
        raise UsageError(
            "wanted whole weights with FSDP, got an adapter, whose gradients are small; use lora_rank = 0, or launch without --use_fsdp"
        )
    adapter = _adapter(student, recipe, seed) if recipe.lora_rank else None
    low = _low(student, recipe)
    initial = None if adapter else copy.deepcopy(student).to(low)  # pyright: ignore[reportArgumentType]
    if adapter is None:
        _choose_weights(student, recipe.weights)
    keeper: Teacher = AdapterOff(adapter) if initial is None else Frozen(initial)
    player, refresh = _player(policy, recipe, low, sharded)
    mirror = player.network if sharded else student
    teacher = _teacher(recipe, policy, mirror, initial, keeper, load) if _objective(recipe).needs_teacher else None
    informed = _informed(policy, teacher, recipe, adapter) if recipe.method == "off-policy" else None
    if sharded:
        sharding.shard(student, workers.size)
    learner = Learner(
        student, teacher, _objective(recipe), _settings(recipe, low), keeper=keeper, workers=workers, mirror=mirror
    )

    def trained() -> Any:
        if sharded:
            mirror.to(student.dtype)  # pyright: ignore[reportArgumentType]
            refresh()
        return adapter or mirror

    return Roles(player, informed, learner, refresh, trained)


def _objective(recipe: Recipe) -> Objective:
    if recipe.method in ("sft", "grpo"):
        return NegativeLogLikelihood(recipe.temperature if recipe.method == "grpo" else 1.0)
    divergence = recipe.divergence or {"opcd": "reverse", "off-policy": "forward"}[recipe.method]
    limit = recipe.entry_clip or math.inf
    if divergence == "sampled":
        return SampledKL(limit, recipe.temperature)
    if recipe.support == "exact" and limit == math.inf and recipe.kl_temperature == 1 and divergence != "jsd":
        return ReverseKL() if divergence == "reverse" else ForwardKL()
    beta = {"reverse": 1.0, "forward": 0.0, "jsd": recipe.beta}[divergence]
    return Divergence(
        beta, cast("Any", recipe.support), recipe.top_k, cast("Any", recipe.tail), limit, recipe.kl_temperature
    )


def _settings(recipe: Recipe, low: torch.dtype) -> Settings:
    return Settings(
        lr=recipe.lr,
        average=cast("Average", recipe.average),
        clip=recipe.clip or math.inf,
        pull=recipe.pull,
        row_tokens=recipe.row_tokens,
        importance=recipe.importance,
        temperature=recipe.temperature or 1.0,
        top=recipe.diagnose,
        nca=recipe.nca,
        dtype=low,
        checkpointing=recipe.checkpointing,
    )


def _teacher(
    recipe: Recipe,
    policy: HuggingFacePolicy,
    mirror: PreTrainedModel,
    initial: PreTrainedModel | None,
    keeper: Teacher,
    load: Load,
) -> Teacher:
    """The teacher that a recipe names, or several with their weights; one that reads as the student does is its `mirror`."""
    student = policy.network
    rows = head_of(student).weight.shape[0]
    known: dict[str, Callable[[], Teacher]] = {
        "frozen": lambda: keeper,
        "live": lambda: _warned(Live(mirror)),
        "ema": lambda: Following(student, recipe.teacher_rate),
        "sync": lambda: Following(student, 1.0, recipe.teacher_every),
        "trust": lambda: TrustRegion(cast("PreTrainedModel", initial), mirror, recipe.teacher_rate),
    }

    def one(name: str) -> Teacher:
        if is_endpoint(name):
            return Endpoint(name, policy.renderer, rows, 0 if recipe.divergence == "sampled" else recipe.top_k)
        return known[name]() if name in known else Frozen(load(name), rows)

    members = [(one(name), weight) for name, weight in recipe.teachers]
    teacher = members[0][0] if len(members) == 1 else Ensemble(members)
    if teacher.vocabulary < rows and teacher.vocabulary <= (last := max(policy.renderer.vocabulary.values())):
        raise ModelError(
            f"wanted a teacher of one vocabulary with {policy.name}, ids up to {last}, got {recipe.teacher!r}, which knows {teacher.vocabulary}"
        )
    return teacher


def _warned(teacher: Live) -> Live:
    warnings.warn(LIVE, stacklevel=2)
    return teacher


def _choose_weights(network: torch.nn.Module, which: str) -> None:
    """Freeze what is not to be trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(which == "all" or _FEED_FORWARD in name)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise _no_feed_forward()


def _no_feed_forward() -> UsageError:
    return UsageError("wanted a model with feed-forward layers named `mlp`, got none; use weights = 'all'")


def _adapted_layers(network: torch.nn.Module, which: str) -> str | list[str]:
    """What `LoraConfig.target_modules` calls the layers that get an adapter."""
    if which == "all":
        return "all-linear"
    linear = (name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear))
    found = sorted({f"mlp.{name.split(_FEED_FORWARD, 1)[1]}" for name in linear if _FEED_FORWARD in name})
    if not found:
        raise _no_feed_forward()
    return found


def _adapter(network: PreTrainedModel, recipe: Recipe, seed: int) -> Any:
    """The model of peft around `network`, whose layers get adapters in place."""
    try:
        import peft
    except ImportError as error:
        raise MissingError("wanted peft for lora_rank; pip install 'opcd-agents[lora]'") from error
    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=cast("Any", recipe.lora_alpha or 2 * recipe.lora_rank),  # peft divides it by r, whole or not
        target_modules=_adapted_layers(network, recipe.weights),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng([network.device] if network.device.type == "cuda" else []), quiet_peft():
        torch.manual_seed(seed)
        return peft.get_peft_model(network, config).eval()


def _low(network: PreTrainedModel, recipe: Recipe) -> torch.dtype:
    """What passes are computed in; the trained weights stay as they came in."""
    return torch.bfloat16 if recipe.dtype == "bfloat16" else network.dtype


def _playing(policy: HuggingFacePolicy, network: PreTrainedModel, recipe: Recipe, name: str) -> HuggingFacePolicy:
    return HuggingFacePolicy(network, policy.renderer, name, recipe.temperature, recipe.longest)


def _player(
    policy: HuggingFacePolicy, recipe: Recipe, low: torch.dtype, sharded: bool
) -> tuple[HuggingFacePolicy, Callable[[], None]]:
    """The student as it plays: itself, or, where passes are in bfloat16, one copy an update, never a cast for each token.

    One that lies in parts also plays as a copy: a pass of its own would have to be joined by all processes, at every token.
    """
    if low == policy.network.dtype and not sharded:
        return _playing(policy, policy.network, recipe, policy.name), lambda: None
    cast_copy = copy.deepcopy(policy.network).to(low).requires_grad_(False)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def refresh() -> None:
        for mine, theirs in zip(cast_copy.parameters(), policy.network.parameters(), strict=True):
            mine.copy_(whole(theirs))

    return _playing(policy, cast_copy, recipe, policy.name), refresh


def _informed(policy: HuggingFacePolicy, teacher: Teacher | None, recipe: Recipe, adapter: Any) -> Policy:
    """The teacher as it plays."""
    if teacher is None or teacher.network is None:
        raise UsageError(f"wanted one model as a teacher that plays, got {recipe.teacher!r}")
    bare = adapter.disable_adapter if isinstance(teacher, AdapterOff) else nullcontext
    return _Bare(_playing(policy, teacher.network, recipe, f"{policy.name} (teacher)"), bare)


class _Bare:
    """A policy that plays inside a context manager, such as one that switches an adapter off."""

    def __init__(self, inner: HuggingFacePolicy, around: Callable[[], AbstractContextManager[Any]]) -> None:
        self._inner, self._around = inner, around
        self.name = inner.name

    @property
    def weights(self) -> str:
        """The weights of who plays."""
        with self._around():
            return self._inner.weights

    def begin(self, context: str | None, seeds: Sequence[int]) -> Session:
        """Start one conversation a seed."""
        return _BareSession(self._inner.begin(context, seeds), self._around)


class _BareSession:
    """A session of such a policy."""

    def __init__(self, inner: Session, around: Callable[[], AbstractContextManager[Any]]) -> None:
        self._inner, self._around = inner, around

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer."""
        with self._around():
            return self._inner.reply(heard)
