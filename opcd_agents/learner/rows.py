"""Episodes to pairs of rows, and how long they may be: the student's without the context, the teacher's with it, whoever played.

An episode does not say with which `history` it was played; the renderer it is handed does, and must be the one it was
played with. Knows no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner.teachers import Teacher
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import positions
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.types import Episode, Example, Tokens


@dataclass(frozen=True)
class Room:
    """How long rows may be.

    Attributes:
        renderer: Of the student's tokenizer.
        most: Most ids of a row: the positions of student or teacher, whichever has fewer; None: no limit.
        reply: Most ids of a reply.
    """

    renderer: Renderer
    most: int | None
    reply: int

    @classmethod
    def of(cls, policy: HuggingFacePolicy, teacher: Teacher | None, recipe: Recipe) -> Room:
        """What both models take."""
        known = [positions(policy.network), teacher.positions if teacher else None]
        return cls(policy.renderer, min((n for n in known if n is not None), default=None), recipe.longest)

    def check(self, context: str, prompt: Sequence[int] = ()) -> None:
        """Refuse a context before anything is sampled that would not fit.

        Args:
            context: What the teacher reads.
            prompt: All ids in front of a reply, without the context; empty: an opening that shows nothing.

        Raises:
            ModelError: With the context and a reply of the longest kind, a row would be longer than the models take.
        """
        bare = self.renderer.opening(None, "")
        length = len(self.renderer.opening(context, "")) - len(bare) + len(prompt or bare) + self.reply
        if self.most is not None and length > self.most:
            raise ModelError(
                f"wanted rows of at most {self.most} ids, the positions of student and teacher, got a prompt with the context that would make "
                f"them {length} with a reply of {self.reply}; shorten the context, lower longest, or take models with more positions"
            )


def examples(episode: Episode, renderer: Renderer, context: str, longest: int | None = None) -> list[Example]:
    """Pair the rows of one episode.

    Args:
        episode: At least one turn.
        renderer: The one it was played with. History `append`: one growing row an episode; `per_turn`: a row for each
            turn, whose prompt is rendered from all that was heard and said before it.
        context: What the teacher reads, as system message, or in front of the first observation where the template has
            no system role.
        longest: Most ids of a row, as `positions(network)` tells; None: no limit.

    Raises:
        ModelError: A row is longer than that. Nothing is ever cut off.
    """
    pairs = (
        [example(episode, renderer, context)] if renderer.history == "append" else _by_turn(episode, renderer, context)
    )
    for pair in pairs:
        _fits(pair, longest)
    return pairs


def example(episode: Episode, renderer: Renderer, context: str) -> Example:
    """The rows of one episode that was played with history `append`.

    Raises:
        UsageError: The renderer's history is another.
    """
    if renderer.history != "append":
        raise UsageError(
            "wanted a renderer with history 'append' for one row an episode; `examples` pairs turn by turn"
        )
    first = episode.turns[0].observation
    student = Tokens.of(episode.turns, renderer.opening(None, first))
    return Example(student, Tokens.of(episode.turns, renderer.opening(context, first)))


def anchors(episode: Episode, renderer: Renderer, longest: int | None = None) -> list[Example]:
    """The rows of an episode as it was played, with a context of its own or without one; both sides read the same.

    Args:
        episode: At least one turn, with token ids.
        renderer: The one it was played with.
        longest: As `examples` takes it.

    Raises:
        ModelError: A row is too long.
    """
    parts = [episode.turns] if renderer.history == "append" else [(turn,) for turn in episode.turns]
    pairs = [Example(row, row) for row in map(Tokens.of, parts)]
    for pair in pairs:
        _fits(pair, longest)
    return pairs


def _by_turn(episode: Episode, renderer: Renderer, context: str) -> list[Example]:
    heard = [turn.observation for turn in episode.turns]
    said = [turn.reply for turn in episode.turns]
    pairs: list[Example] = []
    for i, turn in enumerate(episode.turns):
        prompts = (renderer.prompt(side, heard[: i + 1], said[:i]) for side in (None, context))
        student, teacher = (Tokens.of([turn], prompt) for prompt in prompts)
        pairs.append(Example(student, teacher, turn=i))
    return pairs


def _fits(pair: Example, longest: int | None) -> None:
    length = max(len(pair.student.ids), len(pair.teacher.ids))
    if longest is not None and length > longest:
        raise ModelError(
            f"wanted rows of at most {longest} ids, the positions of the model, got one of {length}; "
            "shorten the context, the replies or the episodes"
        )


def next_prompt(episode: Episode, number: int, renderer: Renderer) -> list[int]:
    """All ids in front of a stored episode's reply, as the student would have them: without any context.

    Args:
        episode: Played with this renderer's tokenizer.
        number: Which turn.
        renderer: Says the history.
    """
    turns = episode.turns[: number + 1]
    if renderer.history == "per_turn":
        return renderer.prompt(None, [turn.observation for turn in turns], [turn.reply for turn in turns[:-1]])
    row = Tokens.of(turns, renderer.opening(None, turns[0].observation))
    return list(row.ids[: len(row.ids) - len(turns[-1].sampled_ids)])
