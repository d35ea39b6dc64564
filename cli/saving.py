"""A distilled model on disk: what `from_pretrained` reads, and a card that says what was learnt. Knows no command line."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from cli.console import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opcd_agents.learner.distill import Distilled
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.runs import RunFolder


def save_model(policy: HuggingFacePolicy, run: RunFolder, result: Distilled) -> None:
    """Save the weights and the tokenizer, with a card that says what was learnt; all of it or nothing.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError

    from opcd_agents.errors import RunError

    folder, part = run.path / "model", run.path / ".model.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        _plain(result.trained).save_pretrained(part)
        policy.renderer.save_tokenizer(part)
        (part / "README.md").write_text(_card(run.config, result.data), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RunError(f"cannot write the model to {folder}: {error}; make room, then --resume {run.path}") from error


def _plain(trained: Any) -> Any:
    """What can be loaded again: an adapter over weights that lie in no folder becomes one model with them."""
    adapters: dict[str, Any] = getattr(trained, "peft_config", {})
    beneath = all(one.base_model_name_or_path for one in adapters.values())
    return trained if beneath else trained.merge_and_unload()


def _card(config: dict[str, Any], result: dict[str, Any]) -> str:
    """A page on the model. What others wrote stands in indented blocks, which nothing in a text can leave."""
    told = {"model": config["model"], "tasks": config["tasks"], "seed": config["seed"]}
    facts = told | {"recipe": config["recipe"], "result": result}
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items())
    return f"""# A model distilled with opcd-agents

On-Policy Context Distillation (arXiv 2602.12275), or a baseline of it, trained from and for text games: a demonstration model.

{_quoted(lines)}

What the teacher read:

{_quoted(_read(config))}
"""


def _read(config: dict[str, Any]) -> list[str]:
    """What the teacher read: of a context that was named with a method that has no use for one, nothing."""
    from opcd_agents.recipe import Recipe

    told = config["recipe"]
    if not Recipe(**{key: told[key] for key in ("method", "nca") if key in told}).reads_context:
        return ["nothing"]
    if told.get("contexts") == "solution":
        return ["each task's reference solution"]
    return [f"context {one['id']}:\n{one['text']}" for one in config["contexts"]] or ["nothing"]


def _quoted(texts: Iterable[str]) -> str:
    """Texts as Markdown shows them unread, without what a terminal would obey."""
    return "\n".join(f"    {line}" for text in texts for line in clean(text).split("\n"))
