"""Recipes: a TOML file to a frozen dataclass. An unknown key is an error with a suggestion, never ignored."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from opcd_agents.errors import UnknownNameError, UsageError

METHODS: Final = ("opcd", "off-policy", "sft", "grpo")
_CHOICES: Final = {
    "method": METHODS,
    "divergence": ("", "reverse", "forward", "jsd", "sampled"),
    "support": ("exact", "student", "teacher", "union"),
    "tail": ("bucket", "renormalise", "truncate"),
    "rollouts": ("play", "replay"),
    "contexts": ("fixed", "random", "solution"),
    "learn": ("all", "answer", "final"),
    "history": ("", "append", "per_turn"),
    "thinking": ("", "on", "off"),
    "weights": ("all", "feed-forward"),
    "dtype": ("float32", "bfloat16"),
    "average": ("token", "sequence"),
    "keep": ("best", "last"),
}
_FROM_ONE: Final = (
    "updates",
    "episodes",
    "longest",
    "validation_episodes",
    "top_k",
    "teacher_every",
    "group",
    "row_tokens",
    "slots",
)
_FROM_NOUGHT: Final = (
    "sampled", "lr", "clip", "pull", "temperature", "anchors", "hold", "hold_target", "validate", "entry_clip", "importance", "nca",
    "lora_rank", "lora_alpha", "diagnose", "preflight",
)  # fmt: skip
_BOUNDS: Final = (
    dict.fromkeys(_FROM_ONE, (1.0, math.inf))
    | dict.fromkeys(_FROM_NOUGHT, (0.0, math.inf))
    | dict.fromkeys(("beta", "teacher_rate"), (0.0, 1.0))
    | {"kl_temperature": (1e-3, math.inf)}
)
_TERM: Final = re.compile(r"(?:([0-9]*\.?[0-9]+) )?(\S+)")  # of a weighted sum of teachers
_TAUGHT: Final = ("opcd", "off-policy")  # methods whose objective compares with a teacher

# Keys that some choices leave without meaning: (keys, what gives them one, whether it is so).
_MEANT: Final[tuple[tuple[tuple[str, ...], str, Callable[[Recipe], bool]], ...]] = (
    (
        ("divergence", "teacher", "support", "top_k", "tail", "entry_clip", "kl_temperature"),
        "method = 'opcd' or 'off-policy'",
        lambda r: r.method in _TAUGHT,
    ),
    (("contexts",), "method = 'opcd' or 'off-policy', or nca", lambda r: r.reads_context),
    (("support", "top_k", "tail", "kl_temperature"), "another divergence than 'sampled'", lambda r: r.divergence != "sampled"),
    (("top_k", "tail"), "support = 'student', 'teacher' or 'union'", lambda r: r.support != "exact"),
    (("beta",), "divergence = 'jsd'", lambda r: r.divergence == "jsd"),
    (("teacher_rate",), "teacher = 'ema' or 'trust'", lambda r: bool({"ema", "trust"} & dict(r.teachers).keys())),
    (("teacher_every",), "teacher = 'sync'", lambda r: "sync" in dict(r.teachers)),
    (("group",), "method = 'grpo'", lambda r: r.method == "grpo"),
    (("learn",), "rollouts = 'play' (a replay learns from the reply it adds)", lambda r: r.rollouts == "play"),
    (("lora_alpha",), "lora_rank", lambda r: r.lora_rank > 0),
    (("importance",), "method = 'opcd' or 'grpo', and a temperature above 0", lambda r: r.method in ("opcd", "grpo") and r.temperature > 0),
    (("hold_target",), "anchors, and a hold to adapt", lambda r: r.anchors > 0 and r.hold > 0),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What a distillation does. The defaults are those of the paper's games (arXiv 2602.12275, released scripts).

    Attributes:
        method: `opcd`: the student plays, reverse KL to the teacher. `off-policy`: the teacher plays with the context, forward KL. `sft`: the
            student plays, the likelihood of its won episodes. `grpo`: the student plays `group` episodes a task, likelihood
            weighted by how much better than its group an episode did.
        divergence: Other than the method's own: `reverse`, `forward`, `jsd` (with `beta`), or `sampled`: the sampled id alone, at the
            temperature it was sampled at.
        beta: Of `jsd`: from 0, forward, to 1, reverse.
        support: Ids that are compared: `exact` (all), or the `top_k` of `student`, `teacher` or their `union`.
        top_k: See `support`.
        tail: The ids outside the support: one `bucket`, left out and the rest scaled up (`renormalise`), or left out (`truncate`: the released code).
        entry_clip: Largest term of the divergence at one id (OPSD); with `sampled` the largest advantage; 0: no limit.
        kl_temperature: Divides the logits before they are compared, whatever they were sampled at.
        importance: Cap of importance weights where sampler and trainer differ; 0: none.
        teacher: `frozen`, `live`, `ema`, `sync`, `trust`, a model of the same vocabulary, an endpoint (http://..), or a weighted sum of
            single models ("0.5 frozen + 0.5 pocket-large"). With `off-policy` it plays, so it must be one model.
        teacher_rate: Of `ema` and `trust`: how much of the student they take on.
        teacher_every: Of `sync`: updates between two.
        rollouts: `play`: whole episodes; `replay`: only the next reply, on the beginnings of stored episodes, so that no game is needed (OEL).
        contexts: What the teacher reads: the same text (`fixed`), one of several by chance (`random`), or the task's `solution`.
        learn: From which sampled ids: `all`; `answer`: none of the thinking; `final`: those of the last reply.
        history: `append`: a row an episode; `per_turn`: a row a turn, as the chat template would have it; "": whichever the template allows.
        thinking: Whether the chat template is asked for it; "": as the template has it.
        updates: Most optimiser steps.
        sampled: Ids to sample for training, after which it ends however many updates that took; 0: no limit.
            Methods are compared at equal budgets of it.
        episodes: Episodes played for each update.
        group: Of `grpo`: episodes of one task; divides `episodes`.
        slots: Most episodes that are played at a time; where one ends, the next begins. What is played does not depend on it.
        lr: Peak learning rate.
        clip: Largest norm of the gradient; 0: no limit. Spikes that pass it swell Adam's second moment for many updates.
        pull: How much of the way back to the initial weights each update goes, at the peak of the learning rate; falls
            with it. Keeps what the anchors do not show (L2-SP, arXiv 1802.01483, decoupled as in AdamW).
        weights: `all`, or `feed-forward`: facts are learnt there, and the attention that reads notes stays as it is.
        lora_rank: Train a LoRA adapter of this rank instead, on the layers that `weights` names; 0: the weights themselves.
        lora_alpha: Its scale; 0: twice the rank.
        dtype: Of weights and passes; optimiser and divergence stay float32.
        checkpointing: Compute activations again in the backward pass instead of keeping them.
        row_tokens: Most ids of one forward pass of student or teacher in the learner, padding included, and the context unless rows read one copy of it.
        average: `token`: mean over all sampled ids; `sequence`: over episodes of each one's mean (Eq. 1 of the paper, whose y is all that
            is said in one episode), whatever the `history`.
        temperature: Sampling temperature of whoever plays.
        longest: Most ids of one reply.
        anchors: Rows of other worlds in each update (the bank's episodes on `--anchor SCOPE`, else conversations of the pocket models'
            curriculum, with their own notes); there the student is held to the initial weights, so that what is not distilled is kept.
            0: none.
        hold: Weight of the anchors against what is learnt.
        hold_target: KL on the anchors, in nats, that the weight is adapted to, doubled or halved where it is half as far off again,
            within a factor of 1,024 of `hold`; 0: it stays.
        nca: Weight of No-Context Anchoring (arXiv 2606.11627): reading the context again should change nothing; 0: none.
        diagnose: Mass of how many of the likeliest ids the diagnostics tell; 0: no diagnostics.
        preflight: Episodes with and without the context before the first update: is there anything to gain? 0: none.
        validate: Updates between validations; 0: never.
        validation_episodes: Episodes of one validation.
        keep: `best`: keep the weights of the best validation; `last`: of the last update.
    """

    method: str = "opcd"
    divergence: str = ""
    beta: float = 0.5
    support: str = "exact"
    top_k: int = 256
    tail: str = "bucket"
    entry_clip: float = 0.0
    kl_temperature: float = 1.0
    importance: float = 0.0
    teacher: str = "frozen"
    teacher_rate: float = 0.05
    teacher_every: int = 30
    rollouts: str = "play"
    contexts: str = "fixed"
    learn: str = "all"
    history: str = ""
    thinking: str = ""
    updates: int = 50
    sampled: int = 0
    episodes: int = 64
    group: int = 8
    slots: int = 64
    lr: float = 5e-6
    clip: float = 1.0
    pull: float = 0.0
    weights: str = "all"
    lora_rank: int = 0
    lora_alpha: float = 0.0
    dtype: str = "float32"
    checkpointing: bool = False
    row_tokens: int = 8192
    average: str = "token"
    temperature: float = 0.7
    longest: int = 1024
    anchors: int = 0
    hold: float = 1.0
    hold_target: float = 0.0
    nca: float = 0.0
    diagnose: int = 256
    preflight: int = 32
    validate: int = 10
    validation_episodes: int = 64
    keep: str = "best"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(name, getattr(self, name), [value for value in known if value])
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most or value == math.inf:
                upto = f" and at most {most:g}" if most < math.inf else ""
                raise UsageError(f"recipe: wanted {name} of at least {least:g}{upto}, got {value}")
        if self.rollouts == "replay" and self.method != "opcd":
            raise UsageError(f"recipe: wanted method = 'opcd' to replay beginnings, got {self.method!r}")
        if self.method == "grpo" and (self.group < 2 or self.episodes % self.group):
            raise UsageError(
                f"recipe: wanted a group of at least 2 that divides episodes, got {self.group} and {self.episodes}"
            )
        self._refuse_odd_teachers()
        self._refuse_other_samples()
        self._refuse_what_means_nothing()

    @property
    def teachers(self) -> tuple[tuple[str, float], ...]:
        """Names and weights of the teachers.

        Raises:
            UsageError: `teacher` is neither a name nor a sum.
        """
        terms = [_TERM.fullmatch(term.strip()) for term in self.teacher.split(" + ")]
        found = tuple((term[2], float(term[1] or 1)) for term in terms if term)
        weighted = [term[1] is not None for term in terms if term]
        if len(found) < len(terms) or any(weight <= 0 for _, weight in found) or weighted == [True]:
            raise UsageError(
                "recipe: wanted a teacher such as 'frozen', or several with weights above 0 such as '0.5 frozen + 0.5 ./folder', "
                f"got {self.teacher!r}"
            )
        return found

    @property
    def reads_context(self) -> bool:
        """Whether anything is learnt from what a context says."""
        return self.method in _TAUGHT or self.nca > 0

    def _refuse_odd_teachers(self) -> None:
        names = [name for name, _ in self.teachers]
        mixed = [name for name in names if name == "trust" or is_endpoint(name)]
        if len(names) > 1 and mixed:
            raise UsageError(f"recipe: wanted single models in a sum of teachers, got {mixed[0]!r}; use it alone")
        if self.method == "off-policy" and (mixed or len(names) > 1):
            raise UsageError(
                f"recipe: wanted one model as the teacher of method = 'off-policy', because it plays, got {self.teacher!r}"
            )
        if self.lora_rank and "trust" in names:
            raise UsageError(
                "recipe: wanted teacher = 'trust' with whole weights, got it with an adapter; use lora_rank = 0"
            )
        if any(is_endpoint(name) for name in names) and self.divergence != "sampled":
            if self.support != "teacher":
                raise UsageError(
                    "recipe: an endpoint tells no whole distribution; wanted divergence = 'sampled' or support = 'teacher'"
                )
            if self.kl_temperature != 1:
                raise UsageError(
                    "recipe: an endpoint tells too little to be cooled or heated; wanted kl_temperature = 1, "
                    f"got {self.kl_temperature:g}"
                )

    def _refuse_other_samples(self) -> None:
        """What learns from sampled ids alone must know what they were drawn from."""
        if self.temperature == 0 and (self.method == "grpo" or self.divergence == "sampled"):
            raise UsageError(
                "recipe: wanted a temperature above 0 for method = 'grpo' or divergence = 'sampled', which learn from chance, got 0"
            )
        if self.divergence == "sampled" and self.method == "off-policy":
            raise UsageError(
                "recipe: wanted ids that the student sampled for divergence = 'sampled', got method = 'off-policy'; use 'opcd'"
            )
        if self.divergence == "sampled" and self.temperature != 1 and is_endpoint(self.teacher):
            raise UsageError(
                "recipe: an endpoint tells log-probabilities at temperature 1 only, and divergence = 'sampled' compares at the temperature of "
                f"sampling; wanted temperature = 1, got {self.temperature:g}"
            )

    def _refuse_what_means_nothing(self) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        for names, wanted, meant in _MEANT:
            changed = [name for name in names if getattr(self, name) != defaults[name]]
            if changed and not meant(self):
                raise UsageError(
                    f"recipe: {changed[0]} = {getattr(self, changed[0])!r} means something only with {wanted}; leave it out, or set that too"
                )


def is_endpoint(teacher: str) -> bool:
    """Whether a teacher's name is an address."""
    return teacher.startswith(("http://", "https://"))


def recipe_from(values: dict[str, Any], base: Recipe | None = None) -> Recipe:
    """A recipe from plain values.

    Args:
        values: Keys of `Recipe`.
        base: Where the other values come from; None: the defaults.

    Raises:
        UnknownNameError: A key is not one of `Recipe`'s.
        UsageError: A value is of the wrong type or out of range.
    """
    known = {field.name: str(field.type) for field in fields(Recipe)}
    for key, value in values.items():
        if key not in known:
            raise UnknownNameError("recipe key", key, known)
        wanted = {"str": str, "int": int, "float": (int, float), "bool": bool}[known[key]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and known[key] != "bool"):
            raise UsageError(f"recipe: wanted {known[key]} for {key}, got {value!r}")
    return replace(base or Recipe(), **values)


def load_recipe(path: Path, base: Recipe | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: A TOML file with keys of `Recipe`.
        base: Where the other values come from; None: the defaults.

    Raises:
        UsageError: There is no such file, or it is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return recipe_from(values, base)
