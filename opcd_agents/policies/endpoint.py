"""A model behind an OpenAI-compatible endpoint as a policy: by token ids where server and tokenizer allow it, else by messages.

By ids (vLLM): the prompt is rendered here, as for a model of our own, and the ids that come back are kept as they were sampled, so
its episodes can be learnt from. By messages (any other): text only; episodes have no ids. Knows no environment and no loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import numpy as np

from opcd_agents.disarm import SPECIAL, disarm
from opcd_agents.errors import ModelError
from opcd_agents.policies.conversation import Conversation
from opcd_agents.policies.service import NoAnswerError, Service, connect
from opcd_agents.render import Renderer
from opcd_agents.types import Info, Reply

_AT_ONCE: Final = 64  # requests on their way
_GIVEN_UP: Final = 16  # requests in a row that came to nothing, after which nobody is there
_TRIED: Final = 16  # ids of the probe's reply; models that think refuse fewer
# Servers apply what a model's generation_config.json says unless they are told otherwise.
_UNTOUCHED: Final = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}

Tokenizer = Callable[[str], Renderer | None]  # name of a model -> its renderer, if it can be had


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
        address: As `connect` takes it.
        sampling: How replies are drawn.
        renderer: Finds the renderer of a model by its name or folder; where there is one and the server takes and gives ids, ids are spoken.
        patience: Seconds to wait for one answer.

    Attributes:
        renderer: That of the model, where ids are spoken.
        notice: What a user should know of how the server is spoken to, in a line.

    Raises:
        UsageError: As `connect`.
        ModelError: Nobody is there, or it answers nothing that can be used.
    """

    weights = ""  # a server does not tell

    def __init__(
        self, address: str, sampling: Sampling, renderer: Tokenizer = lambda name: None, patience: float = 300.0
    ) -> None:
        self._service = connect(address, patience)
        self.name = self._service.name
        self._failures = 0
        self._tongue, self.notice = _agree(self._service, sampling, renderer)
        self.renderer = self._tongue.renderer if isinstance(self._tongue, _Ids) else None

    def begin(self, context: str | None, seeds: Sequence[int]) -> _Session:
        """Start one conversation a seed."""
        return _Session(self, context, seeds)

    def together(self, jobs: Mapping[int, Callable[[], Reply]]) -> dict[int, Reply]:
        """Ask for several replies at once; one that fails says so, and is no affair of the others.

        Raises:
            ModelError: The key or the model is wrong, or so many requests in a row came to nothing that nobody is there.
        """
        pool = ThreadPoolExecutor(max(1, min(len(jobs), _AT_ONCE)))
        try:
            replies = dict(zip(jobs, pool.map(_safely, jobs.values()), strict=True))
        except BaseException:  # Ctrl-C among them: nobody should wait for minutes for what nobody will read
            self._service.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
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
            },
        )
        choice = _choice(answer)
        ids = choice.get("token_ids")
        logs: Any = choice.get("logprobs")
        logs = cast("dict[str, Any]", logs).get("token_logprobs") if isinstance(logs, dict) else None
        if not _are(ids, int) or not ids or min(ids) < 0 or choice.get("prompt_token_ids") not in (None, prompt):
            raise NoAnswerError(f"wanted the ids of a reply from {self.service.name}, got {ids!r:.80}")
        if not _are(logs, (int, float)) or len(logs) != len(ids) or not all(-math.inf < one <= 0.01 for one in logs):
            raise NoAnswerError(
                f"wanted log-probabilities of {len(ids)} ids from {self.service.name}, got {logs!r:.80}"
            )
        return ids, [min(float(one), 0.0) for one in logs], str(choice.get("text"))


@final
@dataclass(frozen=True)
class _Messages(_Tongue):
    """Text, as every server's /chat/completions takes and gives it."""

    service: Service
    sampling: Sampling
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """See `_Tongue`."""
        so_far.heard.append(disarm(observation))
        messages = [] if context is None else [{"role": "system", "content": disarm(context)}]
        for said, heard in zip([None, *so_far.said], so_far.heard, strict=True):
            messages += [] if said is None else [{"role": "assistant", "content": said}]
            messages.append({"role": "user", "content": heard})
        seeded = {"seed": seed} if "temperature" in self.options else {}
        told: Any = _choice(
            self.service.post("/chat/completions", {**self.options, **seeded, "messages": messages})
        ).get("message")
        text: Any = cast("dict[str, Any]", told).get("content", "") if isinstance(told, dict) else None
        if text is not None and not isinstance(text, str):
            raise NoAnswerError(f"wanted the text of a reply from {self.service.name}, got {text!r:.80}")
        if not isinstance(told, dict):
            raise NoAnswerError(f"wanted a message from {self.service.name}, got {told!r:.80}")
        so_far.said.append(text or "")  # none where all of it was thought that the server keeps to itself
        return Reply(text or "")


def _agree(service: Service, sampling: Sampling, renderer: Tokenizer) -> tuple[_Tongue, str]:
    """The best way of speaking that a server understands, tried once, and what is to be said of it."""
    short = Sampling(sampling.temperature, _TRIED, sampling.thinking)
    why = f"no tokenizer of {service.root} is at hand"
    known = renderer(service.root)
    if known is not None:
        try:
            _Ids(service, short, known).reply(Conversation(), None, "Hello.", 0)
            return _Ids(service, sampling, known), known.notice
        except (ModelError, IndexError) as error:
            why = str(error)
    told = f"{service.name} is spoken to by messages, so its episodes have no token ids ({why})"
    try:
        _Messages(service, short, _usual(short)).reply(Conversation(), None, "Hello.", 0)
        return _Messages(service, sampling, _usual(sampling)), told
    except NoAnswerError as error:
        if not error.refused:
            raise
    spare = {"max_completion_tokens": sampling.longest}  # models that think take neither temperature nor seed
    _Messages(service, short, spare).reply(Conversation(), None, "Hello.", 0)
    return _Messages(service, sampling, spare), f"{told}; it takes no temperature and plays at its own"


def _usual(sampling: Sampling) -> dict[str, Any]:
    options: dict[str, Any] = {"max_tokens": sampling.longest, "temperature": sampling.temperature, "top_p": 1.0}
    if sampling.thinking is not None:
        options["chat_template_kwargs"] = {"enable_thinking": sampling.thinking}
    return options


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


def _are(values: Any, kind: Any) -> bool:
    """Whether something is a list of values of a kind."""
    return isinstance(values, list) and all(
        isinstance(v, kind) and not isinstance(v, bool) for v in cast("list[Any]", values)
    )
