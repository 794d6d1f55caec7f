"""DeepSpeed's ZeRO: spread is what the optimizer keeps (stage 1), gradients too (2), or the weights as well (3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, Literal

import torch
from torch import distributed

from danlu.training.optimizers import Optimizers
from danlu.training.ranks.base import Item, Keeper
from danlu.training.ranks.spread import Entrance, Spread
from danlu.training.settings import ADAPTER_METHODS, TrainSettings
from danlu.training.tensors import Spread as SpreadTensor
from danlu.training.tensors import Stored
from danlu.training.trained import TrainedModel, base_of, trainable

# What AdamW keeps for each number of a weight; beside it, it counts its updates.
_KEPT: Final = ("exp_avg", "exp_avg_sq")
_COUNT: Final = "step"
_COMPILED_SUM: Final = "deepspeed_shm_comm"


class Partitioned(Spread):
    """Weights and what updates them laid out by DeepSpeed.

    Args:
        stage: ZeRO's stage.
        offload: keep in the computer's memory what a GPU does not need at the moment.
    """

    def __init__(self, stage: Literal[1, 2, 3], *, offload: bool) -> None:
        super().__init__()
        self._stage, self._offload = stage, offload

    def begin(self, model: TrainedModel, settings: TrainSettings) -> Keeper:
        """Give the model to DeepSpeed."""
        deepspeed = import_module("deepspeed")
        # On a processor DeepSpeed would compile a faster sum of its own at the first start, for which a machine needs a
        # C++ compiler.
        deepspeed.ops.__compatible_ops__[_COMPILED_SUM] = False
        named = trainable(model)
        self._adapter = [*named.values()] if settings.method in ADAPTER_METHODS else []
        entrance, base = Entrance(model), base_of(model)
        head = base.get_output_embeddings()
        if self._stage == 3:
            # The layers are computed in ways of our own: all of a layer comes together as soon as it is entered.
            deepspeed.utils.set_z3_leaf_modules(entrance, [type(base.base_model.layers[0])])
            # A layer without a gradient at its entrance would let its weights go before it has used them.
            base.get_input_embeddings().register_forward_hook(_with_gradient)
        own = Optimizers(named, settings)
        self._engine, self._zero, *_ = deepspeed.initialize(
            model=entrance, optimizer=own.single(), config=self._config(settings)
        )
        if self._stage == 3:
            deepspeed.zero.register_external_parameter(entrance, head.weight)
        self._deepspeed, self._entrance, self._own = deepspeed, self._engine, own
        return _ZeroState(self._zero, self._stage)

    def _config(self, settings: TrainSettings) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": self._stage, "overlap_comm": False}
        if self._offload:
            zero["offload_optimizer"] = {"device": "cpu"}
            if self._stage == 3:
                zero["offload_param"] = {"device": "cpu"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # not looked at: each step says itself what belongs to it
            "gradient_accumulation_steps": 1,
            "gradient_clipping": settings.max_grad_norm,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }

    def rounds(self, pieces: Sequence[Item], spare: Item) -> Iterator[tuple[Item, bool]]:
        """Return the pieces, and let DeepSpeed know which is the last."""
        every = [*super().rounds(pieces, spare)]
        for number, item in enumerate(every, 1):
            self._engine.set_gradient_accumulation_boundary(number == len(every))
            yield item

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a piece; DeepSpeed gives the mean over the processes, and the sum is wanted."""
        self._engine.backward(loss * self.size)

    def combine(self, loss: float | None) -> float | None:
        """Add up the losses; the gradients are added up already."""
        assert loss is not None
        return float(self._sum(torch.tensor(loss, dtype=torch.float64)))

    def update(self, rate: float, most: float) -> float:
        """Let DeepSpeed clip and update; ``most`` is the norm that it was told at the beginning."""
        del most
        self._own.set_rate(rate)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def stored(self, tensor: torch.Tensor) -> Stored:
        """Return what brings a weight together."""
        if self._stage < 3 or not hasattr(tensor, "ds_shape"):
            return tensor
        return SpreadTensor(
            tensor.ds_shape, torch.float32, lambda: self._deepspeed.utils.safe_get_full_fp32_param(tensor)
        )

    @contextmanager
    def whole_adapter(self) -> Iterator[None]:
        """Bring the weights of an adapter together."""
        if self._stage < 3 or not self._adapter:
            yield
            return
        with self._deepspeed.zero.GatheredParameters(self._adapter):
            yield


class _ZeroState:
    """What DeepSpeed keeps of AdamW's values, weight by weight, as if one process had it all."""

    def __init__(self, zero: Any, stage: int) -> None:
        self._zero, self._stage = zero, stage
        self._utils = import_module("deepspeed.utils")
        # AdamW's own weights are long rows, each a part of many weights. Their values are made before the first update:
        # DeepSpeed (0.19) finds them again only if those of all rows are there when the first of them is updated.
        rows = zero.single_partition_of_fp32_groups if stage < 3 else zero.fp32_partitioned_groups_flat
        self._values = [{_COUNT: torch.zeros(()), **{key: torch.zeros_like(row) for key in _KEPT}} for row in rows]
        zero.optimizer.state.update(zip(rows, self._values, strict=True))
        if stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def state(self, parameter: torch.nn.Parameter) -> Mapping[str, Stored | float]:
        shape = getattr(parameter, "ds_shape", parameter.shape)
        spread = {key: SpreadTensor(shape, torch.float32, self._fetcher(parameter, key)) for key in _KEPT}
        return {_COUNT: self._values[0][_COUNT].clone(), **spread}

    def put_state(self, parameter: torch.nn.Parameter, state: Mapping[str, torch.Tensor | float]) -> None:
        for row in self._values:
            row[_COUNT].fill_(float(state[_COUNT]))
        for key in _KEPT:
            value = state[key]
            assert isinstance(value, torch.Tensor)
            if self._stage < 3:
                self._utils.safe_set_full_optimizer_state(parameter, value, key)
                continue
            part, _ = self._zero._get_fp32_opt_state_partition(parameter, False, key)
            # The last process may have less than the others, which DeepSpeed's own way to set a value does not expect.
            mine = value.flatten()[part.numel() * distributed.get_rank() :][: part.numel()]
            part[: mine.numel()].copy_(mine)

    def _fetcher(self, parameter: torch.nn.Parameter, key: str) -> Callable[[], torch.Tensor]:
        def fetch() -> torch.Tensor:
            whole: torch.Tensor = self._utils.safe_get_full_optimizer_state(parameter, key)
            return whole

        return fetch


def _with_gradient(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() and not output.requires_grad else output
