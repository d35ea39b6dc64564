"""What one step of single-turn on-policy distillation costs, beside the trainers that people use: CPU seconds and memory.

A step samples 64 ids for each of 4 prompts of 128, scores them with the student and a frozen teacher of its size, and takes
one AdamW step on all weights by the reverse KL over the whole vocabulary: a random Qwen3 of 4 layers of 256 with a tied
head, float32, temperature 1, one thread, 2 steps to warm up and 6 timed. The teacher reads the same 128 + 64 ids as the student, so all
encode alike. Each candidate has a process of its own; memory is the peak of its resident set, its libraries included.

* `ours`: `HuggingFacePolicy` plays, `Learner` learns.
* `distillation`, `sdft`, `gkd`: TRL's `DistillationTrainer` (chunked loss), `SDFTTrainer` (all logits) and `GKDTrainer` (all
  logits, prompts included), without the bfloat16 and the gradient checkpointing that two of them begin with and that cost more
  time on a CPU (GKD's checkpointing also switches off its cache of keys and values).
* `swift`: the GKD of ms-swift; its chat template adds about 10 ids to each prompt.

What flatters ours: a random model never ends a reply early, where waiting would cost all alike; one short turn with no
environment; no logging, data loading or tokenizing, which the others do in the step (a few ms). What flatters the others: one
turn, a head of 4 layers' weight and no context, so neither kept keys nor shared prefixes count; on a GPU they have kernels and
vLLM that are not measured here.

Peers have a Python of their own, made by whoever runs this (without one, `ours` stands alone):

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 peft
    python3 -m venv swift && swift/bin/pip install torch==2.13.0 ms-swift==4.6.0 msgspec trl==0.29.1 transformers==5.19.0
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers

BATCH, PROMPT, NEW, WARM, TIMED = 4, 128, 64, 2, 6
STEPS = WARM + TIMED
OURS, SWIFT = "ours", "swift"
SPECIAL = "<unk>", "<pad>", "</s>"
EXAMPLES = """examples:
  python benchmarks/peers.py --python peers/bin/python
  python benchmarks/peers.py --python peers/bin/python --swift swift/bin/python --repeat 3
  python benchmarks/peers.py --one ours --vocabulary 32000"""


class Clock:
    """CPU seconds of this process at the end of each step, and its memory from the first on."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # what building the models took at its peak is forgotten
        self._ends: list[float] = []

    def tick(self) -> None:
        """A step has ended."""
        self._ends.append(time.process_time())

    def result(self) -> dict[str, float]:
        """Seconds a step, and MiB."""
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        return {"seconds": (self._ends[WARM + TIMED - 1] - self._ends[WARM - 1]) / TIMED, "memory": peak}


def save(folder: str, vocabulary: int) -> None:
    """A random model, and a tokenizer whose words are ids in decimals."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    ids = dict(zip(SPECIAL, range(3))) | {str(i): i for i in range(3, vocabulary)}
    words = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, **dict(zip(("unk_token", "pad_token", "eos_token"), SPECIAL)), padding_side="left"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)


def load(folder: str) -> Any:
    """The model of a folder."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def prompts(vocabulary: int) -> list[str]:
    """Random prompts for all steps; the first few ids, which may mean something, are left out."""
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(16, vocabulary, (STEPS * BATCH, PROMPT), generator=chance)
    return [" ".join(map(str, row)) for row in ids.tolist()]


def ours(folder: str, vocabulary: int) -> dict[str, float]:
    """Steps of this project."""
    from layouts import IdText

    from opcd_agents.learner.learner import Learner, Settings
    from opcd_agents.learner.objectives import ReverseKL
    from opcd_agents.learner.teachers import Frozen
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.types import Example, Tokens

    student = load(folder).eval()
    learner = Learner(student, Frozen(load(folder)), ReverseKL(), Settings(lr=1e-5))
    policy = HuggingFacePolicy(student, IdText(), OURS, longest=NEW)
    asked, clock = prompts(vocabulary), Clock()
    for first in range(0, len(asked), BATCH):
        session = policy.begin(None, range(first, first + BATCH))
        replies = session.reply({slot: (asked[first + slot], {}) for slot in range(BATCH)})
        flags = (False,) * PROMPT + (True,) * NEW
        rows = [Tokens(reply.prompt_ids + reply.sampled_ids, flags) for reply in replies.values()]
        learner.update([Example(row, row) for row in rows])
        clock.tick()
    return clock.result()


def common(folder: str) -> dict[str, Any]:
    """Settings of every trainer of Hugging Face's kind."""
    return {
        "output_dir": f"{folder}/out",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def timed(trainer: Any) -> dict[str, float]:
    """Train by the clock."""
    clock = Clock()
    trainer.add_callback(ticking(clock))
    trainer.train()
    return clock.result()


def ticking(clock: Clock) -> type:
    """A callback of Hugging Face's trainers."""

    class Tick(transformers.TrainerCallback):
        def on_step_end(self, *_args: Any, **_named: Any) -> None:
            clock.tick()

    return Tick


def distillation(folder: str, vocabulary: int) -> dict[str, float]:
    """TRL's stable trainer."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    settings = DistillationConfig(**common(folder), beta=1.0, temperature=1.0, max_completion_length=NEW)
    data = Dataset.from_dict({"prompt": prompts(vocabulary)})
    return timed(DistillationTrainer(load(folder), load(folder), settings, data, processing_class=tokenizer(folder)))


def sdft(folder: str, vocabulary: int) -> dict[str, float]:
    """TRL's self-distillation; it loads its teacher itself."""
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    settings = SDFTConfig(
        **common(folder),
        teacher_model_kind="base",
        distillation_mode="full_logits",
        distillation_alpha=1.0,
        distillation_is_clip=None,
        num_generations=1,
        max_completion_length=NEW,
    )
    asked = prompts(vocabulary)
    data = Dataset.from_dict({"prompt": asked, "privileged_context": [""] * len(asked)})
    return timed(SDFTTrainer(load(folder), settings, data, processing_class=tokenizer(folder)))


def gkd(folder: str, vocabulary: int) -> dict[str, float]:
    """TRL's generalised knowledge distillation; the answers of its data are not read."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    settings = GKDConfig(**common(folder), lmbda=1.0, beta=1.0, temperature=1.0, max_new_tokens=NEW)
    said = [{"role": "assistant", "content": "20"}]
    data = Dataset.from_dict({"messages": [[{"role": "user", "content": text}, *said] for text in prompts(vocabulary)]})
    models = load(folder), load(folder)
    return timed(GKDTrainer(*models, settings, train_dataset=data, processing_class=tokenizer(folder)))


def tokenizer(folder: str) -> Any:
    """The tokenizer of a folder."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


CANDIDATES: dict[str, Callable[[str, int], dict[str, float]]] = {
    OURS: ours,
    "distillation": distillation,
    "sdft": sdft,
    "gkd": gkd,
}


def measure(name: str, vocabulary: int) -> dict[str, float]:
    """One candidate, in this process."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        save(folder, vocabulary)
        return CANDIDATES[name](folder, vocabulary)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--one")
    p.add_argument("--vocabulary", type=int)
    a = p.parse_args()
    print(json.dumps(measure(a.one, a.vocabulary)))
