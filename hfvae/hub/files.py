"""A model as a folder: config.json and model.safetensors, checked in every way before it is built.

Nothing here reads pickle or runs code that came with a model. The weights' metadata repeat the
config and carry a SHA-256 of the tensors, so damaged weights, an edited config and a save that was
cut short are told apart.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..configs import Config
from ..errors import HubError, quoted
from .lock import locked

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Tensors that the first files lack, and what is meant where they do: (shape) -> values.
UNSAID: dict[str, Callable[..., Tensor]] = {
    "prior.fitted": lambda: torch.tensor(True),
    "prior.axes": lambda dim, _: torch.eye(dim),
}
METADATA = "hfvae"  # the entry of the weights' metadata that repeats the config and holds the hash
FORMAT_VERSION = 2  # the newest that is read; a config says which one it needs
MAX_CONFIG_BYTES = 100_000
# Of what the weights say before their numbers: so much for the metadata, and for each tensor.
MAX_HEADER_BYTES, MAX_BYTES_PER_TENSOR = 1_000_000, 1_000
PATIENCE = 60  # seconds that a save waits for another one to end
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def model_files(model: Any) -> dict[str, bytes]:
    """The two files that are the model."""
    settings = {
        "model_type": model.config.model_type,
        "format_version": model.config.format_version,
    }
    if model.custom_parts:
        settings["custom_parts"] = model.custom_parts
    settings |= json.loads(json.dumps(model.config.settings()))  # tuples as JSON has them
    # Copies, because safetensors refuses tensors that share memory, as those of a custom part that
    # is used twice do.
    tensors = {
        name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()
    }
    # One entry, because safetensors writes several in random order: equal models, equal files.
    metadata = {METADATA: json.dumps({"config": settings, "sha256": digest(tensors)})}
    return {
        CONFIG: as_json(settings),
        WEIGHTS: save(tensors, metadata),
    }


def as_json(values: Mapping[str, Any]) -> bytes:
    """A file of settings or numbers."""
    return (json.dumps(values, indent=2) + "\n").encode()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names, shapes, dtypes and values."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def check_output(file: Path) -> None:
    """Raise OSError now for a file that could not be written in the end."""
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; give a file to write to")
    if not file.resolve().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write to")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that a reader, an error or another save never meets half of them.

    A new folder is written beside its place and renamed. In an existing one, the files are staged
    complete and then replaced one by one, the weights last; other files stay. One save at a time.
    Killed between two replacements, it leaves files that differ, which a loader refuses.

    Raises:
        OSError: it cannot be written, or another save does not end.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give a folder to save to")
    new = not folder.exists()
    if new:
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _stage(folder, new) as stage:
        if new and folder.exists():  # another save made it meanwhile
            return write_folder(folder, files)
        for name, data in files.items():
            with open(stage / name, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        if new:
            stage.chmod(0o755)  # mkdtemp makes it private
            stage.rename(folder)
        else:
            _replace(stage, folder, sorted(files, key=lambda name: name == WEIGHTS))


def _replace(stage: Path, folder: Path, names: list[str]) -> None:
    """Move files over those of a folder: all, or where one cannot be moved, none."""
    before, moved = stage / ".before", []
    before.mkdir()
    for name in names[:-1]:  # nothing comes after the last that could fail
        if (folder / name).exists():
            shutil.copy2(folder / name, before / name)
    try:
        for name in names:
            os.replace(stage / name, folder / name)
            moved.append(name)
    except OSError:
        for name in moved:
            if (before / name).exists():
                (before / name).rename(folder / name)
            else:
                (folder / name).unlink()
        raise


@contextmanager
def _stage(folder: Path, new: bool) -> Generator[Path]:
    """A place to write to, for one save at a time; what a save that was killed left is removed."""
    lock = saving(folder, new)
    try:
        with locked(lock, PATIENCE) as alone:
            if alone:
                for left in lock.parent.iterdir():
                    if left.name.startswith(f"{lock.name}-"):
                        shutil.rmtree(left, ignore_errors=True)
            stage = Path(tempfile.mkdtemp(prefix=f"{lock.name}-", dir=lock.parent))
            try:
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:  # whose own words name a hidden file
        if error.filename is None or not str(error.filename).startswith(str(lock)):
            raise
        raise type(error)(
            error.errno, f"cannot write there: {error.strerror}", str(folder)
        ) from error


def saving(folder: Path, new: bool = False) -> Path:
    """The file that is there, and locked, while a folder is saved to."""
    # Inside an existing folder, which may be a mount of its own: a file cannot be moved across.
    return (folder.parent if new else folder) / f".{folder.name}.saving"


def read_config(
    path: Path, where: str, families: Mapping[str, type[Any]]
) -> tuple[Config, list[str], dict[str, Any]]:
    """The config in a config.json, the names of its custom parts, and the raw settings."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise HubError(f"{where}: {CONFIG} is larger than {MAX_CONFIG_BYTES:,} bytes")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{where}: {CONFIG} is not valid JSON ({quoted(error)})") from error
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise HubError(f"{where}: {CONFIG} has no model_type, so this is no hfvae model")
    values = dict(settings)
    kind = values.pop("model_type")
    version = values.pop("format_version", None)
    custom = values.pop("custom_parts", [])
    if isinstance(version, bool) or not isinstance(version, int):
        raise HubError(f"{where}: {CONFIG} has no format_version, so this is no hfvae model")
    if version > FORMAT_VERSION:
        raise HubError(
            f"{where}: saved in format {version}, and this hfvae reads up to {FORMAT_VERSION}: "
            "update it"
        )
    if not isinstance(kind, str) or kind not in families:
        known = ", ".join(families)
        raise HubError(f"{where}: unknown model_type {kind!r:.80}; this hfvae knows {known}")
    if not isinstance(custom, list) or not set(map(str, custom)) <= {"encoder", "decoder"}:
        raise HubError(f"{where}: custom_parts in {CONFIG} must list 'encoder' or 'decoder'")
    config_class = families[kind].config_class
    if unknown := sorted(set(values) - {f.name for f in fields(config_class)}):
        raise HubError(f"{where}: unknown settings in {CONFIG}: {quoted(', '.join(unknown))}")
    try:
        return config_class(**values), custom, settings
    except (TypeError, ValueError) as error:
        raise HubError(f"{where}: {CONFIG}: {quoted(error)}") from error


