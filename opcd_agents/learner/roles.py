"""Who plays, who teaches and who learns: a recipe and a model made into the parts of a distillation. Plays nothing itself."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from transformers import PreTrainedModel

from opcd_agents.errors import MissingError, UsageError
from opcd_agents.learner.averages import Average
from opcd_agents.learner.endpoint import Endpoint
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import Divergence, ForwardKL, NegativeLogLikelihood, Objective, ReverseKL, SampledKL
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.teachers import LIVE, AdapterOff, Ensemble, Following, Frozen, Live, Teacher, TrustRegion
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import head_of
from opcd_agents.recipe import Recipe
from opcd_agents.types import Info, Policy, Reply, Session

Load = Callable[[str], PreTrainedModel]  # a model of the same vocabulary, by its name

_TERM: Final = re.compile(r"(?:([0-9]*\.?[0-9]+) )?(\S+)")


@dataclass(frozen=True)
class Roles:
    """The parts of a distillation.

    Attributes:
        player: The student as it plays; `refresh` before it does.
        informed: Who plays with the context where the teacher plays: the initial weights.
        learner: Who learns.
        refresh: Takes the student's newest weights over to `player`.
        adapter: The model of peft around the student, where only an adapter is trained.
    """

    player: HuggingFacePolicy
    informed: Policy
    learner: Learner
    refresh: Callable[[], None]
    adapter: Any = None


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
    """
    student = policy.network
    adapter = _adapter(student, recipe, seed) if recipe.lora_rank else None
    low = _low(student, recipe)
    initial = None if adapter else copy.deepcopy(student).to(low)  # pyright: ignore[reportArgumentType]
    if adapter is None:
        _choose_weights(student, recipe.weights)
    keeper: Teacher = AdapterOff(adapter) if initial is None else Frozen(initial)
    learner = Learner(
        student,
        _teacher(recipe, student, initial, keeper, load) if _objective(recipe).needs_teacher else None,
        _objective(recipe),
        _settings(recipe, low),
        keeper=keeper,
        workers=workers or Alone(),
    )
    name, bare = f"{policy.name} (teacher)", adapter.disable_adapter if adapter else nullcontext
    informed = _Bare(_playing(policy, initial or student, recipe, name), bare)
    player, refresh = _player(policy, recipe, low)
    return Roles(player, informed, learner, refresh, adapter)


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
    recipe: Recipe, student: PreTrainedModel, initial: PreTrainedModel | None, keeper: Teacher, load: Load
) -> Teacher:
    """The teacher that a recipe names, or several with their weights."""
    known: dict[str, Callable[[], Teacher]] = {
        "frozen": lambda: keeper,
        "live": lambda: _warned(Live(student)),
        "ema": lambda: Following(student, recipe.teacher_rate),
        "sync": lambda: Following(student, 1.0, recipe.teacher_every),
        "trust": lambda: TrustRegion(_whole(initial), student, recipe.teacher_rate),
    }

    def one(name: str) -> Teacher:
        if name.startswith(("http://", "https://")):
            return Endpoint(name, head_of(student).weight.shape[0], _told(recipe))
        return known[name]() if name in known else Frozen(load(name))

    terms = [_TERM.fullmatch(term.strip()) for term in recipe.teacher.split(" + ")]
    members = [(one(term[2]), float(term[1] or 1)) for term in terms if term]
    if len(members) < len(terms):
        raise UsageError(f"wanted a teacher such as 'frozen' or '0.5 frozen + 0.5 ./folder', got {recipe.teacher!r}")
    return members[0][0] if len(members) == 1 else Ensemble(members)


def _warned(teacher: Live) -> Live:
    warnings.warn(LIVE, stacklevel=2)
    return teacher


def _whole(initial: PreTrainedModel | None) -> PreTrainedModel:
    if initial is None:
        raise UsageError("wanted teacher = 'trust' with whole weights, got it with an adapter; use lora_rank = 0")
    return initial


def _told(recipe: Recipe) -> int:
    """How many likeliest ids an endpoint is asked for."""
    if recipe.divergence == "sampled":
        return 0
    if recipe.support != "teacher":
        raise UsageError(
            "an endpoint tells no whole distribution; wanted divergence = 'sampled' or support = 'teacher'"
        )
    return recipe.top_k


def _choose_weights(network: torch.nn.Module, which: str) -> None:
    """Freeze what is not to be trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(which == "all" or ".mlp." in name)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("wanted a model with feed-forward layers named `mlp`, got none; use weights = 'all'")


def _adapter(network: PreTrainedModel, recipe: Recipe, seed: int) -> Any:
    """The model of peft around `network`, whose layers get adapters in place."""
    try:
        import peft
    except ImportError as error:
        raise MissingError("wanted peft for lora_rank; pip install 'opcd-agents[lora]'") from error
    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=int(recipe.lora_alpha or 2 * recipe.lora_rank),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by an old name
        torch.manual_seed(seed)
        return peft.get_peft_model(network, config).eval()


def _low(network: PreTrainedModel, recipe: Recipe) -> torch.dtype:
    """What passes are computed in; the trained weights stay as they came in."""
    return torch.bfloat16 if recipe.dtype == "bfloat16" else network.dtype


def _playing(policy: HuggingFacePolicy, network: PreTrainedModel, recipe: Recipe, name: str) -> HuggingFacePolicy:
    return HuggingFacePolicy(network, policy.renderer, name, recipe.temperature, recipe.longest)


def _player(
    policy: HuggingFacePolicy, recipe: Recipe, low: torch.dtype
) -> tuple[HuggingFacePolicy, Callable[[], None]]:
    """The student as it plays: itself, or, where passes are in bfloat16, one copy an update, never a cast for each token."""
    if low == policy.network.dtype:
        return _playing(policy, policy.network, recipe, policy.name), lambda: None
    cast_copy = copy.deepcopy(policy.network).to(low).requires_grad_(False)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def refresh() -> None:
        for mine, theirs in zip(cast_copy.parameters(), policy.network.parameters(), strict=True):
            mine.copy_(theirs)

    return _playing(policy, cast_copy, recipe, policy.name), refresh


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
