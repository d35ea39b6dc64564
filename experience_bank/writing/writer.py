"""Ask a model and read what it says. Knows not what it is asked for: that is a scheme's business."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

from experience_bank.layer import chunks
from experience_bank.writing.deltas import Batch, Delta
from experience_bank.writing.quote import fenced, mark
from experience_bank.writing.records import Known, Shown, fitting, unfit
from experience_bank.writing.statements import LONGEST, RefusedError
from experience_bank.writing.templates import Prompts
from opcd_agents.rollout import answers
from opcd_agents.types import Info, Policy, Reply

STREAM: Final = 1_000_003  # as in `rollout.play`: what comes of two seeds does not meet
_TOGETHER: Final = 16  # prompts that a model answers side by side


@final
@dataclass(frozen=True)
class Writer:
    """A model that writes lessons.

    Attributes:
        policy: The model.
        count_tokens: Length of a text in the model's tokens.
        budget: Most tokens of a prompt.
        room: Most tokens of the lessons that a prompt shows.
        prompts: The texts of the prompts.
    """

    policy: Policy
    count_tokens: Callable[[str], int]
    budget: int = 8192
    room: int = 2048
    prompts: Prompts = field(default_factory=Prompts.load)


@final
@dataclass(frozen=True)
class Question:
    """One prompt before it is cut, and how its answer is read.

    Attributes:
        scheme: Name of the prompt.
        episodes: What is shown.
        most: Most lines of the answer.
        seed: Seed of the model's chance.
        read: (reply, what was shown) -> what the model wants; raises `RefusedError`.
        several: Whether the episodes are numbered, from 1.
        lessons: Placeholder to the quoted lines of the lessons that stand there.
    """

    scheme: str
    episodes: tuple[Known, ...]
    most: int
    seed: int
    read: Callable[[str, Sequence[Shown]], tuple[Delta, ...]]
    several: bool = False
    lessons: Mapping[str, str] = field(default_factory=dict[str, str])


def ask(writer: Writer, questions: Sequence[Question]) -> Iterator[Batch]:
    """One batch a question, in order. What the policy raises goes through; the batches before it are out by then."""
    for part in chunks(questions, _TOGETHER):
        ready = [_ready(writer, question) for question in part]
        heard: dict[int, tuple[str, Info]] = {
            s: (batch.prompt, {}) for s, (batch, _) in enumerate(ready) if batch.failed is None
        }
        session = writer.policy.begin(None, [question.seed for question in part])
        replies = answers(session, heard)
        for slot, (question, (batch, shown)) in enumerate(zip(part, ready, strict=True)):
            yield _answered(question, batch, shown, replies[slot]) if slot in replies else batch


def _ready(writer: Writer, question: Question) -> tuple[Batch, tuple[Shown, ...]]:
    """The batch before it is answered, and what its prompt shows."""
    ids = tuple(key for key, _ in question.episodes)
    empty = Batch(question.scheme, ids, question.seed, "", "")
    if reason := unfit(question.episodes):
        return replace(empty, failed=reason), ()
    fit = fitting(question.episodes, lambda shown: _prompt(writer, question, shown), writer.count_tokens, writer.budget)
    if fit is None:
        reason = f"the first and last turns alone have more than {writer.budget} tokens; raise the budget"
        return replace(empty, failed=reason), ()
    return replace(empty, prompt=fit[1]), fit[0]


def _prompt(writer: Writer, question: Question, shown: Sequence[Shown]) -> str:
    told = [episode.told() for episode in shown]
    if question.several:
        told = [f"Episode {number}\n{record}" for number, record in enumerate(told, 1)]
    bodies = {"record": "\n\n".join(told), **question.lessons}
    word = mark([writer.prompts.texts[question.scheme], *bodies.values()])
    values = {name: fenced(name, body, word) for name, body in bodies.items()}
    told_once = {"mark": word, "most": str(question.most), "longest": str(LONGEST)}
    return writer.prompts.fill(question.scheme, values | told_once)


def _answered(question: Question, batch: Batch, shown: Sequence[Shown], reply: Reply) -> Batch:
    if reply.error:
        return replace(batch, failed=reply.error)
    try:
        return replace(batch, raw=reply.text, deltas=question.read(reply.text, shown))
    except RefusedError as error:
        return replace(batch, raw=reply.text, failed=str(error))
