"""A model behind an OpenAI-compatible endpoint as a policy. Knows no environment and no loss; `tongues` says how it is spoken to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import numpy as np

from opcd_agents.errors import ModelError
from opcd_agents.policies.conversation import Conversation
from opcd_agents.policies.crowd import at_once
from opcd_agents.policies.service import NoAnswerError, Service
from opcd_agents.policies.tongues import Ids, Sampling, Tongue, agree
from opcd_agents.render import Renderer
from opcd_agents.types import Info, Reply

_GIVEN_UP: Final = 16  # requests in a row that came to nothing, after which nobody is there


@final
class EndpointPolicy:
    """Plays with a model that a server has.

    Args:
        service: The model.
        sampling: How replies are drawn.
        renderer: Of the model's tokenizer, if it can be had; where the server takes and gives ids, ids are spoken then.

    Attributes:
        renderer: That of the model, where ids are spoken.
        notice: What a user should know of how the server is spoken to, in a line.

    Raises:
        ModelError: The server answers nothing that can be used.
    """

    weights = ""  # a server does not tell

    def __init__(self, service: Service, sampling: Sampling, renderer: Renderer | None = None) -> None:
        self.name = service.name
        self._failures = 0
        self._tongue, self.notice = agree(service, sampling, renderer)
        self.renderer = self._tongue.renderer if isinstance(self._tongue, Ids) else None

    def begin(self, context: str | None, seeds: Sequence[int]) -> _Session:
        """Start one conversation a seed."""
        return _Session(self, context, seeds)

    def together(self, jobs: Mapping[int, Callable[[], Reply]]) -> dict[int, Reply]:
        """Ask for several replies at once; one that fails says so, and is no affair of the others.

        Raises:
            ModelError: The key or the model is wrong, or so many requests in a row came to nothing that nobody is there.
        """
        replies = at_once({slot: lambda job=job: _safely(job) for slot, job in jobs.items()})
        for reply in replies.values():
            self._failures = self._failures + 1 if reply.error else 0
            if self._failures >= _GIVEN_UP:
                raise ModelError(f"the last {_GIVEN_UP} requests to {self.name} came to nothing: {reply.error}")
        return replies

    def speak(self, context: str | None, seed: int) -> _Talk:
        """Begin one conversation."""
        return _Talk(self._tongue, context, seed)


@final
class _Session:
    """Conversations with one server."""

    def __init__(self, policy: EndpointPolicy, context: str | None, seeds: Sequence[int]) -> None:
        self._policy, self._context, self._seeds = policy, context, seeds
        self._talks: dict[int, _Talk] = {}

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer each slot's observation."""
        jobs: dict[int, Callable[[], Reply]] = {}
        for slot, (observation, _) in heard.items():
            if slot not in self._talks:
                self._talks[slot] = self._policy.speak(self._context, self._seeds[slot])
            talk = self._talks[slot]
            jobs[slot] = lambda talk=talk, observation=observation: talk.reply(observation)
        return self._policy.together(jobs)


def _safely(job: Callable[[], Reply]) -> Reply:
    try:
        return job()
    except NoAnswerError as error:
        return Reply("", error=str(error))
    except ModelError:
        raise
    except Exception as error:  # of whatever an answer made us do
        return Reply("", error=f"{type(error).__name__}: {error!s:.200}")


@final
class _Talk:
    """One conversation. Its chance depends on its seed and turn alone."""

    def __init__(self, tongue: Tongue, context: str | None, seed: int) -> None:
        self._tongue, self._context, self._seed = tongue, context, seed
        self._so_far = Conversation()

    def reply(self, observation: str) -> Reply:
        """Say something; an error leaves the conversation without a reply."""
        drawn = np.random.SeedSequence([self._seed, len(self._so_far.said)]).generate_state(1)[0]
        return self._tongue.reply(self._so_far, self._context, observation, int(drawn) >> 1)  # seeds are signed
