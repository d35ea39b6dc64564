"""The nouns of the project, as frozen data. Standard library only; knows no tokenizer, environment or model.

Token ids are kept as they were sampled. Whoever needs a row of ids joins `Turn.prompt_ids` and
`Turn.sampled_ids`; nothing downstream encodes text again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from opcd_agents.errors import AlignmentError

Info = dict[str, Any]


class Split(StrEnum):
    """Which side of the evaluation a task is on. Decided by the task's fingerprint alone."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Task:
    """One playable instance.

    Attributes:
        env_id: A registered environment, such as `opcd/House-v0`.
        kwargs: What makes the instance: JSON values only.
        seed: Seed of whatever chance the environment has while it is played.
        split: The side of the split this task is on.
        scope: The world that lessons learnt here hold for, such as `house/7` or `operator/#34`.
        fingerprint: sha256 (hex) of the canonical initial state, goal included.
        optimal: Length of a shortest solution in turns; None if unknown.
        limit: Turns after which the episode is truncated.
    """

    env_id: str
    kwargs: Mapping[str, Any]
    seed: int
    split: Split
    scope: str
    fingerprint: str
    optimal: int | None
    limit: int


class Outcome(StrEnum):
    """How an episode ended. `FAILED` (engine or endpoint error) is data, never a reward of 0."""

    WON = "won"
    LOST = "lost"
    TRUNCATED = "truncated"
    FAILED = "failed"


