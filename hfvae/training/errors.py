"""The errors that training raises."""


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""


class Diverged(TrainingError):
    """The loss is no longer a number."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the loss is no longer a number after {step} steps, so this stage was not saved: try "
            "a lower --learning_rate, or --mixed_precision no"
        )
