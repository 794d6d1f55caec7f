"""PyTorch's FSDP2: each process keeps a part of every layer, and has it whole only while it passes through it.

Adapters are small and stay whole in every process. With the methods that train the model itself, gradients and the
values that the optimizer keeps are spread like the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from danlu.training import tensors
from danlu.training.optimizers import Optimizers
from danlu.training.ranks.base import Keeper, Result
from danlu.training.ranks.spread import Entrance, Spread
from danlu.training.settings import ADAPTER_METHODS, TrainSettings
from danlu.training.tensors import Stored
from danlu.training.trained import TrainedModel, base_of, trainable


class Sharded(Spread):
    """Weights spread by FSDP2.

    Args:
        device: kind of device, ``cpu`` or ``cuda``.
        offload: keep in the computer's memory what a GPU does not need at the moment.
    """

    def __init__(self, device: str, *, offload: bool) -> None:
        super().__init__()
        self._device = device
        self._offload = CPUOffloadPolicy() if offload and device != "cpu" else OffloadPolicy()

    def begin(self, model: TrainedModel, settings: TrainSettings) -> Keeper:
        """Spread the layers one by one, then what is around them."""
        adapter = settings.method in ADAPTER_METHODS
        whole = {*trainable(model).values()} if adapter else set()
        entrance = Entrance(model)
        mesh = init_device_mesh(self._device, (self.size,))
        for layer in base_of(model).base_model.layers:
            fully_shard(layer, mesh=mesh, ignored_params=whole, offload_policy=self._offload)
        fully_shard(
            entrance, mesh=mesh, ignored_params=whole, offload_policy=self._offload, reshard_after_forward=False
        )
        self._entrance = entrance
        named = trainable(model)
        self._parameters = [*named.values()]
        self._everywhere = self._parameters if adapter else []
        self._optimizer = _SpreadOptimizers(named, settings)
        return self._optimizer

    def compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that passes through the model; what is around the layers stays whole for a gradient only."""
        result = super().compute(function, *arguments)
        if not (isinstance(result, torch.Tensor) and result.requires_grad):
            assert isinstance(self._entrance, FSDPModule)
            self._entrance.reshard()
        return result

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a piece; FSDP2 gives the mean over the processes, and the sum is wanted."""
        super().backward(loss * self.size)

    def combine(self, loss: float | None) -> float | None:
        """Add up the losses, and the gradients that FSDP2 has not added up."""
        assert loss is not None
        self._add_gradients(self._everywhere, 1 / self.size)
        return float(self._sum(torch.tensor(loss, dtype=torch.float64)))

    def update(self, rate: float, most: float) -> float:
        """Clip by the norm over all parts, update, forget."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, most)
        size = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if torch.isfinite(torch.tensor(size)):
            self._optimizer.step(rate)
        return size

    def stored(self, tensor: torch.Tensor) -> Stored:
        """Return what brings a tensor together, one of which only parts are here."""
        if isinstance(tensor, DTensor):
            return tensors.Spread(tensor.shape, tensor.dtype, tensor.full_tensor)
        return tensor


class _SpreadOptimizers(Optimizers):
    """Optimizers that keep of each value the part that belongs to the part of the weight."""

    def put_state(self, parameter: torch.nn.Parameter, state: Mapping[str, torch.Tensor | float]) -> None:
        if isinstance(parameter, DTensor):
            mesh, places = parameter.device_mesh, parameter.placements
            state = {
                key: distribute_tensor(value, mesh, places)
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape
                else value
                for key, value in state.items()
            }
        super().put_state(parameter, state)
