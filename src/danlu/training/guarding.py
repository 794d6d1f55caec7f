"""What may happen to the loop from outside: memory that is not there, and a person who wants it to stop.

Not for what the loss does (``curves``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from danlu.data.examples import Example
from danlu.errors import TrainingError
from danlu.events import Emit, Warned
from danlu.files import format_bytes
from danlu.hardware import available_memory
from danlu.i18n import t
from danlu.training.forward import LossModel
from danlu.training.memory import give_freed_memory_back
from danlu.training.objectives import Objective
from danlu.training.trained import TrainedModel, base_of

# What PyTorch's allocator for processors (Linux, Windows), the C++ library and oneDNN beneath it say; a GPU's has a
# class. oneDNN names no reason (measured in a process with a limited address space).
_MARKS: Final = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "could not allocate",
    "could not create a primitive",
    "could not execute a primitive",
    "could not create a memory",
)
# With less than this free, Linux soon swaps or ends a process (own rule: what a small run takes and gives in a step).
_LITTLE: Final = 256 * 1024**2


class Interrupted(BaseException):
    """A measurement was asked to stop: no error, so that nothing takes it for one."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)


@contextmanager
def interruptible(model: TrainedModel, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Let code that computes without learning be interrupted before each pass through the model.

    Args:
        model: the model; a measurement passes through it once a piece, an answer once a token.
        should_stop: asked each time.

    Raises:
        Interrupted: it said True.
    """

    def ask(_module: torch.nn.Module, _inputs: object) -> None:
        if should_stop():
            raise Interrupted

    hook = base_of(model).base_model.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        hook.remove()
        model.train()


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """Turn a failed allocation into an error for people.

    Args:
        where: what could not be done, ready to print.

    Raises:
        TrainingError: memory could not be had.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError("training.out_of_memory", where, free=format_bytes(available_memory())) from None


def free_what_was_left(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Throw the gradients of a broken step away, and give its memory back."""
    for parameter in parameters:
        parameter.grad = None
    gc.collect()  # the loop itself collects nothing, and an error's frames hold on to what they computed
    give_freed_memory_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Room:
    """How many tokens are computed at once: as planned, and half as many each time memory runs out.

    Attributes:
        tokens: the budget now.
    """

    def __init__(self, tokens: int, emit: Emit) -> None:
        self.tokens = tokens
        self._emit = emit
        self._warned = False

    def shrink(self, objective: Objective, losses: LossModel, examples: Sequence[Example], where: str) -> None:
        """Halve the budget until the largest piece of these examples gets smaller, and say so.

        Args:
            objective: what cuts the examples.
            losses: the model.
            examples: what could not be computed.
            where: the step, ready to print.

        Raises:
            TrainingError: each example is computed alone already.
        """

        def largest(budget: int) -> int:
            return max(tokens for tokens, _ in objective.pieces(losses, examples, budget))

        before, budget = largest(self.tokens), self.tokens
        while budget > 1:
            budget //= 2
            if largest(budget) < before:
                break
        else:
            raise TrainingError("training.out_of_memory", where, free=format_bytes(available_memory()))
        code = "training.smaller_pieces"
        self._emit(Warned(code=code, message=t(code, where=where, before=self.tokens, tokens=budget)))
        self.tokens = budget

    def look(self, free: int) -> None:
        """Say, once a run, that memory is nearly gone: another program may have taken it.

        Args:
            free: bytes that can be had now.
        """
        if free < _LITTLE and not self._warned:
            self._warned = True
            code = "training.memory_short"
            self._emit(Warned(code=code, message=t(code, free=format_bytes(free))))
