"""A model behind an OpenAI-compatible endpoint as a policy: by token ids where server and tokenizer allow it, else by messages.

By ids (vLLM): the prompt is rendered here, as for a model of our own, and the ids that come back are kept as they were sampled, so
its episodes can be learnt from. By messages (any other): text only; episodes have no ids. Knows no environment and no loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, cast, final

import numpy as np

from opcd_agents.disarm import SPECIAL, disarm
from opcd_agents.errors import ModelError
from opcd_agents.policies.conversation import Conversation
from opcd_agents.policies.crowd import at_once
from opcd_agents.policies.service import NoAnswerError, Service
from opcd_agents.render import Renderer
from opcd_agents.types import Info, Reply

_GIVEN_UP: Final = 16  # requests in a row that came to nothing, after which nobody is there
_TRIED: Final = 16  # ids of the probe's reply; models that think refuse fewer
_LEAST, _ABOVE = -1e6, 0.01  # log-probabilities; what rounding may add to 0
_WIDEST: Final = 200  # characters of one id
# Servers apply what a model's generation_config.json says unless they are told otherwise.
_UNTOUCHED: Final = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn.

    Attributes:
        temperature: 0 takes the likeliest id.
        longest: Most ids of one reply.
        thinking: What the chat template is asked for; None: nothing.
    """

    temperature: float = 1.0
    longest: int = 64
    thinking: bool | None = None


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
        self._tongue, self.notice = _agree(service, sampling, renderer)
        self.renderer = self._tongue.renderer if isinstance(self._tongue, _Ids) else None

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

    def __init__(self, tongue: _Tongue, context: str | None, seed: int) -> None:
        self._tongue, self._context, self._seed = tongue, context, seed
        self._so_far = Conversation()

    def reply(self, observation: str) -> Reply:
        """Say something; an error leaves the conversation without a reply."""
        drawn = np.random.SeedSequence([self._seed, len(self._so_far.said)]).generate_state(1)[0]
        return self._tongue.reply(self._so_far, self._context, observation, int(drawn) >> 1)  # seeds are signed


class _Tongue(ABC):
    """How a server is spoken to."""

    @abstractmethod
    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """Go on with a conversation.

        Raises:
            NoAnswerError: No answer, or none that can be used.
        """


@final
@dataclass(frozen=True)
class _Ids(_Tongue):
    """Prompts and replies as ids, as vLLM's /completions takes and gives them."""

    service: Service
    sampling: Sampling
    renderer: Renderer
    known: int

    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """See `_Tongue`."""
        prompt, whole = so_far.hear(observation, self.renderer, context)
        ids, logprobs, shown = self._ask(whole, seed)
        text = self.renderer.text(ids)
        if not _alike(shown, text):
            raise NoAnswerError(
                f"{self.service.name} shows {shown!r:.40} for ids that are {text!r:.40} here: another tokenizer?"
            )
        so_far.say(text, whole + ids)
        # The server tells log-probabilities at temperature 1; what was drawn at another had others.
        return Reply(text, tuple(prompt), tuple(ids), tuple(logprobs) if self.sampling.temperature in (0, 1) else ())

    def _ask(self, prompt: list[int], seed: int) -> tuple[list[int], list[float], str]:
        """Ids, log-probabilities and text of a reply."""
        answer = self.service.post(
            "/completions",
            {
                **_UNTOUCHED,
                "prompt": prompt,
                "max_tokens": self.sampling.longest,
                "temperature": self.sampling.temperature,
                "seed": seed,
                "logprobs": 1,
                "return_token_ids": True,
                "skip_special_tokens": False,
                "stop_token_ids": [self.renderer.end_id],
                "ignore_eos": True,  # a reply ends as ours do, not at what generation_config.json ends some models at
            },
        )
        choice = _choice(answer)
        ids, told = _numbers(choice.get("token_ids")), choice.get("logprobs")
        logs = _numbers(cast("dict[str, Any]", told).get("token_logprobs") if isinstance(told, dict) else None)
        right = ids and len(ids) <= self.sampling.longest and all(i in range(self.known) for i in ids)
        if not right or choice.get("prompt_token_ids") not in (None, prompt):
            raise NoAnswerError(f"wanted the ids of a reply from {self.service.name}, got {ids!r:.80}")
        if len(logs) != len(ids) or not all(_LEAST <= one <= _ABOVE for one in logs):
            raise NoAnswerError(
                f"wanted log-probabilities of {len(ids)} ids from {self.service.name}, got {logs!r:.80}"
            )
        return [int(i) for i in ids], [min(float(one), 0.0) for one in logs], str(choice.get("text"))


