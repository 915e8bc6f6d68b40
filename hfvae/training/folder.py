"""The output folder: one run at a time, and nothing of the user's is replaced unasked."""

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..hub import CARD, CONFIG, MEASURED, WEIGHTS
from ..hub.lock import locked
from . import checkpoint
from .errors import TrainingError


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Keep other runs out of an output folder; if this one leaves nothing there, remove it."""
    made = [there for there in (folder, *folder.parents) if not there.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(remove_empty, made)
        try:
            stack.enter_context(locked(folder / ".training"))
        except TimeoutError as error:
            raise TrainingError(
                f"another run is training in {folder}: choose another --output_dir, or wait for it"
            ) from error
        yield


def remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # one is not empty
        for folder in folders:
            folder.rmdir()


def refuse_to_replace(folder: Path) -> None:
    """A model, an unfinished run and files of the user's are replaced only when asked to."""
    replace = "replace it with --overwrite_output_dir"
    if checkpoint.existing(folder):
        raise TrainingError(
            f"{folder} holds checkpoints of a run that is not finished: go on with "
            f"--resume_from_checkpoint latest, or {replace}"
        )
    if (folder / WEIGHTS).exists():
        raise TrainingError(
            f"{folder} holds a finished model: choose another --output_dir, or {replace}; to train "
            f"it further, --model_name_or_path {folder} and another --output_dir"
        )
    theirs = [name for name in (CONFIG, CARD, *MEASURED) if (folder / name).exists()]
    if theirs:
        raise TrainingError(
            f"{folder} holds {', '.join(theirs)}, which the model's would replace: choose another "
            "--output_dir, or replace them with --overwrite_output_dir"
        )


def check_writable(folder: Path) -> None:
    """Raise TrainingError now rather than after the images were read."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise TrainingError(
            f"--output_dir {folder} cannot be written to: {error.strerror}"
        ) from error
