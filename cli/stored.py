"""Episodes of a bank that a run reads: those it replays, and those it is held to. A run keeps their ids, and finds them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.types import Episode, Example

REPLAYED, ANCHORED = "replayed", "anchored"
_CONVERSATIONS = 2048  # to draw the anchors of each update from; few would be learnt by heart


def stored_in(bank: str, scope: str, recipe: Recipe, anchors: Sequence[str] = ()) -> dict[str, Any]:
    """What a run must know of a bank, as it stands when the run begins.

    Args:
        bank: Where the bank is.
        scope: What is learnt: the student's train episodes on it are replayed, where the recipe wants that.
        recipe: What is done.
        anchors: Scopes whose train episodes the student is held to.

    Raises:
        UsageError: There are none, anchors are not wanted, or they are of what is to be learnt.
    """
    from experience_bank import Bank
    from opcd_agents.errors import UsageError
    from opcd_agents.types import Split

    if anchors and not recipe.anchors:
        raise UsageError("wanted anchors in the recipe with --anchor, got anchors = 0; say how many each update draws")
    if scope in anchors:
        raise UsageError(f"wanted --anchor to name what must stay as it is, got {scope!r}, which is to be learnt")
    wanted = {REPLAYED: [scope]} if recipe.rollouts == "replay" else {}
    wanted |= {ANCHORED: list(anchors)} if anchors else {}
    found: dict[str, Any] = {}
    for use, scopes in wanted.items():
        role = "student" if use == REPLAYED else None
        with Bank.open(bank, "r") as store:
            keys = {one: store.episode_ids(one, Split.TRAIN, role) for one in scopes}
        if bare := [one for one in scopes if not keys[one]]:
            purpose = "to replay" if use == REPLAYED else "to hold the student to"
            raise UsageError(
                f"wanted train episodes of {bare[0]!r} in {bank} {purpose}, found none; run `opcd collect` first"
            )
        found[use] = [key for one in scopes for key in keys[one]]
    return found and {"bank": bank if "://" in bank else str(Path(bank).resolve()), **found}


def episodes(config: dict[str, Any], use: str) -> list[Episode]:
    """The episodes that a run has a use for."""
    from experience_bank import Bank

    if use not in config:
        return []
    with Bank.open(config["bank"], "r") as store:
        return [store.episode(key)[1] for key in config[use]]


def anchors_of(policy: HuggingFacePolicy, config: dict[str, Any], recipe: Recipe) -> list[Example]:
    """What the student is held to: the named episodes of the bank, else conversations of the pocket models' curriculum.

    Raises:
        UsageError: The episodes are not as this student would have them.
        ModelError: One is longer than the model.
    """
    from opcd_agents.learner.replay import check_stored, has_ids
    from opcd_agents.learner.rows import anchors
    from opcd_agents.pocket.anchors import make_anchors
    from opcd_agents.policies.loading import positions

    if not recipe.anchors:
        return []
    if ANCHORED in config:
        held = [one for one in episodes(config, ANCHORED) if has_ids(one)]
        check_stored(held, policy.renderer, replace(recipe, importance=0.0))
        longest = positions(policy.network)
        return [row for one in held for row in anchors(one, policy.renderer, longest)]
    texts = "\n".join(one["text"] for one in config["contexts"])
    return make_anchors(policy.renderer, _CONVERSATIONS, config["seed"], texts)