@final
@dataclass(frozen=True)
class _Messages(_Tongue):
    """Text, as every server's /chat/completions takes and gives it."""

    service: Service
    longest: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: bool = True

    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """See `_Tongue`."""
        so_far.heard.append(disarm(observation))
        seeded = {"seed": seed} if "temperature" in self.options else {}
        body = {**self.options, **seeded, "messages": self._messages(so_far, context)}
        told: Any = _choice(self.service.post("/chat/completions", body)).get("message")
        text: Any = cast("dict[str, Any]", told).get("content") or "" if isinstance(told, dict) else None
        if not isinstance(text, str) or len(text) > _WIDEST * self.longest:
            raise NoAnswerError(f"wanted the text of a reply from {self.service.name}, got {text!r:.80}")
        so_far.said.append(text)  # nothing where all of it was thought that the server keeps to itself
        return Reply(text)

    def _messages(self, so_far: Conversation, context: str | None) -> list[dict[str, str]]:
        heard = list(so_far.heard)
        messages: list[dict[str, str]] = []
        if context is not None and self.system:
            messages.append({"role": "system", "content": disarm(context)})
        elif context is not None:
            heard[0] = f"{disarm(context)}\n\n{heard[0]}"
        for said, seen in zip([None, *so_far.said], heard, strict=True):
            messages += [] if said is None else [{"role": "assistant", "content": disarm(said, said=True)}]
            messages.append({"role": "user", "content": seen})
        return messages


def _agree(service: Service, sampling: Sampling, renderer: Renderer | None) -> tuple[_Tongue, str]:
    """The best way of speaking that a server understands, each tried once, and what is to be said of it."""
    why = f"no tokenizer of {service.root} is at hand"
    if renderer is not None:
        known = 1 + max(renderer.vocabulary.values())
        few = replace(sampling, longest=_TRIED)
        try:
            _Ids(service, few, renderer, known).reply(Conversation(), None, "Hello.", 0)
            return _Ids(service, sampling, renderer, known), renderer.notice
        except Exception as error:  # of whatever an answer makes us do; messages may still be understood
            why = f"{error!s:.200}"
    told = f"{service.name} is spoken to by messages, so its episodes have no token ids ({why})"
    usual: dict[str, Any] = {"max_tokens": 0, "temperature": sampling.temperature, "top_p": 1.0}
    if sampling.thinking is not None:
        usual["chat_template_kwargs"] = {"enable_thinking": sampling.thinking}
    spare: dict[str, Any] = {"max_completion_tokens": 0}  # models that think take neither temperature nor seed
    first: NoAnswerError | None = None
    for options, system in product((usual | _UNTOUCHED, usual, spare), (True, False)):
        try:
            short = _Messages(service, _TRIED, _at_most(options, _TRIED), system)
            short.reply(Conversation(), "You play a game.", "Hello.", 0)
        except NoAnswerError as error:
            first = first or error
            if not error.refused:
                raise
            continue
        told += "" if system else "; the context stands in front of the first message, for it takes no system message"
        told += "; it takes no temperature and plays at its own" if options is spare else ""
        return _Messages(service, sampling.longest, _at_most(options, sampling.longest), system), told
    raise first or NoAnswerError(f"wanted an answer of {service.name}, got none")


def _at_most(options: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """The options with a limit of ids, by whatever name they have for it."""
    return {name: longest if value == 0 and name.startswith("max_") else value for name, value in options.items()}


def _choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    first: Any = cast("list[Any]", choices)[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        raise NoAnswerError(f"wanted an answer with a choice, got {choices!r:.80}")
    return cast("dict[str, Any]", first)


def _alike(shown: str, decoded: str) -> bool:
    """Whether two texts may come of the same ids: how ends, blanks and half characters are shown is a server's own affair."""
    one, other = ("".join(filter(str.isalnum, SPECIAL.sub("", text))) for text in (shown, decoded))
    return one in other or (other != "" and other in one)


def _numbers(values: Any) -> list[int | float]:
    """The numbers of a list; none where it is something else."""
    listed = cast("list[Any]", values) if isinstance(values, list) else []
    return listed if all(type(value) in (int, float) for value in listed) else []
