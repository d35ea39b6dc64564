"""Train the pocket models from nothing: `python -m opcd_agents.pocket.train pocket --out DIR`.

Reads the curriculum, writes a folder that `AutoModelForCausalLM.from_pretrained` loads. Knows no environment:
scores in real games come from `opcd eval`.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from opcd_agents.pocket.curriculum import Conversation, episode, house_episode
from opcd_agents.pocket.tokens import train_tokenizer

LENGTHS = (128, 256, 448)
TOKENIZER_SEED, EVAL_SEED, DATA_SEED = 1, 2, 3


@dataclass(frozen=True)
class Size:
    """Shape of a pocket model and its peak learning rates."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    lr: float
    tokens: float


SIZES = {
    "pocket": Size(128, 4, 4, 384, 3e-3, 30e6),
    "pocket-large": Size(192, 6, 6, 512, 2e-3, 30e6),
}


@dataclass(frozen=True)
class Row:
    """One episode as ids and the positions whose token is trained; both [length]."""

    ids: list[int]
    trained: list[bool]


class Encoder:
    """Conversations to rows. Words are encoded once each: the curriculum repeats few spans."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, int] = tokenizer.get_vocab()

    def __call__(self, conversation: Conversation) -> Row:
        """Encode one conversation as its chat template would, with the training mask."""
        ids: list[int] = []
        trained: list[bool] = []
        spans = [span for message in conversation for span in message]
        pieces = iter(self._tokenizer([s.text for s in spans], add_special_tokens=False)["input_ids"])
        for message in conversation:
            ids.append(self._ids[f"<|{message[0].role}|>"])
            trained.append(False)
            for span in message:
                piece = next(pieces)
                ids += piece
                trained += [span.trained] * len(piece)
            ids.append(self._ids["<|end|>"])
            trained.append(message[-1].trained)
        return Row(ids, trained)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The pocket tokenizer, trained on the curriculum's own words; always the same."""
    rng = np.random.default_rng(TOKENIZER_SEED)
    texts = (s.text for _ in range(4000) for message in episode(rng, 8) for s in message)
    return train_tokenizer(texts)


def rows(encoder: Encoder, seed: int, largest_at: "Growth") -> Iterator[Row]:
    """Endless rows; the houses grow with the tokens handed out."""
    rng = np.random.default_rng(seed)
    handed_out = 0
    while True:
        row = encoder(episode(rng, largest_at(handed_out)))
        if len(row.ids) <= LENGTHS[-1]:
            handed_out += len(row.ids)
            yield row


@dataclass(frozen=True)
class Growth:
    """Largest house by training progress: 3 rooms at first, `final` after `over` tokens."""

    over: float
    final: int = 9

    def __call__(self, tokens: int) -> int:
        """Rooms of the largest house after `tokens` tokens."""
        return min(self.final, 3 + int((self.final - 2) * tokens / self.over))


