"""A student whose weights, gradients and optimiser lie in parts, one in each process (FSDP2, as `accelerate launch --use_fsdp` asks).

Every pass through it is a joint act of all processes, so they must make equally many; what one process does alone (playing, a teacher's
reading) goes through a whole copy of the weights. Elsewhere a part is a tensor like others: `whole` and `part_of` lead there and
back, so a checkpoint knows nothing of it and a run may go on with another number of processes. Knows no rows and no loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def wanted() -> bool:
    """Whether `accelerate launch` was asked for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def shard(network: PreTrainedModel, processes: int) -> None:
    """Leave each process its part of each weight, in place; the layers of the decoder are put together one at a time.

    What is outside of them (embeddings, norm and head) stays together from a pass to the end of its backward pass, so the head can be
    read, and given a gradient, by a loss that is no part of the model. Gradients are added up, not averaged.
    """
    mesh = init_device_mesh(network.device.type, (processes,))
    for module in [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)] + [network]:
        part = fully_shard(module, mesh=mesh)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other
    cast("Any", network).decode = MethodType(_decode, network)
    register_fsdp_forward_method(network, "decode")


def decoder_of(network: PreTrainedModel) -> Callable[..., Any]:
    """What maps ids to hidden states; for a network in parts, together with the other processes."""
    return cast("Any", network).decode if isinstance(network, FSDPModule) else network.get_decoder()


def is_sharded(what: Tensor | torch.nn.Module) -> bool:
    """Whether a network or tensor lies in parts."""
    return isinstance(what, FSDPModule | DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor put together, without gradient; all processes must ask."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor: on the device, and cut as `like` is."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor) or not tensor.ndim:  # the optimiser's count of steps is not cut
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def _decode(network: PreTrainedModel, **inputs: Any) -> Any:
    return network.get_decoder()(**inputs)
