"""The error that training raises."""


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""
