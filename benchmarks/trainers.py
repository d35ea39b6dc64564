"""The candidates of `peers.py`: steps of on-policy distillation by this project, TRL and ms-swift, by one clock.

Each imports what it needs when it runs, for no interpreter has them all.
"""

from __future__ import annotations

import json
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
LOW = "bfloat16"
SPECIAL = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}


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
    ids = {word: i for i, word in enumerate((*SPECIAL.values(), *map(str, range(3, vocabulary))))}
    words = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL, padding_side="left")
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


def ours(folder: str, vocabulary: int, low: bool) -> dict[str, float]:
    """Steps of this project."""
    from layouts import IdText

    from opcd_agents.learner.roles import cast_roles
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.types import Example, Tokens

    policy = HuggingFacePolicy(load(folder).eval(), IdText(), OURS)
    roles = cast_roles(
        policy, Recipe(lr=1e-5, longest=NEW, temperature=1.0, diagnose=0, dtype=LOW if low else "float32"), load
    )
    asked, clock = prompts(vocabulary), Clock()
    for first in range(0, len(asked), BATCH):
        roles.refresh()
        session = roles.player.begin(None, range(first, first + BATCH))
        replies = session.reply({slot: (asked[first + slot], {}) for slot in range(BATCH)})
        flags = (False,) * PROMPT + (True,) * NEW
        rows = [Tokens(reply.prompt_ids + reply.sampled_ids, flags) for reply in replies.values()]
        roles.learner.update([Example(row, row) for row in rows])
        clock.tick()
    return clock.result()


def common(folder: str, low: bool) -> dict[str, Any]:
    """Settings of every trainer of Hugging Face's kind."""
    return {
        "output_dir": f"{folder}/out",
        "use_cpu": True,
        "bf16": low,
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


def distillation(folder: str, vocabulary: int, low: bool) -> dict[str, float]:
    """TRL's stable trainer."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    settings = DistillationConfig(**common(folder, low), beta=1.0, temperature=1.0, max_completion_length=NEW)
    data = Dataset.from_dict({"prompt": prompts(vocabulary)})
    return timed(DistillationTrainer(load(folder), load(folder), settings, data, processing_class=tokenizer(folder)))


def sdft(folder: str, vocabulary: int, low: bool) -> dict[str, float]:
    """TRL's self-distillation; it loads its teacher itself."""
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    settings = SDFTConfig(
        **common(folder, low),
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


def gkd(folder: str, vocabulary: int, low: bool) -> dict[str, float]:
    """TRL's generalised knowledge distillation; the answers of its data are not read."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    settings = GKDConfig(**common(folder, low), lmbda=1.0, beta=1.0, temperature=1.0, max_new_tokens=NEW)
    said = [{"role": "assistant", "content": "20"}]
    data = Dataset.from_dict({"messages": [[{"role": "user", "content": text}, *said] for text in prompts(vocabulary)]})
    models = load(folder), load(folder)
    return timed(GKDTrainer(*models, settings, train_dataset=data, processing_class=tokenizer(folder)))


def swift(folder: str, vocabulary: int, low: bool) -> dict[str, float]:
    """The GKD of ms-swift, by its command line's arguments; the answers of its data are not read."""
    from swift.pipelines import rlhf_main
    from transformers import trainer

    data = Path(folder, "data.jsonl")
    said = {"role": "assistant", "content": "20"}
    rows = ({"messages": [{"role": "user", "content": text}, said]} for text in prompts(vocabulary))
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = common(folder, low) | {
        "rlhf_type": "gkd",
        "model": folder,
        "model_type": "qwen3",
        "teacher_model": folder,
        "teacher_model_type": "qwen3",
        "template": "qwen3_nothinking",
        "dataset": data,
        "split_dataset_ratio": 0,
        "torch_dtype": "float32",
        "fp16": False,  # what it takes float32 weights to ask for
        "tuner_type": "full",
        "lmbda": 1,
        "beta": 1,
        "temperature": 1,
        "max_completion_length": NEW,
        "gradient_accumulation_steps": 1,
    }
    clock = Clock()
    trainer.DEFAULT_CALLBACKS.append(ticking(clock))
    rlhf_main([text for name, value in settings.items() for text in (f"--{name}", str(value))])
    return clock.result()


def tokenizer(folder: str) -> Any:
    """The tokenizer of a folder."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


CANDIDATES: dict[str, Callable[[str, int, bool], dict[str, float]]] = {
    OURS: ours,
    "distillation": distillation,
    "sdft": sdft,
    "gkd": gkd,
    SWIFT: swift,
}


def measure(name: str, vocabulary: int, low: bool) -> dict[str, float]:
    """One candidate, in this process; passes in bfloat16 if `low`, with weights in float32 all the same."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        save(folder, vocabulary)
        return CANDIDATES[name](folder, vocabulary, low)
