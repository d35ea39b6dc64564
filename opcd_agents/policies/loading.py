"""A model folder to a network and a renderer, or the reason in a line why it cannot be used.

What the row cache and the fused loss assume of a model is tried out on the model itself. Knows no policy.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file  # pyright: ignore[reportMissingTypeStubs]

from opcd_agents.errors import MissingError, ModelError, UsageError
from opcd_agents.policies.cache import RowCache
from opcd_agents.render import History, Renderer

_TRIED = 12  # ids of the longest row that a model is tried on
_SCALES = ("logits_scaling", "logit_scale")  # as Granite and Cohere call it


def load(
    model: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    history: History | None = None,
    thinking: bool | None = None,
) -> tuple[PreTrainedModel, Renderer]:
    """Load a model folder or hub name, and the renderer of its tokenizer.

    An adapter of peft is merged into the model beneath it: what is loaded is one plain model.

    Args:
        model: A local folder, or a name that `from_pretrained` resolves.
        device: A torch device.
        dtype: Type of the weights.
        history: As `Renderer` takes it.
        thinking: As `Renderer` takes it.

    Raises:
        ModelError: There is no such folder, it holds no weights, tokenizer or chat template, or the model is of a kind
            that cannot be treated exactly.
        MissingError: It is an adapter, and peft is not installed.
    """
    folder = Path(model)
    if model.startswith((".", "/", "~")) and not folder.expanduser().is_dir():
        raise ModelError(f"wanted a model folder, got {model!r}, which does not exist")
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(f"wanted a model folder with weights (*.safetensors), got {model!r} without any")
    try:
        beneath = _beneath(model)
        network = _network(beneath or model, dtype)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network = _merged(network, model) if beneath else network
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"wanted a causal language model, got {model!r}: {reason}") from error
    network.eval()
    check(network, tokenizer, model)
    network.to(device)  # pyright: ignore[reportArgumentType]
    return network, Renderer(tokenizer, history, thinking)


def device_here() -> torch.device:
    """Where models go: this process's GPU, else the CPU, which `accelerate launch --cpu` asks for.

    Raises:
        UsageError: More processes were launched here than there are GPUs.
    """
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    mine, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if mine >= there:
        raise UsageError(
            f"wanted a GPU for each process, got process {mine + 1} and {there} here; launch {there}, or with --cpu"
        )
    return torch.device("cuda", mine)


def _network(model: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, with all its weights."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    network, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    if missing := sorted(found["missing_keys"]):  # from_pretrained would make them up
        raise ModelError(f"{model!r} lacks {len(missing)} weights that its config.json promises, such as {missing[0]}")
    return network


def _beneath(model: str) -> str | None:
    """The model that an adapter is for; None if `model` is no adapter."""
    file = find_adapter_config_file(model)
    if file is None:
        return None
    base = json.loads(Path(file).read_bytes()).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"wanted an adapter that says what model it is for, got {model!r}; name it in its adapter_config.json"
        )
    return str(base)


def _merged(network: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """The model with an adapter added into its weights, which then lie in no folder: its config names none."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingError(f"wanted peft for the adapter {adapter!r}; pip install 'opcd-agents[lora]'") from error
    try:
        with quiet_peft():
            merged: Any = PeftModel.from_pretrained(network, adapter)
            merged = merged.merge_and_unload()
    except (AttributeError, TypeError) as error:  # adapters of a kind that nothing can be merged from
        raise ModelError(f"wanted an adapter that can be merged, got {adapter!r}: {error!s:.200}") from error
    merged.name_or_path = merged.config.name_or_path = ""
    return cast("PreTrainedModel", merged.requires_grad_(True))


@contextmanager
def quiet_peft() -> Generator[None]:
    """While peft asks a model of transformers by a name that is going out of use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def load_renderer(model: str) -> Renderer:
    """The renderer of a model's tokenizer, without the model.

    Raises:
        ModelError: There is no such model, or its tokenizer has no chat template that can be used.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"wanted the tokenizer of a model, got {model!r}: {error!s:.200}") from error
    if not tokenizer.chat_template:
        raise ModelError(f"wanted a tokenizer with a chat template, got {model!r} without one (a base model?)")
    return Renderer(tokenizer)


def positions(network: PreTrainedModel) -> int | None:
    """The longest row that the model was made for; None where its config does not say."""
    return getattr(network.config.get_text_config(), "max_position_embeddings", None)


def check(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse what the row cache or the fused loss would not treat exactly.

    Raises:
        ModelError: No chat template, logits that are more than `hidden @ head`, or layers whose states are not keys and
            values of full or sliding-window attention.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"wanted a tokenizer with a chat template, got {name!r} without one (a base model?)")
    config = network.config.get_text_config()  # of the part that reads text, where a model has others
    if getattr(config, "final_logit_softcapping", None):
        raise ModelError(f"{name!r} caps its logits, which the fused loss does not know yet")
    if any(getattr(config, key, None) not in (None, 1, 1.0) for key in _SCALES):
        raise ModelError(f"{name!r} scales its logits, which the fused loss does not know yet")
    head_of(network)
    if not _cache_is_exact(network):
        raise ModelError(f"{name!r} ({network.config.model_type}) keeps states that the row cache does not know yet")


@torch.inference_mode()
def _cache_is_exact(network: PreTrainedModel) -> bool:
    """Whether rows that grow in the cache have the states of one plain forward pass.

    A few ids are enough: a window, where there is one, is made shorter than they are meanwhile.
    """
    decoder = network.get_decoder()
    rows = [[1 + 7 * i % (head_of(network).weight.shape[0] - 1) for i in range(_TRIED)], [1, 2, 3, 4]]
    with _short_window(decoder.config):
        try:
            cache = RowCache(decoder, len(rows))
            cache.append([row[:2] for row in rows])
            cache.append([row[2:4] for row in rows])
            cache.rewind([2, 1])
            hidden = cache.append([row[n:] for row, n in zip(rows, (2, 1), strict=True)])
            plain = [
                decoder(input_ids=torch.tensor([row], device=network.device), use_cache=False).last_hidden_state[0, -1]
                for row in rows
            ]
        except Exception:  # whatever a model of another kind says to what it does not know
            return False
    # bfloat16 keeps 8 bits; a wrong mask or position is wrong in the first
    tolerance = 1e-3 if network.dtype == torch.float32 else 0.1
    return torch.allclose(hidden, torch.stack(plain), atol=tolerance * float(torch.stack(plain).abs().max()), rtol=0)


@contextmanager
def _short_window(config: Any) -> Generator[None]:
    window = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = min(window, _TRIED // 2)
    try:
        yield
    finally:
        if window:
            config.sliding_window = window


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