@dataclass(frozen=True)
class Turn:
    """One exchange: what was shown, what was said, what it brought.

    Attributes:
        observation: What the environment showed before the reply.
        reply: The reply as text.
        action: The command read from the reply.
        reward: Reward of the action.
        prompt_ids: Only the ids that are new in front of this reply; empty where no tokens exist.
        sampled_ids: The reply as sampled, end token included if it was sampled.
        logprobs: Log-probability in nats of each sampled id under the sampler; same length.
        invalid: Why the action was refused, or None.
        admissible: Commands that the player was told would do something here; empty where it was told none.
    """

    observation: str
    reply: str
    action: str
    reward: float = 0.0
    prompt_ids: tuple[int, ...] = ()
    sampled_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    invalid: str | None = None
    admissible: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Who played: enough to know whether two episodes came from the same player and code."""

    model: str
    weights: str
    seed: int
    code_version: str
    context_id: str | None = None


@dataclass(frozen=True)
class Episode:
    """One play of one task. `final` is the last observation, `error` says why an episode failed."""

    task: Task
    turns: tuple[Turn, ...]
    outcome: Outcome
    provenance: Provenance
    final: str = ""
    error: str | None = None

    @property
    def won(self) -> bool:
        """Whether the task was solved."""
        return self.outcome is Outcome.WON


@dataclass(frozen=True)
class Lesson:
    """One thing learnt.

    Attributes:
        kind: What sort of statement it is: `place`, `exit`, `workflow`, `effect`, `precondition`, `necessity`, `non_contribution`, `pitfall`,
            `contrast`, `format`, or `strategy` (free words).
        scope: What it holds for, such as `house/7`.
        statement: The lesson in words.
        facts: The statement as data, for renderers that order or select.
        evidence: (episode id, turn index) pairs that show it.
    """

    kind: str
    scope: str
    statement: str
    facts: Mapping[str, str]
    evidence: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Context:
    """What the teacher reads and the student does not. `id` is a hash of the text.

    Attributes:
        id: sha256 (hex, 16 digits) of text, renderer and tokenizer.
        text: The text, as it stands in the system message.
        source: `experience`, `system_prompt` or `solution`.
        version: Counts up for each scope.
        scope: What it was made for, such as `house/7`.
        lessons: Ids of the lessons in it, in order.
        tokens: Length under the tokenizer it was budgeted with.
        renderer: What made text of the lessons.
        tokenizer: Name of the model whose tokenizer counted.
        budget: Most tokens it might have had; 0: there was no budget.
    """

    id: str
    text: str
    source: str
    version: int
    scope: str
    lessons: tuple[str, ...] = ()
    tokens: int = 0
    renderer: str = ""
    tokenizer: str = ""
    budget: int = 0


@dataclass(frozen=True)
class Tokens:
    """A row of ids and which of them were sampled; same length."""

    ids: tuple[int, ...]
    sampled: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.sampled):
            raise AlignmentError(f"wanted one flag an id, got {len(self.ids)} ids and {len(self.sampled)} flags")

    @property
    def said(self) -> tuple[int, ...]:
        """The sampled ids in order."""
        return tuple(i for i, mine in zip(self.ids, self.sampled, strict=True) if mine)

    @classmethod
    def of(cls, turns: Sequence[Turn], opening: Sequence[int] | None = None) -> Tokens:
        """The row of an episode: each turn's new prompt ids, then what was sampled.

        Args:
            turns: The turns of one episode.
            opening: Ids to stand in place of the first turn's prompt (the teacher's, with the context).
        """
        ids: list[int] = []
        sampled: list[bool] = []
        for index, turn in enumerate(turns):
            prompt = opening if index == 0 and opening is not None else turn.prompt_ids
            ids += [*prompt, *turn.sampled_ids]
            sampled += [False] * len(prompt) + [True] * len(turn.sampled_ids)
        return cls(tuple(ids), tuple(sampled))


@dataclass(frozen=True)
class Example:
    """A student row and a teacher row that share every sampled id, one for one.

    Attributes:
        student: Without the context.
        teacher: With it.
        learnt: Which of the sampled ids are learnt from; empty: all of them.
        drawn: Log-probability of each sampled id as it was drawn, for importance weights; empty where it is not known.
        weight: Factor of the row's loss; an advantage, of either sign, for policy gradients. A row of weight 0 counts in means
            and costs no pass.
        episode: Rows of one episode have the same number, in an update; None: the row is an episode of its own.
        turn: Number of the row's first reply in its episode, from 0.

    Raises:
        AlignmentError: The rows differ in what was sampled, nothing was sampled, a row begins with a sampled id (nothing
            would predict it), or `learnt` or `drawn` is of another length or leaves nothing to learn from.
    """

    student: Tokens
    teacher: Tokens
    learnt: tuple[bool, ...] = ()
    drawn: tuple[float, ...] = ()
    weight: float = 1.0
    episode: int | None = None
    turn: int = 0

    @property
    def counts(self) -> int:
        """How many of the sampled ids are learnt from."""
        return sum(self.learnt) if self.learnt else len(self.student.said)

    def __post_init__(self) -> None:
        mine, theirs = self.student.said, self.teacher.said
        for name, given in (("learnt", self.learnt), ("drawn", self.drawn)):
            if given and len(given) != len(mine):
                raise AlignmentError(f"wanted {name} for each of {len(mine)} sampled ids, got {len(given)}")
        if self.learnt and not any(self.learnt):
            raise AlignmentError("wanted a row with sampled ids to learn from, got a mask that leaves none")
        if not mine:
            raise AlignmentError("wanted a row with sampled ids, got none")
        if mine != theirs:
            at = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
            )
            raise AlignmentError(
                f"student and teacher rows must share every sampled id; they part at sampled position {at} "
                f"({len(mine)} ids against {len(theirs)})"
            )
        if self.student.sampled[0] or self.teacher.sampled[0]:
            raise AlignmentError("wanted a prompt in front of the first sampled id, got none")


@dataclass(frozen=True)
class Reply:
    """What a policy says: text, and its ids where it has tokens.

    `prompt_ids` are the ids that were new in front of this reply, `admissible` the commands it chose among, where it was
    told any. `error` says why there is no reply: it ends the episode as failed.
    """

    text: str
    prompt_ids: tuple[int, ...] = ()
    sampled_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    admissible: tuple[str, ...] = ()
    error: str = ""


class Session(Protocol):
    """Conversations that one policy is having, some at a time. Slots are numbered from 0."""

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer the observations of some slots.

        Args:
            heard: slot -> (observation, info of the environment). A slot that was answered and is not named is over; one
                whose answer is still owed is not named again.

        Returns:
            slot -> reply, for at least one of those whose answer is owed, now or from an earlier call; so nobody need wait for the slowest.
        """
        ...


class Policy(Protocol):
    """Whatever acts: a model, a script, chance, a person."""

    @property
    def name(self) -> str:
        """How it is called in tables and provenance."""
        ...

    @property
    def weights(self) -> str:
        """A hash of its weights; "" where it has none."""
        ...

    def begin(self, context: str | None, seeds: Sequence[int]) -> Session:
        """Start one conversation a seed, each with the same context (None: no context)."""
        ...


class Playable(Protocol):
    """What a rollout needs of an environment: Gymnasium's interface over text."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, Info]:
        """Start the task in `options["task"]`."""
        ...

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Observation, reward, terminated, truncated, info."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


MakeEnv = Callable[[Task], Playable]


@dataclass(frozen=True)
class Score:
    """Wins among episodes with a 95 % Wilson interval."""

    wins: int
    episodes: int
    low: float
    high: float
    by_task: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]], repr=False)

    @property
    def rate(self) -> float:
        """Share of episodes won; 0 where none was played."""
        return self.wins / self.episodes if self.episodes else 0.0
