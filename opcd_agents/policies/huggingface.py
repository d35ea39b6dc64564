"""A Hugging Face causal language model as a policy: keys and values kept across turns, ids kept as sampled.

Each slot has its own stream of chance, so what an episode samples does not depend on who plays beside it.
Knows no environment and no loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from opcd_agents.policies.cache import RowCache
from opcd_agents.policies.conversation import Conversation
from opcd_agents.policies.loading import head_of, weights_hash
from opcd_agents.policies.sampling import draw
from opcd_agents.render import Renderer
from opcd_agents.types import Info, Reply

_ROOM = 256  # cells behind a shared prefix, enough for a few turns
_FEW = 8  # rows up to which a CPU is faster with the head in front, 2 to 7 times at 1 to 4 rows
_PATIENCE = 2  # steps; with fewer, prefills are many and small, with more, rows stand idle
_SHARED = 16  # a common prefix shorter than this is not worth a forward pass of its own


class HuggingFacePolicy:
    """Plays with a causal language model.

    Args:
        network: The model, in eval mode.
        renderer: The renderer of its tokenizer.
        name: How it is called in tables.
        temperature: 0 takes the likeliest id.
        longest: Most ids of one reply.
    """

    def __init__(
        self, network: PreTrainedModel, renderer: Renderer, name: str, temperature: float = 1.0, longest: int = 64
    ) -> None:
        self.network = network
        self.renderer = renderer
        self.name = name
        self.temperature = temperature
        self.longest = longest

    @property
    def weights(self) -> str:
        """sha256 (hex, 16 digits) of the weights as they are now."""
        return weights_hash(self.network)

    def begin(self, context: str | None, seeds: Sequence[int]) -> _Session:
        """Start one conversation a seed."""
        return _Session(self, context, seeds)

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Reply]:
        """A reply to each of some prompts that are ids already.

        Args:
            prompts: At least one.
            seeds: One a prompt; what is sampled does not depend on what stands beside it.
        """
        cache = RowCache(self.network.get_decoder(), len(prompts))
        sayings = [
            _Saying(n, list(prompt), list(prompt), np.random.default_rng(seed))
            for n, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        _sample(self, cache, cache.append(prompts), list(sayings))
        return [_reply(self, saying) for saying in sayings]


@dataclass
class _Saying:
    """A reply under way, or ended.

    Attributes:
        slot: Whose.
        prompt: Ids that are recorded as its prompt.
        whole: All ids before it.
        chance: One uniform number is drawn a token.
        ids: What was sampled; the cache has not seen the last one.
        logprobs: Of each id.
    """

    slot: int
    prompt: list[int]
    whole: list[int]
    chance: np.random.Generator
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])


class _Session:
    """Conversations, some at a time. A row of the cache is dropped when its slot ends and added when one begins."""

    def __init__(self, policy: HuggingFacePolicy, context: str | None, seeds: Sequence[int]) -> None:
        self._policy = policy
        self._context = context
        self._chance = [np.random.default_rng(seed) for seed in seeds]
        self._cache: RowCache | None = None
        self._sayings: list[_Saying] = []  # one a row of the cache; those under way come first
        self._running = 0
        self._hidden: list[Tensor] = []  # what the next ids of those under way are drawn from
        self._prefix: tuple[list[int], RowCache] | None = None
        self._rows: dict[int, Conversation] = {}

    @torch.inference_mode()
    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer until the first that are done have waited long enough for the others."""
        renderer = self._policy.renderer
        asked: dict[int, _Saying] = {}
        for slot, (text, _) in sorted(heard.items()):
            spoken = self._rows.setdefault(slot, Conversation())
            asked[slot] = _Saying(slot, *spoken.hear(text, renderer, self._context), self._chance[slot])
        self._prefill(asked)
        if not self._sayings:
            return {}
        assert self._cache is not None
        self._running, hidden = _sample(self._policy, self._cache, torch.cat(self._hidden), self._sayings, _PATIENCE)
        self._hidden = [hidden]
        replies: dict[int, Reply] = {}
        for saying in self._sayings[self._running :]:
            replies[saying.slot] = _reply(self._policy, saying)
            self._rows[saying.slot].say(replies[saying.slot].text, saying.whole + saying.ids)
        return replies

    def _prefill(self, asked: Mapping[int, _Saying]) -> None:
        """Feed what is new to the rows that go on and to those that begin; the others that have ended are let go, and may begin again."""
        ended = [saying.slot for saying in self._sayings[self._running :]]
        going = [asked[slot] for slot in ended if slot in asked]
        fresh = [saying for slot, saying in asked.items() if slot not in ended]
        if self._cache is not None and len(going) < len(ended):
            rows = [n for n, saying in enumerate(self._sayings) if n < self._running or saying.slot in asked]
            self._cache = self._cache.keep(rows) if rows else None
        if self._cache is not None and going:
            # At least one id is fed: the hidden state of the last is wanted, and no cache has seen what was sampled last.
            known = [len(commonprefix([self._rows[one.slot].ids[:-1], one.whole[:-1]])) for one in going]
            self._cache.rewind(known, self._running)
            new = [one.whole[n:] for one, n in zip(going, known, strict=True)]
            self._hidden.append(self._cache.append(new, self._running))
        self._sayings = [*self._sayings[: self._running], *going]
        if fresh:
            begun, hidden = self._begin([one.whole for one in fresh])
            self._hidden.append(hidden)
            if self._cache is not None and self._sayings:
                self._cache.join(begun)
            else:
                self._cache = begun
            self._sayings += fresh

    def _begin(self, prompts: list[list[int]]) -> tuple[RowCache, Tensor]:
        """Rows for some prompts. What the first ones share is computed once and kept for those that come later."""
        decoder = self._policy.network.get_decoder()
        most = min(map(len, prompts)) - 1
        if self._prefix is None:
            ids = list(commonprefix(prompts)[:most]) if len(self._chance) > 1 else []
            single = RowCache(decoder, 1)
            if len(ids) >= _SHARED:
                single.append([ids])
            self._prefix = ids, single
        ids, single = self._prefix
        shared = min(len(commonprefix([ids, *prompts])), most)
        if shared < _SHARED:
            rows = RowCache(decoder, len(prompts))
            return rows, rows.append(prompts)
        rows = single.spread(len(prompts), _ROOM, shared)
        return rows, rows.append([prompt[shared:] for prompt in prompts])