def read_weights(path: Path, settings: dict[str, Any], model: nn.Module, where: str) -> None:
    """Put the tensors of a file into a model built on the meta device, after checking them."""
    expected = model.state_dict()
    check_header(path, len(expected), where)
    try:
        with safe_open(path, "pt") as file:
            saved = _read_metadata(file.metadata() or {}, where)
            _check_settings(saved.get("config"), settings, where)
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_names_and_shapes(found, expected, where)
            tensors = {name: file.get_tensor(name).clone() for name in found}
    except SafetensorError as error:
        raise HubError(f"{where}: {WEIGHTS} is damaged ({quoted(error)})") from error
    for name, tensor in tensors.items():
        dtype = expected[name].dtype
        if tensor.dtype not in (FLOATS if dtype.is_floating_point else (dtype,)):
            raise HubError(f"{where}: {name} in {WEIGHTS} has dtype {tensor.dtype}")
    if "sha256" not in saved:
        warnings.warn(f"{where}: {WEIGHTS} carries no checksum; loaded unchecked", stacklevel=5)
    elif saved["sha256"] != digest(tensors):
        raise HubError(
            f"{where}: {WEIGHTS} is damaged: its SHA-256 is not the one it was saved with"
        )
    for name in expected.keys() & UNSAID.keys() - tensors.keys():
        tensors[name] = UNSAID[name](*expected[name].shape)
    model.load_state_dict(tensors, assign=True)


def check_values(model: Any, where: str) -> None:
    """Raise HubError unless a loaded model can compute with its numbers.

    What the buffers of a custom part may hold is its own affair: a mask may well be infinite.
    """
    parameters = {name for name, _ in model.named_parameters()}
    custom = tuple(f"{part}." for part in model.custom_parts)
    for name, tensor in model.state_dict().items():
        ours = name in parameters or not name.startswith(custom)
        if ours and tensor.is_floating_point() and not tensor.isfinite().all():
            raise HubError(
                f"{where}: {name} in {WEIGHTS} holds numbers that are not finite in {tensor.dtype}"
            )
    for name, part in model.named_modules():
        variance = part.running_var if isinstance(part, nn.modules.batchnorm._BatchNorm) else None
        if variance is not None and (variance < 0).any():
            raise HubError(f"{where}: {name} in {WEIGHTS} has a negative variance")
    if wrong := model.prior.defect():
        raise HubError(f"{where}: the prior in {WEIGHTS} is no distribution: {wrong}")


def check_header(path: Path, tensors: int, where: str) -> None:
    """Raise HubError if a file says more of itself than that of so many tensors can."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
    limit = MAX_HEADER_BYTES + MAX_BYTES_PER_TENSOR * tensors
    if limit < length <= path.stat().st_size:  # safetensors says what is wrong with a longer one
        raise HubError(
            f"{where}: the header of {path.name} has {length:,} bytes, and {limit:,} are the most "
            f"for {tensors} tensors"
        )


def _read_metadata(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """What the weights say of themselves; nothing if another program wrote them."""
    if METADATA not in metadata:
        return {}
    try:
        saved = json.loads(metadata[METADATA])
        if isinstance(saved["config"], dict) and isinstance(saved["sha256"], str):
            return saved
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise HubError(f"{where}: the metadata of {WEIGHTS} are damaged")


def _check_settings(saved: dict[str, Any] | None, settings: dict[str, Any], where: str) -> None:
    if saved is None:
        return
    missing = object()
    names = sorted(saved.keys() | settings.keys())
    differ = [k for k in names if saved.get(k, missing) != settings.get(k, missing)]
    if differ:
        raise HubError(
            f"{where}: {CONFIG} and {WEIGHTS} differ in {quoted(', '.join(differ))}: {CONFIG} was "
            "edited, or a save was cut short; take both files from one save"
        )


def _check_names_and_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], where: str
) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    problems = [f"{name} is missing" for name in shapes.keys() - found.keys() - UNSAID.keys()]
    problems += [f"{name!r:.80} is unexpected" for name in found.keys() - shapes.keys()]
    problems += [
        f"{name} is {quoted(found[name])} and should be {shapes[name]}"
        for name in shapes.keys() & found.keys()
        if shapes[name] != found[name]
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise HubError(
            f"{where}: {WEIGHTS} does not fit {CONFIG}: {'; '.join(sorted(problems)[:3])}{more}"
        )
