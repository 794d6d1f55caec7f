"""The training loop and what makes it fast; checkpoints that an interrupted run continues from."""

from danlu.training.adapter import attach_lora
from danlu.training.fit import FitResult, Job, fit
from danlu.training.settings import LoraSettings, TrainSettings

__all__ = ["FitResult", "Job", "LoraSettings", "TrainSettings", "attach_lora", "fit"]
