"""The learner: examples in, one optimiser step, metrics out. Knows no environment, bank or tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from opcd_agents.errors import LearnerError
from opcd_agents.learner.averages import Average, Weighed, weighed
from opcd_agents.learner.diagnostics import Seen, summary
from opcd_agents.learner.forward import Passes, student_states
from opcd_agents.learner.fused import Sampler, fused
from opcd_agents.learner.objectives import ForwardKL, Objective
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.sharding import is_sharded, whole
from opcd_agents.learner.teachers import Live, Teacher, shared_rows
from opcd_agents.policies.loading import head_of
from opcd_agents.types import Example, Tokens


@dataclass(frozen=True)
class Metrics:
    """What one update did.

    Attributes:
        loss: The objective, averaged as asked, in nats.
        anchor: Mean KL to the keeper on the anchors, in nats, times their weight.
        reread: Mean KL, in nats, times its weight, of the student with the context to the student without it; see `nca` of `Learner`.
        first_token: Mean loss at the first id learnt from in each episode; a template mismatch shows here.
        grad_norm: Norm of the gradient before clipping.
        sampled: Sampled ids learnt from.
        encoded: Ids that the student encoded, padding left out.
        diagnostics: What else the passes over the examples saw; see `diagnostics.summary`.
    """

    loss: float
    anchor: float
    reread: float
    first_token: float
    grad_norm: float
    sampled: int
    encoded: int
    diagnostics: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Settings:
    """How a learner goes about its updates.

    Attributes:
        lr: Peak learning rate of AdamW.
        average: `token`: mean over all sampled ids; `sequence`: mean over episodes of each one's mean, in one row or several
            (OPCD, arXiv 2602.12275, Eq. 1, whose y is all that the student says in answer to one x, here in one episode).
        clip: Largest gradient norm.
        pull: How much of the way back to the weights of now each update goes, times its `scale`.
        row_tokens: Most ids in one forward pass of student or teacher, padding included; see `Passes` for a teacher's prefix.
        importance: Cap of the importance weights where sampler and trainer differ; 0: none.
        temperature: At which the sampled ids were drawn; importance weights are taken there.
        top: How many of the likeliest ids the diagnostics add up; 0: no diagnostics.
        dtype: What passes are computed in, the teacher's too; None: that of the weights.
        checkpointing: Compute activations again in the backward pass instead of keeping them.
        nca: Weight of No-Context Anchoring, KL(student without context, held fixed || student with it), arXiv 2606.11627; 0: none.
    """

    lr: float
    average: Average = "token"
    clip: float = 1.0
    pull: float = 0.0
    row_tokens: int = 8192
    importance: float = 0.0
    temperature: float = 1.0
    top: int = 0
    nca: float = 0.0
    dtype: torch.dtype | None = None
    checkpointing: bool = False


class Learner:
    """Updates a student towards an objective.

    Args:
        student: The model to train, changed in place: those of its parameters that require a gradient.
        teacher: Who reads the teacher rows; None where the objective wants none.
        objective: What is minimised.
        settings: How.
        keeper: Who holds the anchors, as a rule the initial weights; None: the teacher.
        workers: The processes that share an update.
        mirror: A whole copy of a student that lies in parts, as new as the examples.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: Teacher | None,
        objective: Objective,
        settings: Settings,
        *,
        keeper: Teacher | None = None,
        workers: Workers | None = None,
        mirror: PreTrainedModel | None = None,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self.settings = settings
        self._keeper = keeper or teacher
        self._workers = workers or Alone()
        self._trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self._home = [parameter.detach().clone() for parameter in self._trained] if settings.pull else []
        self._rereader = Live(mirror or student) if settings.nca else None
        self._passes = Passes(settings.row_tokens, settings.dtype)
        # Fused, it needs no temporaries of the weights' size.
        self.optimizer = torch.optim.AdamW(
            self._trained, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self.updates = 0

    def update(
        self, examples: Sequence[Example], anchors: Sequence[Example] = (), *, hold: float = 1.0, scale: float = 1.0
    ) -> Metrics:
        """One optimiser step.

        Args:
            examples: What is learnt; at least one of a weight other than 0 in all processes together. With several processes,
                this one's share, in which no episode is divided.
            anchors: What must stay as it is: the student is held to the keeper on these rows by forward KL, averaged like
                the examples.
            hold: Weight of the anchors against the examples.
            scale: Factor of the learning rate for this step.

        Raises:
            LearnerError: Loss or gradient is not finite; nothing was changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * scale
        self.optimizer.zero_grad(set_to_none=True)
        learnt = self._accumulate(examples, self.objective, self.teacher, top=self.settings.top)
        held = self._accumulate(anchors, ForwardKL(), self._keeper, hold)
        reread = self._reread(examples) if self._rereader else _Sums()
        self._workers.add_up(self._trained)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._trained, self.settings.clip)))
        learnt, held, reread = (sums.over(self._workers) for sums in (learnt, held, reread))
        if not math.isfinite(learnt.loss + held.loss + reread.loss) or not math.isfinite(norm):
            raise LearnerError(
                f"update {self.updates + 1}: loss {learnt.loss:g}, anchors {held.loss:g}, gradient norm {norm:g}; nothing was changed; "
                "lower lr or set clip, or train in float32"
            )
        self.optimizer.step()
        self._return(self.settings.pull * scale)
        self.updates += 1
        for teacher in {id(t): t for t in (self.teacher, self._keeper, self._rereader) if t is not None}.values():
            teacher.step(self.updates)
        return Metrics(
            loss=learnt.loss,
            anchor=held.loss,
            reread=reread.loss,
            first_token=learnt.first / max(learnt.episodes, 1),
            grad_norm=norm,
            sampled=learnt.sampled,
            encoded=learnt.encoded + held.encoded + reread.encoded,
            diagnostics=summary(learnt.seen),
        )

    @torch.no_grad()
    def _return(self, part: float) -> None:
        """Go a part of the way back to where the training began."""
        if part:
            for parameter, home in zip(self._trained, self._home, strict=True):
                parameter.lerp_(home, part)

    def _reread(self, examples: Sequence[Example]) -> _Sums:
        """No-Context Anchoring: with the context, the student is held to what it says without."""
        turned = [replace(e, student=e.teacher, teacher=e.student, drawn=(), weight=1.0) for e in examples if e.weight]
        return self._accumulate(turned, ForwardKL(), self._rereader, self.settings.nca)

    def _accumulate(
        self,
        examples: Sequence[Example],
        objective: Objective,
        teacher: Teacher | None,
        factor: float = 1.0,
        top: int = 0,
    ) -> _Sums:
        """Add `factor` times the gradient of an objective; returns its average times that, and what was seen.

        Rows of weight 0 count in the average, and go through no model.
        """
        each = weighed(examples, self.settings.average, self._workers, factor)
        shown = [one for one in each if one.weight]
        sums = _Sums(
            episodes=sum(one.first for one in shown),
            sampled=sum(one.example.counts for one in shown),
            encoded=sum(len(one.example.student.ids) for one in shown),
        )
        parts = list(self._parts(shown))
        passes = self._workers.most(len(parts)) if is_sharded(self.student) else len(parts)
        for part in parts:
            sums.add(self._backward(part, objective, teacher, top))
        for _ in range(passes - len(parts)):
            self._stand_by()
        return sums

    def _stand_by(self) -> None:
        """A pass that changes nothing: other processes have more rows, and no weight is whole without this one's part."""
        row, settings = Tokens((0, 0), (False, True)), self.settings
        hidden = student_states(self.student, [row], settings.dtype, checkpointing=settings.checkpointing)
        (0 * (hidden.sum() + head_of(self.student).weight.sum())).backward()

    def _parts(self, rows: Sequence[Weighed]) -> Iterator[list[Weighed]]:
        """Micro-batches of rows of like length, by a budget of the student's ids with padding; the teacher has its own."""
        part: list[Weighed] = []
        for row in sorted(rows, key=lambda row: len(row.example.student.ids)):
            if part and (len(part) + 1) * len(row.example.student.ids) > self.settings.row_tokens:
                yield part
                part = []
            part.append(row)
        if part:
            yield part

    def _backward(self, part: Sequence[Weighed], objective: Objective, teacher: Teacher | None, top: int) -> _Sums:
        """Accumulate the gradient of some rows."""
        examples, device = [one.example for one in part], self.student.device
        rows = [e.student for e in examples]
        counts = torch.tensor([sum(row.sampled) for row in rows], device=device)
        said = torch.tensor([i for row in rows for i in row.said], device=device)
        each = torch.tensor([one.weight for one in part], device=device).repeat_interleave(counts)
        if any(e.learnt for e in examples):
            learnt = [mine for e in examples for mine in e.learnt or [True] * len(e.student.said)]
            each = each * torch.tensor(learnt, device=device)
        teaches = teacher if objective.needs_teacher else None
        theirs = teaches([e.teacher for e in examples], self._passes) if teaches is not None else None
        hidden = student_states(self.student, rows, self.settings.dtype, checkpointing=self.settings.checkpointing)
        head = shared_rows(head_of(self.student).weight.to(hidden.dtype), theirs)
        if theirs is not None and int(said.max()) >= len(head):
            raise LearnerError(
                f"wanted sampled ids that the teacher knows, below {len(head)}, got {int(said.max())}; take another teacher"
            )
        result = fused(objective, hidden, head, theirs, said, each, sampler=self._sampler(examples), top=top)
        result.loss.backward()
        begins = counts.cumsum(0) - counts
        firsts = [(e.learnt or (True,)).index(True) for e in examples]
        opening = torch.tensor([one.first for one in part], device=device)
        first = result.losses[begins + torch.tensor(firsts, device=device)][opening].sum()
        seen = [Seen(examples, result.losses, result.statistics)] if result.statistics else []
        return _Sums(float(result.loss.detach()), float(first), seen=seen)

    def _sampler(self, examples: Sequence[Example]) -> Sampler | None:
        """Who drew the ids, where that matters."""
        if not self.settings.importance or not all(e.drawn for e in examples):
            return None
        drawn = torch.tensor([one for e in examples for one in e.drawn], device=self.student.device)
        return Sampler(drawn, self.settings.importance, self.settings.temperature)


@dataclass
class _Sums:
    """Sums over rows, of one process or of all."""

    loss: float = 0.0
    first: float = 0.0
    episodes: int = 0
    sampled: int = 0
    encoded: int = 0
    seen: list[Seen] = field(default_factory=list[Seen])

    def add(self, other: _Sums) -> None:
        """Take in a part."""
        self.loss += other.loss
        self.first += other.first
        self.seen += other.seen

    def over(self, workers: Workers) -> _Sums:
        """Over all processes; what was seen stays that of this one."""
        loss, first, episodes, sampled, encoded = workers.total(
            [self.loss, self.first, self.episodes, self.sampled, self.encoded]
        )
        return _Sums(loss, first, int(episodes), int(sampled), int(encoded), self.seen)
