"""A Hugging Face causal language model as a policy: keys and values kept across turns, ids kept as sampled.

Each slot has its own stream of chance, so what an episode samples does not depend on who plays beside it.
Knows no environment and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        chance = [np.random.default_rng(seed) for seed in seeds]
        order, ids, logprobs = _sample(self, cache, cache.append(prompts), chance)
        said = {row: (mine, scores) for row, mine, scores in zip(order, ids, logprobs, strict=True)}
        return [
            Reply(self.renderer.text(said[n][0]), tuple(prompt), tuple(said[n][0]), tuple(said[n][1]))
            for n, prompt in enumerate(prompts)
        ]


class _Session:
    """Conversations, some at a time. A row of the cache is dropped when its slot ends and added when one begins."""

    def __init__(self, policy: HuggingFacePolicy, context: str | None, seeds: Sequence[int]) -> None:
        self._policy = policy
        self._context = context
        self._chance = [np.random.default_rng(seed) for seed in seeds]
        self._slots: list[int] = []  # whose rows they are
        self._cache: RowCache | None = None
        self._prefix: tuple[list[int], RowCache] | None = None
        self._rows: dict[int, Conversation] = {}

    @torch.inference_mode()
    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer each slot's observation."""
        renderer = self._policy.renderer
        fresh = [slot for slot in sorted(heard) if slot not in self._rows]
        self._rows |= {slot: Conversation() for slot in fresh}
        prompts = {slot: self._rows[slot].hear(text, renderer, self._context) for slot, (text, _) in heard.items()}
        hidden = self._prefill({slot: whole for slot, (_, whole) in prompts.items()}, fresh)
        assert self._cache is not None
        order, ids, logprobs = _sample(self._policy, self._cache, hidden, [self._chance[s] for s in self._slots])
        self._slots = [self._slots[row] for row in order]
        replies: dict[int, Reply] = {}
        for slot, mine, scores in zip(self._slots, ids, logprobs, strict=True):
            prompt, whole = prompts[slot]
            text = renderer.text(mine)
            self._rows[slot].say(text, whole + mine)
            replies[slot] = Reply(text, tuple(prompt), tuple(mine), tuple(scores))
        return replies

    def _prefill(self, rows: Mapping[int, list[int]], fresh: Sequence[int]) -> Tensor:
        """Feed what is new to the rows that go on and to those that begin; returns their last hidden states."""
        going = [slot for slot in self._slots if slot in rows]
        hidden: list[Tensor] = []
        if going:
            assert self._cache is not None
            if going != self._slots:
                self._cache.keep([self._slots.index(slot) for slot in going])
            # At least one id is fed: the hidden state of the last is wanted, and no cache has seen what was sampled last.
            known = [len(commonprefix([self._rows[slot].ids[:-1], rows[slot][:-1]])) for slot in going]
            self._cache.rewind(known)
            hidden.append(self._cache.append([rows[slot][n:] for slot, n in zip(going, known, strict=True)]))
        if fresh:
            begun, last = self._begin([rows[slot] for slot in fresh])
            hidden.append(last)
            if going and self._cache is not None:
                self._cache.join(begun)
            else:
                self._cache = begun
        self._slots = [*going, *fresh]
        return torch.cat(hidden)

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


def _sample(
    policy: HuggingFacePolicy, cache: RowCache, hidden: Tensor, chance: Sequence[np.random.Generator]
) -> tuple[list[int], list[list[int]], list[list[float]]]:
    """Sample replies token by token. A row that has ended is moved behind the others, which go on without it.

    Args:
        policy: Whose head, temperature and longest reply.
        cache: Its rows end where the replies begin; the last id of each reply is left for the next turn.
        hidden: Last hidden state of each row, [rows, size].
        chance: One generator a row; one uniform number is drawn a token.

    Returns:
        Which row each row of the cache was, and in that order ids and log-probabilities of the replies.
    """
    head, end, device = head_of(policy.network).weight, policy.renderer.end_id, hidden.device
    order = list(range(len(chance)))
    ids: list[list[int]] = [[] for _ in order]
    scores: list[list[float]] = [[] for _ in order]
    running = len(order)
    while True:
        uniform = torch.tensor([chance[row].random() for row in order[:running]], dtype=torch.double, device=device)
        drawn, logprobs = draw(_logits(head, hidden), policy.temperature, uniform)
        for row, drew, score in zip(order, drawn.tolist(), logprobs.tolist(), strict=False):
            ids[row].append(drew)
            scores[row].append(score)
        for place in reversed(range(running)):
            reply = ids[order[place]]
            if reply[-1] == end or len(reply) >= policy.longest:
                running -= 1
                order[place], order[running] = order[running], order[place]
                if place != running:
                    cache.swap(place, running)
        if not running:
            return order, [ids[row] for row in order], [scores[row] for row in order]
        latest = torch.tensor([[ids[row][-1]] for row in order[:running]], device=device)
        hidden = cache.extend(latest, torch.ones(running, dtype=torch.long, device=device))[:, 0]


def _logits(head: Tensor, hidden: Tensor) -> Tensor:
    """Logits [rows, vocabulary] of a few rows.

    A tall matrix times a few columns is read once by a CPU's kernels; with the few rows in front, as in a linear layer, they take
    several times as long, and longest for a single row, which therefore goes in twice.
    """
    few = hidden if len(hidden) > 1 else hidden.expand(2, -1)
    if hidden.device.type != "cpu" or hidden.dtype != torch.float32 or len(few) > _FEW:
        return torch.nn.functional.linear(hidden, head)
    return torch.mm(head, few.T).T[: len(hidden)].contiguous()