def batches(source: Iterator[Row], tokens: int, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of like length together, in a few fixed shapes, so that the compiled step is reused.

    Yields:
        ids [rows, length] and mask [rows, length], about `tokens` tokens.
    """
    waiting: dict[int, list[Row]] = {length: [] for length in LENGTHS}
    for row in source:
        length = next(size for size in LENGTHS if len(row.ids) <= size)
        queue = waiting[length]
        queue.append(row)
        if len(queue) == max(1, tokens // length):
            ids = torch.full((len(queue), length), pad)
            mask = torch.zeros(len(queue), length, dtype=torch.bool)
            for i, held in enumerate(queue):
                ids[i, : len(held.ids)] = torch.tensor(held.ids)
                mask[i, : len(held.ids)] = torch.tensor(held.trained)
            queue.clear()
            yield ids, mask


def build(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama of the given size."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()["<|end|>"],
        pad_token_id=tokenizer.get_vocab()["<|pad|>"],
    )
    network = LlamaForCausalLM(config)
    network.set_attn_implementation("eager")  # faster than SDPA's CPU kernels at these sizes, once compiled
    return network


def optimizers(model: LlamaForCausalLM, size: Size) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=size.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=size.lr, betas=(0.9, 0.95), weight_decay=0.0)]


def schedule(progress: float) -> float:
    """Warm-up over 1 %, constant, then a linear fall over the last 30 %."""
    return min(1.0, progress / 0.01, max(0.02, (1 - progress) / 0.3))


class Trainer:
    """One run: the model, its optimisers, and the step."""

    def __init__(self, size: Size, tokenizer: PreTrainedTokenizerFast, device: str, start: Path | None) -> None:
        torch.manual_seed(0)
        self.model = build(size, tokenizer)
        self.model.to(device)  # pyright: ignore[reportArgumentType]
        if start:
            self.model.load_state_dict(LlamaForCausalLM.from_pretrained(start).state_dict())
        self._device = device
        self._optimizers = optimizers(self.model, size)
        self._base = [group["lr"] for o in self._optimizers for group in o.param_groups]
        self._decoder = torch.compile(self.model.model, dynamic=False)  # dynamic shapes run far slower on a CPU

    def _loss(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy at the trained positions; only they are projected to the vocabulary."""
        hidden = self._decoder(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        asked = mask[:, 1:]
        return torch.nn.functional.cross_entropy(self.model.lm_head(hidden[asked]).float(), ids[:, 1:][asked])

    def step(self, ids: Tensor, mask: Tensor, progress: float) -> float:
        """One update; returns the mean loss of the trained tokens in nats."""
        lrs = iter(self._base)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = next(lrs) * schedule(progress)
        with torch.autocast(self._device, dtype=torch.bfloat16):
            loss = self._loss(ids.to(self._device), mask.to(self._device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    @torch.no_grad()
    def exact(self, held: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Token accuracy, and the share of rows whose every trained token is the likeliest one."""
        tokens = right = whole = count = 0
        for ids, mask in held:
            ids, mask = ids.to(self._device), mask.to(self._device)
            hit = self.model(input_ids=ids[:, :-1], use_cache=False).logits.argmax(-1) == ids[:, 1:]
            asked = mask[:, 1:]
            tokens += int(asked.sum())
            right += int((hit & asked).sum())
            whole += int((hit | ~asked).all(1).sum())
            count += len(ids)
        return right / tokens, whole / count


def held_out(encoder: Encoder, pad: int, count: int = 96) -> list[tuple[Tensor, Tensor]]:
    """Episodes in houses of eight rooms, with complete notes and no slips, for the watch during training."""
    rng = np.random.default_rng(EVAL_SEED)
    played = (encoder(house_episode(rng, 8, with_notes=True, clean=True)) for _ in range(10 * count))
    source = (row for row in played if len(row.ids) <= LENGTHS[-1])
    return list(islice(batches(source, 12_000, pad), count * 400 // 12_000))


def train(name: str, out: Path, tokens: float, device: str, start: Path | None, batch: int, skip: float) -> None:
    """Train one pocket model and save it.

    Args:
        name: `pocket` or `pocket-large`.
        out: Folder for the model, its tokenizer and `training.jsonl`.
        tokens: How many tokens to train on.
        device: A torch device.
        start: A folder to continue from, or None.
        batch: Tokens per update.
        skip: Tokens that `start` has seen already (the houses do not grow anew).
    """
    size = SIZES[name]
    tokenizer = make_tokenizer()
    encoder = Encoder(tokenizer)
    trainer = Trainer(size, tokenizer, device, start)
    pad = tokenizer.get_vocab()["<|pad|>"]
    held = held_out(encoder, pad)
    grown = Growth(over=6e6 if not start else 1.0)
    out.mkdir(parents=True, exist_ok=True)
    seen, began, loss = 0, time.perf_counter(), math.nan
    with (out / "training.jsonl").open("a") as log:
        for step, (ids, mask) in enumerate(batches(rows(encoder, DATA_SEED + int(skip), grown), batch, pad)):
            loss = trainer.step(ids, mask, (seen + skip) / (tokens + skip))
            seen += ids.numel()
            if step % 100 == 99 or seen >= tokens:
                accuracy, whole = trainer.exact(held)
                line = {"tokens": seen, "loss": loss, "accuracy": accuracy, "episodes": whole}
                log.write(json.dumps(line | {"seconds": time.perf_counter() - began}) + "\n")
                log.flush()
            if step % 500 == 499 or seen >= tokens:
                save(trainer.model, tokenizer, out)
            if seen >= tokens:
                break
    (out / "training.json").write_text(json.dumps({"name": name, **asdict(size), "trained_tokens": seen}, indent=1))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save weights in bfloat16 (half the wheel), config and tokenizer."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train a pocket model from nothing.")
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--tokens", type=float, help="tokens to train on (default: the size's own)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--start", type=Path, help="folder to continue from")
    parser.add_argument("--skip", type=float, default=0.0, help="tokens the start has seen")
    parser.add_argument("--batch", type=int, default=8_192, help="tokens an update")
    args = parser.parse_args()
    train(args.name, args.out, args.tokens or SIZES[args.name].tokens, args.device, args.start, args.batch, args.skip)


if __name__ == "__main__":
    main()
