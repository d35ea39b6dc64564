"""A Hugging Face causal language model as a policy: keys and values kept across turns, ids kept as sampled.

Each slot has its own stream of chance, so what an episode samples does not depend on who plays beside it.
Knows no environment and no loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from opcd_agents.errors import ModelError
from opcd_agents.policies.cache import RowCache
from opcd_agents.policies.sampling import draw
from opcd_agents.render import Renderer
from opcd_agents.types import Info, Reply

_ROOM = 256  # cells behind a shared prefix, enough for a few turns
_SCALES = ("logits_scaling", "logit_scale")  # as Granite and Cohere call it
_SHARED = 16  # a common prefix shorter than this is not worth a forward pass of its own


def load(model: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Renderer]:
    """Load a model folder or hub name, and the renderer of its tokenizer.

    Args:
        model: A local folder, or a name that `from_pretrained` resolves.
        device: A torch device.
        dtype: Type of the weights.

    Raises:
        ModelError: There is no such folder, or it holds no weights, tokenizer or chat template.
    """
    folder = Path(model)
    if model.startswith((".", "/", "~")) and not folder.expanduser().is_dir():
        raise ModelError(f"wanted a model folder, got {model!r}, which does not exist")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(f"wanted a model folder with weights (*.safetensors), got {model!r} without any")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
        network, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"wanted a causal language model, got {model!r}: {reason}") from error
    if missing := sorted(found["missing_keys"]):  # from_pretrained would make them up
        raise ModelError(f"{model!r} lacks {len(missing)} weights that its config.json promises, such as {missing[0]}")
    check(network, tokenizer, model)
    network.to(device)  # pyright: ignore[reportArgumentType]
    return network.eval(), Renderer(tokenizer)


def check(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse what the learner cannot treat exactly.

    Raises:
        ModelError: No chat template, or logits that are more than `hidden @ head`.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"wanted a tokenizer with a chat template, got {name!r} without one (a base model?)")
    if getattr(network.config, "final_logit_softcapping", None):
        raise ModelError(f"{name!r} caps its logits, which the fused loss does not know yet")
    if any(getattr(network.config, key, None) not in (None, 1, 1.0) for key in _SCALES):
        raise ModelError(f"{name!r} scales its logits, which the fused loss does not know yet")
    if getattr(network.config, "sliding_window", None) and getattr(network.config, "use_sliding_window", True):
        raise ModelError(f"{name!r} has sliding-window attention, which the row cache does not know yet")


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


def head_of(network: PreTrainedModel) -> torch.nn.Linear:
    """The output embedding, weight [vocabulary, size].

    Raises:
        ModelError: The model has none.
    """
    head = network.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or "bias" in dict(head.named_parameters()):
        raise ModelError("wanted a language model with a plain linear head, got one without")
    return head


def weights_hash(network: torch.nn.Module) -> str:
    """sha256 (hex, 16 digits) over names and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.named_parameters()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class _Session:
    """Conversations, some at a time. A row of the cache is dropped when its slot ends and added when one begins."""

    def __init__(self, policy: HuggingFacePolicy, context: str | None, seeds: Sequence[int]) -> None:
        self._policy = policy
        self._context = context
        self._chance = [np.random.default_rng(seed) for seed in seeds]
        self._slots: list[int] = []  # whose rows they are
        self._cache: RowCache | None = None
        self._prefix: tuple[list[int], RowCache] | None = None
        self._said: dict[int, tuple[int, ...]] = {}

    @torch.inference_mode()
    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer each slot's observation."""
        prompts = {slot: self._prompt(slot, heard[slot][0]) for slot in sorted(heard)}
        hidden = self._prefill(prompts)
        assert self._cache is not None
        ids, logprobs = _sample(self._policy, self._cache, hidden, [self._chance[s] for s in self._slots])
        replies: dict[int, Reply] = {}
        for slot, mine, scores in zip(self._slots, ids, logprobs, strict=True):
            self._said[slot] = tuple(mine)
            text = self._policy.renderer.text(mine)
            replies[slot] = Reply(text, tuple(prompts[slot]), tuple(mine), tuple(scores))
        return replies

    def _prompt(self, slot: int, observation: str) -> list[int]:
        if slot in self._said:
            return self._policy.renderer.following(self._said[slot], observation)
        return self._policy.renderer.opening(self._context, observation)

    def _prefill(self, prompts: Mapping[int, list[int]]) -> Tensor:
        """Feed what is new to the rows that go on and to those that begin; returns their last hidden states."""
        going = [slot for slot in self._slots if slot in prompts]
        fresh = [slot for slot in prompts if slot not in self._said]
        hidden: list[Tensor] = []
        if going:
            assert self._cache is not None
            if going != self._slots:
                self._cache.keep([self._slots.index(slot) for slot in going])
            # The last sampled id of a row is one that no cache has seen.
            hidden.append(self._cache.append([[self._said[s][-1], *prompts[s]] for s in going]))
        if fresh:
            begun, last = self._begin([prompts[slot] for slot in fresh])
            hidden.append(last)
            if going and self._cache is not None:
                self._cache.join(begun)
            else:
                self._cache = begun
        self._slots = going + fresh
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
) -> tuple[list[list[int]], list[list[float]]]:
    """Sample replies token by token.

    Args:
        policy: Whose head, temperature and longest reply.
        cache: Its rows end where the replies begin; the last id of each reply is left for the next turn.
        hidden: Last hidden state of each row, [rows, size].
        chance: One generator a row; one uniform number is drawn a token.

    Returns:
        Ids and log-probabilities of each row's reply.
    """
    head, device = head_of(policy.network), hidden.device
    end = policy.renderer.end_id
    rows = len(chance)
    ids: list[list[int]] = [[] for _ in range(rows)]
    scores: list[list[float]] = [[] for _ in range(rows)]
    running = np.ones(rows, dtype=bool)
    while True:
        uniform = [rng.random() if alive else 0.0 for rng, alive in zip(chance, running, strict=True)]
        drawn, logprob = draw(head(hidden), policy.temperature, torch.tensor(uniform, dtype=torch.double).to(device))
        for row in np.flatnonzero(running):
            ids[row].append(int(drawn[row]))
            scores[row].append(float(logprob[row]))
            running[row] = drawn[row] != end and len(ids[row]) < policy.longest
        if not running.any():
            return ids, scores
        alive = torch.from_numpy(running).to(device)
        hidden = cache.extend(drawn[:, None].to(device), alive.long())[:, 0]
