"""How a server is spoken to: by token ids where it and the tokenizer allow it, else by messages. Knows no environment and no loss.

By ids (vLLM): the prompt is rendered here, as for a model of our own, and the ids that come back are kept as they were sampled. By messages
(any other): text only, with whatever could be a special token disarmed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from threading import Lock
from typing import Any, Final, cast, final

from opcd_agents.disarm import SPECIAL, disarm
from opcd_agents.policies.conversation import Conversation
from opcd_agents.policies.service import NoAnswerError, Service
from opcd_agents.render import Renderer
from opcd_agents.types import Reply

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


class Tongue(ABC):
    """How a server is spoken to."""

    @abstractmethod
    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """Go on with a conversation.

        Raises:
            NoAnswerError: No answer, or none that can be used.
        """


@final
@dataclass(frozen=True)
class Ids(Tongue):
    """Prompts and replies as ids, as vLLM's /completions takes and gives them."""

    service: Service
    sampling: Sampling
    renderer: Renderer
    known: int
    _alone: Any = field(
        default_factory=Lock, repr=False, compare=False
    )  # a tokenizer is not for several threads at once

    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """See `Tongue`."""
        with self._alone:
            prompt, whole = so_far.hear(observation, self.renderer, context)
        ids, logprobs, shown = self._ask(whole, seed)
        with self._alone:
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
class Messages(Tongue):
    """Text, as every server's /chat/completions takes and gives it."""

    service: Service
    longest: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: bool = True

    def reply(self, so_far: Conversation, context: str | None, observation: str, seed: int) -> Reply:
        """See `Tongue`."""
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


def agree(service: Service, sampling: Sampling, renderer: Renderer | None) -> tuple[Tongue, str]:
    """The best way of speaking that a server understands, each tried once, and what is to be said of it."""
    why = f"no tokenizer of {service.root} is at hand"
    if renderer is not None:
        known = 1 + max(renderer.vocabulary.values())
        few = replace(sampling, longest=_TRIED)
        try:
            Ids(service, few, renderer, known).reply(Conversation(), None, "Hello.", 0)
            return Ids(service, sampling, renderer, known), renderer.notice
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
            short = Messages(service, _TRIED, _at_most(options, _TRIED), system)
            short.reply(Conversation(), "You play a game.", "Hello.", 0)
        except NoAnswerError as error:
            first = first or error
            if not error.refused:
                raise
            continue
        told += "" if system else "; the context stands in front of the first message, for it takes no system message"
        told += "; it takes no temperature and plays at its own" if options is spare else ""
        return Messages(service, sampling.longest, _at_most(options, sampling.longest), system), told
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