def _reply(policy: HuggingFacePolicy, saying: _Saying) -> Reply:
    """What was said, as episodes have it."""
    text = policy.renderer.text(saying.ids)
    return Reply(text, tuple(saying.prompt), tuple(saying.ids), tuple(saying.logprobs))


def _sample(
    policy: HuggingFacePolicy, cache: RowCache, hidden: Tensor, sayings: list[_Saying], patience: float = math.inf
) -> tuple[int, Tensor]:
    """Sample replies token by token. A row that has ended is moved behind the others, which go on without it.

    Args:
        policy: Whose head, temperature and longest reply.
        cache: Its rows end where the replies are; the last id of each is left for the next turn.
        hidden: Last hidden state of each row, [rows, size].
        sayings: One a row, and changed with the order of the rows.
        patience: How many steps those that have ended may wait, in the mean over all rows, while others go on.

    Returns:
        How many rows are still under way, and their last hidden states [those rows, size].
    """
    head, end, device = head_of(policy.network).weight, policy.renderer.end_id, hidden.device
    running, waited = len(sayings), 0
    while True:
        uniform = torch.tensor([one.chance.random() for one in sayings[:running]], dtype=torch.double, device=device)
        drawn, logprobs = draw(_logits(head, hidden), policy.temperature, uniform)
        for one, drew, score in zip(sayings, drawn.tolist(), logprobs.tolist(), strict=False):
            one.ids.append(drew)
            one.logprobs.append(score)
        for place in reversed(range(running)):
            said = sayings[place].ids
            if said[-1] == end or len(said) >= policy.longest:
                running -= 1
                sayings[place], sayings[running] = sayings[running], sayings[place]
                if place != running:
                    cache.swap(place, running)
        if not running:
            return 0, hidden[:0]
        latest = torch.tensor([[one.ids[-1]] for one in sayings[:running]], device=device)
        hidden = cache.extend(latest, torch.ones(running, dtype=torch.long, device=device))[:, 0]
        waited += len(sayings) - running
        if waited >= patience * len(sayings):
            return running, hidden


def _logits(head: Tensor, hidden: Tensor) -> Tensor:
    """Logits [rows, vocabulary] of a few rows.

    A tall matrix times a few columns is read once by a CPU's kernels; with the few rows in front, as in a linear layer, they take
    several times as long, and longest for a single row, which therefore goes in twice.
    """
    few = hidden if len(hidden) > 1 else hidden.expand(2, -1)
    if hidden.device.type != "cpu" or hidden.dtype != torch.float32 or len(few) > _FEW:
        return torch.nn.functional.linear(hidden, head)
    return torch.mm(head, few.T).T[: len(hidden)].contiguous()
