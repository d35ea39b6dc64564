"""Checkpoints of a learner: safetensors and JSON only, a manifest with hashes written last.

A checkpoint whose manifest is missing or does not match is no checkpoint. Knows nothing of rollouts: chance
is derived from (seed, update), so the number of finished updates is all the state that play needs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from opcd_agents.errors import CheckpointError
from opcd_agents.learner.learner import Learner
from opcd_agents.learner.sharding import part_of, whole
from opcd_agents.runs import write_atomic

_FILES = ("model.safetensors", "best.safetensors", "optimizer.safetensors", "teacher.safetensors", "state.json")


def hand_over(learner: Learner, best: Mapping[str, Tensor]) -> None:
    """This process's part of what another one saves meanwhile; nothing where each has it whole."""
    for tensors in _tensors(learner, best).values():
        for name in sorted(tensors):
            whole(tensors[name])


def save(learner: Learner, best: Mapping[str, Tensor], state: dict[str, Any], folder: Path, run: str = "") -> None:
    """Write a checkpoint beside the old one, then take its place; it does not depend on how many processes share the run.

    Args:
        learner: Trained weights, optimiser and what follows them as a teacher are stored.
        best: The weights that validation likes best so far, by parameter name.
        state: JSON values of the caller, `update` among them.
        folder: The checkpoint's folder.
        run: Names the run that it belongs to; see `RunFolder.identity`.

    Raises:
        RunError: It cannot be written; the old one is still there.
    """
    try:
        _save(learner, best, state, folder, run)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {folder}: {error.strerror or error}") from error


def _save(learner: Learner, best: Mapping[str, Tensor], state: dict[str, Any], folder: Path, run: str) -> None:
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    parts = {name: save_tensors(_plain(tensors)) for name, tensors in _tensors(learner, best).items()}
    parts["state.json"] = json.dumps({"updates": learner.updates, "state": state}).encode()
    for name, data in parts.items():
        write_atomic(fresh / name, data)
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    manifest |= {"run": run, "teacher": _identity(learner)}
    write_atomic(fresh / "manifest.json", json.dumps(manifest).encode())
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def present(folder: Path) -> bool:
    """Whether there is something to restore; the new one may not have taken the old one's place yet."""
    return folder.is_dir() or folder.with_name(folder.name + ".old").is_dir()


def restore(learner: Learner, folder: Path, run: str = "") -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Load the newest whole checkpoint into the learner.

    Args:
        learner: As it was when the run began.
        folder: The checkpoint's folder.
        run: As `save` was told.

    Returns:
        The best weights so far, the caller's state, and what is wrong with the checkpoint where an older one had to do ("": nothing; a newer
        one that a kill left unfinished is no fault).

    Raises:
        CheckpointError: There is none, or every one there is is damaged or belongs to another run, model or teacher.
    """
    problems: list[str] = []
    for candidate in (folder.with_name(folder.name + ".new"), folder, folder.with_name(folder.name + ".old")):
        if candidate.is_dir():
            try:
                return *_load(learner, _verified(candidate, run, _identity(learner))), "; ".join(problems)
            except CheckpointError as error:
                unfinished = candidate.name.endswith(".new") and folder.is_dir()
                problems += [] if unfinished else [str(error)]
    told = "; ".join(problems) or f"wanted a checkpoint at {folder}, got nothing"
    raise CheckpointError(f"{told}; put a copy of it back, or begin a new run")


def _identity(learner: Learner) -> str:
    return learner.teacher.identity if learner.teacher else ""


def _verified(folder: Path, run: str, teacher: str) -> dict[str, bytes]:
    try:
        manifest = dict(json.loads((folder / "manifest.json").read_bytes()))
        parts = {name: (folder / name).read_bytes() for name in _FILES}
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder} is not whole: {error}") from error
    for name, data in parts.items():
        if hashlib.sha256(data).hexdigest() != manifest.get(name):
            raise CheckpointError(f"checkpoint {folder}: {name} does not match its manifest")
    if manifest.get("run") != run:
        raise CheckpointError(f"checkpoint {folder} belongs to another run, or the run's config.json was changed")
    if manifest.get("teacher") != teacher:
        raise CheckpointError(
            f"checkpoint {folder} belongs to a run with another teacher: its weights are not those of now"
        )
    return parts


def _load(learner: Learner, parts: dict[str, bytes]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    parameters = _trained(learner)
    try:
        weights = load_tensors(parts["model.safetensors"])
        best = load_tensors(parts["best.safetensors"])
        slots = load_tensors(parts["optimizer.safetensors"])
        followed = load_tensors(parts["teacher.safetensors"])
        told = json.loads(parts["state.json"])
        updates, state = int(told["updates"]), dict(told["state"])
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"checkpoint cannot be read: {error!r:.120}; begin a new run") from error
    shapes = _shapes(parameters)
    if _shapes(weights) != shapes or not _shapes(best).items() <= shapes.items():
        raise CheckpointError("checkpoint belongs to another model: its parameters have other names or shapes")
    if any(
        tensor.shape not in (shapes.get(key.rpartition("|")[0]), torch.Size()) or key.rpartition("|")[0] not in shapes
        for key, tensor in slots.items()
    ):
        raise CheckpointError("checkpoint belongs to another optimiser: its slots have other names or shapes")
    if learner.teacher is not None:
        learner.teacher.load(followed)
    learner.updates = updates
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(part_of(weights[name], parameter))
    learner.optimizer.state.clear()
    for key, tensor in slots.items():
        name, _, slot = key.rpartition("|")
        learner.optimizer.state[parameters[name]][slot] = part_of(tensor, parameters[name])
    return {name: part_of(tensor, parameters[name]) for name, tensor in best.items()}, state


def _tensors(learner: Learner, best: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """What each file keeps, by its name."""
    return {
        "model.safetensors": _trained(learner),
        "best.safetensors": best,
        "optimizer.safetensors": _optimizer_tensors(learner),
        "teacher.safetensors": learner.teacher.tensors() if learner.teacher else {},
    }


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _trained(learner: Learner) -> dict[str, torch.nn.Parameter]:
    """What is trained; everything else is as the model came in."""
    return {name: p for name, p in learner.student.named_parameters() if p.requires_grad}


def _optimizer_tensors(learner: Learner) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in learner.student.named_parameters()}
    state = cast("dict[torch.nn.Parameter, dict[str, Tensor]]", learner.optimizer.state)
    return {f"{names[p]}|{slot}": tensor for p, slots in state.items() for slot, tensor in slots.items()}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole and on the CPU; by name, as `hand_over` goes, for a file is read in no order."""
    return {name: whole(tensors[name]).cpu().contiguous().clone() for name in sorted(tensors)}
