"""A teacher behind an endpoint that returns log-probabilities of given token ids (vLLM's `prompt_logprobs`). Knows no loss.

It is asked with ids, never with text, so nothing is encoded twice. It tells the given id and its likeliest `k` at each position, which is
enough for the sampled-token KL and for the teacher's top k with a tail; the rest of the mass counts as spread evenly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast, final

import torch
from torch import Tensor

from opcd_agents.errors import ModelError
from opcd_agents.learner.forward import Passes
from opcd_agents.learner.saying import Saying
from opcd_agents.learner.teachers import PASSES, Teacher
from opcd_agents.policies.service import connect
from opcd_agents.render import Renderer
from opcd_agents.types import Tokens

_TOGETHER: Final = 16  # rows a request
_ABOVE: Final = 0.01  # what rounding may add to a log-probability of 0
_LEAST: Final = -80.0  # what is less likely than this counts as this likely, so that no log-ratio is infinite

_NOTES: Final = "Notes: the coin is in the red crate. The crate is in the cellar, south of the hall."
_SEEN: Final = "You are standing in the hall. Find 12 + 34 coins, and say why: it isn't obvious, perhaps."
_UNSAID: Final = "\ufffd"  # in the text of an id that is a part of a letter

Listed = Mapping[int, float]  # id -> its log-probability


@final
@dataclass(frozen=True)
class Told(Saying):
    """What an endpoint told of each position.

    Attributes:
        positions: One mapping a position.
        known: How many ids there are.
    """

    whole: ClassVar[bool] = False

    positions: Sequence[Listed]
    known: int

    @property
    def vocabulary(self) -> int:
        """See `Saying`."""
        return self.known

    def logits(self, rows: slice) -> Tensor:
        """See `Saying`; what was not told shares the rest of the mass evenly."""
        told = self.positions[rows]
        filled = torch.empty(len(told), self.vocabulary)
        for row, listed in zip(filled, told, strict=True):
            ids, logs = torch.tensor(list(listed)), torch.tensor(list(listed.values())).clamp_(min=_LEAST)
            left = (1 - logs.double().exp().sum()).clamp_(min=0) / max(self.vocabulary - len(listed), 1)
            row.fill_(max(float(left.log()), _LEAST))
            row[ids] = logs
        return filled


@final
class Endpoint(Teacher):
    """A server of the OpenAI completions interface, as vLLM extends it.

    Args:
        url: Its base, such as http://host:8000/v1; a name behind `#` names the model, else the first one it serves is taken.
        renderer: Of the student's tokenizer, which must be the server's too: it is tried on a text.
        vocabulary: How many ids the student knows.
        k: How many of the likeliest ids are asked for; 0: only the given one.

    Raises:
        ModelError: It cannot be reached, or does not return what is needed; the reason says what.
    """

    def __init__(self, url: str, renderer: Renderer, vocabulary: int, k: int) -> None:
        self._service = connect(url)
        self._url, self._vocabulary, self._k = self._service.url, vocabulary, k
        self._probe(renderer)

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Told:
        """See `Teacher`; the server makes its own passes."""
        positions: list[Listed] = []
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            for row, told in zip(part, self._ask([row.ids for row in part]), strict=True):
                positions += [told[i] for i, mine in enumerate(row.sampled) if mine]
        return Told(positions, self._vocabulary)

    @property
    def vocabulary(self) -> int:
        """See `Teacher`."""
        return self._vocabulary

    @property
    def identity(self) -> str:
        """See `Teacher`; a server tells no more of its weights than their name."""
        return self._service.model

    def _probe(self, renderer: Renderer) -> None:
        """Ask about a text once, so that what cannot be is told before a run."""
        ids = renderer.opening(_NOTES, _SEEN)
        [choice] = self._choices([ids])
        self._read(ids, choice)
        pieces = {number: piece for piece, number in renderer.vocabulary.items()}
        for given, here in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True):
            mine, told = renderer.text([given]), here[str(given)].get("decoded_token")
            if not isinstance(told, str):
                raise ModelError(
                    f"wanted to compare tokenizers with {self._url}, but it does not say what ids stand for (decoded_token); start it with its tokenizer"
                )
            seen = mine.strip() and told.strip() and _UNSAID not in mine + told
            if seen and told.strip() != mine.strip() and told != pieces.get(given):
                raise ModelError(
                    f"wanted an endpoint with the student's tokenizer, got {self._url}, to which id {given} is {told!r:.40} and not {mine!r:.40}"
                )

    def _ask(self, rows: Sequence[Sequence[int]]) -> list[list[Listed]]:
        """For each row what was told at each position; the first one has nothing."""
        return [self._read(ids, choice) for ids, choice in zip(rows, self._choices(rows), strict=True)]

    def _choices(self, rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """The server's answer to each row."""
        asked = {"prompt": [list(ids) for ids in rows], "max_tokens": 1, "temperature": 0, "prompt_logprobs": self._k}
        answer = self._service.post("/completions", asked)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(cast("list[Any]", choices)) != len(rows):
            raise ModelError(f"wanted an answer for each of {len(rows)} rows from {self._url}, got {choices!r:.80}")
        return sorted(cast("list[dict[str, Any]]", choices), key=lambda choice: choice.get("index", 0))

    def _read(self, ids: Sequence[int], choice: Mapping[str, Any]) -> list[Listed]:
        told = choice.get("prompt_logprobs")
        if not isinstance(told, list) or len(cast("list[Any]", told)) != len(ids):
            raise ModelError(
                f"wanted prompt_logprobs for {len(ids)} given ids from {self._url}, got {told!r:.80}; it must be a server that scores "
                "given tokens, such as vLLM with --max-logprobs"
            )
        least = min(self._k, self._vocabulary)
        found: list[Listed] = [{}]
        for given, here in zip(ids[1:], cast("list[Mapping[str, Any]]", told)[1:], strict=True):
            try:
                listed = {int(name): float(one["logprob"]) for name, one in here.items()}
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise ModelError(f"wanted log-probabilities by id from {self._url}, got {here!r:.80}") from error
            if not all(one <= _ABOVE for one in listed.values()):  # NaN is not
                raise ModelError(f"wanted log-probabilities from {self._url}, got {here!r:.80}")
            if given not in listed or not all(0 <= i < self._vocabulary for i in listed):
                raise ModelError(
                    f"wanted log-probabilities of the ids that were given to {self._url}, got those of others: another tokenizer?"
                )
            if len(listed) < least:
                raise ModelError(
                    f"wanted {least} log-probabilities a position from {self._url}, got {len(listed)}; lower top_k or raise its --max-logprobs"
                )
            found.append(listed)
        return found
