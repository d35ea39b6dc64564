"""A small run that may be stopped anywhere, for `test_resume`, whose processes begin here."""

import errno
import hashlib
import json
import os
import random
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from opcd_agents.errors import OpcdError
from opcd_agents.learner import distill as module
from opcd_agents.learner.contexts import Fixed
from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.runs import RunFolder
from tests.learner.conftest import TEXTS, tiny
from tests.learner.test_distill import CONTEXT, TASKS, PlainHouse

RECIPE = Recipe(
    updates=30, episodes=4, lr=1e-3, longest=4, validate=5, validation_episodes=2, pull=0.01, teacher="ema", temperature=1.0
)  # fmt: skip
SUBJECT = module.Subject(TASKS[:4], TASKS[4:], PlainHouse, Fixed(CONTEXT))
tokenizer = cache(lambda: train_tokenizer(TEXTS, 400))


def run(folder, every=1, stop=0, room=0, told=None):
    """Begin a run, or go on with it.

    Args:
        folder: Of the run.
        every: How many updates lie between two checkpoints.
        stop: Update after which it is interrupted; 0: none.
        room: How many bytes the disk still takes; 0: enough.
        told: Takes the number of each update.
    """

    def watch(line):
        if line["update"] == stop:
            raise KeyboardInterrupt
        if told:
            told.send(line["update"])

    torch.set_num_threads(1)
    policy = HuggingFacePolicy(tiny(len(tokenizer())), Renderer(tokenizer()), "tiny")
    chance = list(_chance())
    resume = (folder / "config.json").exists()
    where = RunFolder.open(folder) if resume else RunFolder.create(folder, {})
    with mock.patch.object(module, "_UPDATES", every), mock.patch.object(module, "gathered", _noted):
        if room:
            mock.patch.object(Path, "open", _Disk(room).open).start()
        try:
            module.distill(policy, SUBJECT, RECIPE, where, seed=7, resume=resume, watch=watch)
        except KeyboardInterrupt:
            return
        except OpcdError as error:
            raise SystemExit(9 if room else 1) from error
    generators = {"torch": _digest(chance[0]), "untouched": chance == list(_chance())}
    (folder / "chance.json").write_text(json.dumps(generators))


def run_all(folder, every, stops):
    """A run without a stop, and one for each of some updates that it is stopped after and goes on from."""
    run(folder / "straight", every)
    for stop in stops:
        run(folder / f"at-{stop}", every, stop)
        run(folder / f"at-{stop}", every)


_gathered = module.gathered


def _noted(*args):
    """As `gathered`, with the sampled ids in the line of metrics."""
    batch = _gathered(*args)
    ids = [one.student.ids for one in batch.examples], [one.student.said for one in batch.examples]
    batch.spoken["ids"] = _digest(json.dumps(ids).encode())
    return batch


def _chance():
    """The state of every generator that is not derived from (seed, update)."""
    yield torch.get_rng_state().numpy().tobytes()
    yield repr(np.random.get_state()).encode()
    yield repr(random.getstate()).encode()


def _digest(data):
    return hashlib.sha256(data).hexdigest()


class _Disk:
    """A disk with room for so many bytes more: what does not fit is written as far as it does."""

    def __init__(self, room):
        self._left = room
        self._open = Path.open

    @property
    def open(self):
        """Takes the place of `Path.open`."""
        disk = self

        def opened(path, mode="r", *args, **kwargs):
            file = disk._open(path, mode, *args, **kwargs)
            if mode[0] in "wa":
                write = file.write
                # The file itself cannot be given another method.
                return _File(file, lambda data: disk.write(write, data))
            return file

        return opened

    def write(self, write, data):
        """Write what fits."""
        fits = data[: self._left]
        self._left -= len(fits)
        write(fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _File:
    """An open file on such a disk."""

    def __init__(self, file, write):
        self._file = file
        self.write = write

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
