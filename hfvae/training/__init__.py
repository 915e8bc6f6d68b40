"""Training as a function: `train(TrainConfig(dataset="photos"))`.

What train.py does is this and no more: a flag for every field of `TrainConfig`.
"""

from .config import TrainConfig
from .errors import TrainingError
from .run import train

__all__ = ["TrainConfig", "TrainingError", "train"]
