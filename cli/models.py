"""Names of models to folders, and folders to policies. Knows no command."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from unicodedata import normalize

import opcd_agents
from cli.console import tell
from opcd_agents.errors import MissingError, ModelError, UnknownNameError, UsageError
from opcd_agents.recipe import Recipe, is_endpoint, load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from opcd_agents.policies.endpoint import EndpointPolicy
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.render import History, Renderer
    from opcd_agents.types import Policy

PACKAGED: Final = ("pocket", "pocket-large")
_WEIGHTS: Final = Path(opcd_agents.__path__[0]) / "pocket" / "weights"
_ON_THE_HUB: Final = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")


def resolve(name: str) -> str:
    """What `from_pretrained` can load: a folder, or a name on the hub.

    Args:
        name: `pocket`, `pocket-large`, a folder, or `org/name`.

    Raises:
        UsageError: An endpoint, or a path that leads to no folder.
        UnknownNameError: None of these.
        MissingError: A packaged model whose weights this installation lacks.
    """
    if name in PACKAGED:
        return _packaged(name)
    if is_endpoint(name):
        raise UsageError(f"wanted a model whose weights are here, got {name!r}; an endpoint can play, write and teach")
    folder = os.path.expanduser(name)
    if name and os.path.isdir(folder):  # False, not an error, for what can be no path
        return os.path.abspath(folder)  # an adapter keeps it as the name of what is beneath it
    if name.startswith((".", "/", "~")):
        raise UsageError(f"wanted a model folder, got {name!r}, which is no folder")
    if _ON_THE_HUB.fullmatch(name):
        return name
    raise UnknownNameError("model", name, (*PACKAGED, "./FOLDER", "ORG/NAME"))


def lasting(name: str) -> str:
    """The name of a model that means the same in another working directory."""
    return resolve(name) if name not in PACKAGED and os.path.isdir(os.path.expanduser(name)) else name


def player(name: str) -> HuggingFacePolicy | EndpointPolicy:
    """A policy that plays with the model `name`, sampled as suits it.

    Args:
        name: As `resolve` takes it, or the address of an endpoint: http://HOST/v1, or http://HOST/v1#MODEL.

    Raises:
        OpcdError: As `policy`, or as `EndpointPolicy`.
    """
    if not is_endpoint(name):
        return policy(name)
    from opcd_agents.policies.endpoint import EndpointPolicy
    from opcd_agents.policies.service import connect
    from opcd_agents.policies.tongues import Sampling

    service = connect(name)
    steps = recipe(service.root)
    there = EndpointPolicy(service, Sampling(steps.temperature, steps.longest), _renderer(service.root))
    if there.notice:
        tell(there.notice)
    return there


def counter(player: Policy) -> Callable[[str], int]:
    """Counts the tokens of a text for who plays; see `_count`."""
    return _count(getattr(player, "renderer", None))


def recipe(name: str, file: Path | None = None) -> Recipe:
    """What suits the model (a packaged recipe for a packaged model, else the paper's), changed as a file says."""
    suits = load_recipe(_WEIGHTS.parent / "distill.toml") if _is_pocket(name) else Recipe()
    return suits if file is None else load_recipe(file, suits)


def policy(name: str, steps: Recipe | None = None) -> HuggingFacePolicy:
    """A policy that plays with the model `name`; see `resolve`.

    Args:
        name: The model.
        steps: How it is sampled, and what its chat template is asked for; None: what suits it.

    Raises:
        OpcdError: As `resolve`, or the model cannot be used.
    """
    found = resolve(name)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if Path(found).is_dir():  # a bar for a download is welcome, one for reading a file is not
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.policies.loading import device_here, load

    steps = steps or recipe(name)
    thinking = {"": None, "on": True, "off": False}[steps.thinking]
    device, history = device_here(), cast("History | None", steps.history or None)
    network, renderer = load(found, device, history=history, thinking=thinking)
    if device.type != "cpu":
        tell(f"{name}: on {device}")
    if renderer.notice:
        tell(f"{name}: {renderer.notice}")
    return HuggingFacePolicy(network, renderer, name, steps.temperature, steps.longest)


def teacher(name: str, student: HuggingFacePolicy) -> Any:
    """Another network to teach a student.

    Raises:
        ModelError: Its tokenizer has another vocabulary; see also `resolve`.
    """
    other = policy(name)
    if other.renderer.vocabulary != student.renderer.vocabulary:
        raise ModelError(
            f"wanted a teacher with the vocabulary of {student.name}, got {name!r}, which has another; take one of its family"
        )
    return other.network


def token_counter(name: str) -> Callable[[str], int]:
    """Counts the tokens of a text for the model `name`, without loading the model.

    Raises:
        OpcdError: As `resolve`, or the model has no tokenizer.json.
    """
    if is_endpoint(name):
        from opcd_agents.policies.service import connect

        return _count(_renderer(connect(name).root))
    found = resolve(name)
    from tokenizers import Tokenizer

    file = Path(found) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if Path(found).is_dir() else Tokenizer.from_pretrained(found)
    except Exception as error:  # the library raises no narrower type
        raise ModelError(f"wanted a model with a tokenizer.json, got {name!r}: {error!s:.200}") from error
    tokenizer.encode_special_tokens = True  # what looks like a special token is text here
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def embedder(name: str) -> Callable[[Sequence[str]], NDArray[Any]]:
    """Makes vectors of texts with a sentence-transformers model.

    Args:
        name: A folder or a name on the hub.

    Raises:
        MissingError: sentence-transformers is not installed.
        ModelError: There is no such model.
    """
    try:
        library: Any = import_module("sentence_transformers")
    except ImportError as error:
        raise MissingError("wanted sentence-transformers for --embed; pip install 'opcd-agents[embeddings]'") from error
    try:
        model: Any = library.SentenceTransformer(name, device="cpu", trust_remote_code=False)
    except Exception as error:  # the library raises no narrower type
        raise ModelError(f"wanted a sentence-transformers model, got {name!r}: {error!s:.200}") from error

    def embed(texts: Sequence[str]) -> NDArray[Any]:
        return model.encode(list(texts), show_progress_bar=False)

    return embed


def _renderer(model: str) -> Renderer | None:
    """The renderer of a model that a server names, if its tokenizer can be had from here."""
    if not os.path.isdir(model) and not _ON_THE_HUB.fullmatch(model):
        return None
    from opcd_agents.policies.loading import load_renderer

    try:
        return load_renderer(model)
    except ModelError:
        return None


def _count(renderer: Renderer | None) -> Callable[[str], int]:
    """Counts tokens; where no tokenizer is at hand bytes, for none that has a token for each makes more of a text.

    Some take a text's compatibility form, which may be longer, or put a blank in front.
    """
    return (
        renderer.count if renderer else lambda text: 1 + max(len(t.encode()) for t in (text, normalize("NFKC", text)))
    )


def _packaged(name: str) -> str:
    folder = _WEIGHTS / name
    if not folder.is_dir():
        there = ", ".join(other for other in PACKAGED if (_WEIGHTS / other).is_dir()) or "none, so reinstall it"
        raise MissingError(f"wanted the weights of {name!r} in {folder}, found none; this opcd-agents ships: {there}")
    return str(folder)


def _is_pocket(name: str) -> bool:
    """Whether a model is a packaged one, or was distilled from one: they share their tokenizer."""
    if name in PACKAGED:
        return True
    tokens = [Path(folder) / "tokenizer.json" for folder in (name, _WEIGHTS / PACKAGED[0])]
    return all(path.is_file() for path in tokens) and tokens[0].read_bytes() == tokens[1].read_bytes()
