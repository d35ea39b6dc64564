"""Three layouts of one multi-turn update, and what counts their work; see `update.py`.

`Ours` is this project's learner. `Dense` is restated in plain torch: rows of whole episodes or of single turns, logits of
all their positions, and autograd. `Forgetful` plays as a client of a chat endpoint does, without states between the turns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import ReverseKL
from opcd_agents.learner.teachers import Frozen
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.types import Example, Info, Reply, Tokens


@dataclass
class Work:
    """What one phase cost: CPU seconds, ids encoded by each model, rows projected to the vocabulary by both."""

    seconds: float = 0.0
    student: int = 0
    teacher: int = 0
    head: int = 0


class IdText:
    """A renderer whose texts are ids in decimals: every length is exact, and no reply ends early."""

    end_id = -1
    history = "append"

    def opening(self, context: str | None, observation: str) -> list[int]:
        """Ids of the context and of the first observation."""
        return [int(i) for i in f"{context or ''} {observation}".split()]

    def following(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids of a later observation."""
        return self.opening(None, observation)

    def text(self, sampled: Sequence[int]) -> str:
        """Ids as text."""
        return " ".join(map(str, sampled))


class Forgetful:
    """A session that keeps nothing but text, as behind a chat endpoint: each turn encodes the whole history again."""

    def __init__(self, policy: HuggingFacePolicy, seeds: Sequence[int]) -> None:
        self._policy = policy
        self._chance: list[Any] = [np.random.default_rng(seed) for seed in seeds]
        self._history = ["" for _ in seeds]

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer each slot's observation."""
        whole = {slot: (f"{self._history[slot]} {text}", info) for slot, (text, info) in heard.items()}
        replies = self._policy.begin(None, self._chance).reply(whole)  # a generator as seed goes on where it stood
        for slot, reply in replies.items():
            self._history[slot] = f"{whole[slot][0]} {reply.text}"
        return replies


class Meter:
    """Counts what two models do while a phase runs."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        self._work = Work()
        for side, network in (("student", student), ("teacher", teacher)):
            network.get_decoder().register_forward_pre_hook(partial(self._encode, side), with_kwargs=True)
            network.get_output_embeddings().register_forward_pre_hook(lambda _, args: self.project(args[0]))

    @contextmanager
    def phase(self) -> Generator[Work]:
        """Measure a phase; what it cost is known when it ends."""
        self._work = work = Work()
        began = time.process_time()
        yield work
        work.seconds = time.process_time() - began

    def project(self, rows: Tensor) -> None:
        """Count rows of a head; the last dimension is the row."""
        self._work.head += rows.numel() // rows.shape[-1]

    def _encode(self, side: str, _module: torch.nn.Module, _args: tuple[()], named: dict[str, Any]) -> None:
        setattr(self._work, side, getattr(self._work, side) + named["input_ids"].numel())


class MeteredReverseKL:
    """The objective, counting the rows it is shown: the fused loss projects without calling a head."""

    needs_teacher = True

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._formula = ReverseKL()

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        self._meter.project(student)
        self._meter.project(teacher)
        return self._formula(student, teacher, said)


class Updater(Protocol):
    """What is compared: one optimiser step on examples."""

    def update(self, examples: Sequence[Example]) -> float:
        """Learn from the examples; returns the mean loss of a sampled id in nats."""
        ...


class Ours:
    """This project's learner. The rate is 0, so that a second update is the first one over again."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, meter: Meter) -> None:
        self._learner = Learner(student, Frozen(teacher), MeteredReverseKL(meter), Settings(lr=0.0, clip=1e9))

    def update(self, examples: Sequence[Example]) -> float:
        """See `Updater`."""
        return self._learner.update(examples).loss


class Dense:
    """A restated layout: passes of rows through both models and heads.

    Args:
        student: The model to train.
        teacher: The frozen model.
        passes: Cuts the episodes into the rows of each pass.
        every: Whether all positions go through the heads, or those from the first sampled id on.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        passes: Callable[[Sequence[Example]], Iterable[Sequence[Example]]],
        every: bool,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._passes, self._every = passes, every
        self._optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def update(self, examples: Sequence[Example]) -> float:
        """See `Updater`."""
        self._optimizer.zero_grad(set_to_none=True)
        count = sum(len(e.student.said) for e in examples)
        total = 0.0
        for part in self._passes(examples):
            loss = self._kl(part) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._student.parameters(), 1e9)
        self._optimizer.step()
        return total

    def _kl(self, examples: Sequence[Example]) -> Tensor:
        ours = self._logprobs(self._student, [e.student for e in examples])
        with torch.no_grad():
            theirs = self._logprobs(self._teacher, [e.teacher for e in examples])
        return (ours.exp() * (ours - theirs)).sum()

    def _logprobs(self, network: PreTrainedModel, rows: Sequence[Tokens]) -> Tensor:
        """Log-probabilities [sampled ids, vocabulary], by way of all of the pass's logits [B, T, V]."""
        first = 1 if self._every else rows[0].sampled.index(True)
        ids = torch.tensor([row.ids for row in rows])
        sampled = torch.tensor([row.sampled[first:] for row in rows])
        logits = network(input_ids=ids, logits_to_keep=sampled.shape[1] + 1, use_cache=False).logits
        return torch.log_softmax(logits[:, :-1], -1)[sampled]


def turn_rows(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Each turn as a pass of its own: the row up to its end, in which only its reply is learnt."""
    for example in examples:
        yield from ([Example(*pair)] for pair in zip(cuts(example.student), cuts(example.teacher), strict=True))


def cuts(row: Tokens) -> Iterator[Tokens]:
    """A row for each reply in a row."""
    flags = bytes(row.sampled)
    for reply in re.finditer(b"\x01+", flags):
        start, end = reply.span()
        yield Tokens(row.ids[:end], (False,) * start + (True,) * (end - start))
