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
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..configs import Config
from ..errors import HubError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FITTED = "prior.fitted"  # without it, as in the first files, a prior counts as fitted
METADATA = "hfvae"  # the entry of the weights' metadata that repeats the config and holds the hash
FORMAT_VERSION = 2  # the newest that is read; a config says which one it needs
MAX_CONFIG_BYTES = 100_000
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
        CONFIG: (json.dumps(settings, indent=2) + "\n").encode(),
        WEIGHTS: save(tensors, metadata),
    }


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names, shapes, dtypes and values."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that a reader, or a crash, never sees half of them.

    A new folder is written beside its place and renamed. In an existing one, the files are staged
    complete and then replaced one by one, the weights last; other files stay.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give a folder to save to")
    new = not folder.exists()
    if new:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Inside an existing folder, which may be a mount of its own: a file cannot be moved across.
    where = folder.parent if new else folder
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=where))
    except OSError as error:  # whose own words name a hidden file
        raise type(error)(
            error.errno, f"cannot write there: {error.strerror}", str(folder)
        ) from error
    try:
        for name, data in files.items():
            with open(stage / name, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        if new:
            stage.chmod(0o755)  # mkdtemp makes it private
            stage.rename(folder)
        else:
            for name in sorted(files, key=lambda name: name == WEIGHTS):
                os.replace(stage / name, folder / name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def read_config(
    path: Path, where: str, families: Mapping[str, type[Any]]
) -> tuple[Config, list[str], dict[str, Any]]:
    """The config in a config.json, the names of its custom parts, and the raw settings."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise HubError(f"{where}: {CONFIG} is larger than {MAX_CONFIG_BYTES:,} bytes")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{where}: {CONFIG} is not valid JSON ({_line(error)})") from error
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
            "pip install -U hfvae"
        )
    if not isinstance(kind, str) or kind not in families:
        known = ", ".join(families)
        raise HubError(f"{where}: unknown model_type {kind!r:.80}; this hfvae knows {known}")
    if not isinstance(custom, list) or not set(map(str, custom)) <= {"encoder", "decoder"}:
        raise HubError(f"{where}: custom_parts in {CONFIG} must list 'encoder' or 'decoder'")
    config_class = families[kind].config_class
    if unknown := sorted(set(values) - {f.name for f in fields(config_class)}):
        raise HubError(f"{where}: unknown settings in {CONFIG}: {_line(', '.join(unknown))}")
    try:
        return config_class(**values), custom, settings
    except (TypeError, ValueError) as error:
        raise HubError(f"{where}: {CONFIG}: {_line(error)}") from error


def read_weights(path: Path, settings: dict[str, Any], model: nn.Module, where: str) -> None:
    """Put the tensors of a file into a model built on the meta device, after checking them."""
    expected = model.state_dict()
    try:
        with safe_open(path, "pt") as file:
            saved = _read_metadata(file.metadata() or {}, where)
            _check_settings(saved.get("config"), settings, where)
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_names_and_shapes(found, expected, where)
            tensors = {name: file.get_tensor(name).clone() for name in found}
    except SafetensorError as error:
        raise HubError(f"{where}: {WEIGHTS} is damaged ({_line(error)})") from error
    for name, tensor in tensors.items():
        floating = expected[name].is_floating_point()
        if tensor.is_floating_point() != floating or (floating and tensor.dtype not in FLOATS):
            raise HubError(f"{where}: {name} in {WEIGHTS} has dtype {tensor.dtype}")
    if "sha256" not in saved:
        warnings.warn(f"{where}: {WEIGHTS} carries no checksum; loaded unchecked", stacklevel=4)
    elif saved["sha256"] != digest(tensors):
        raise HubError(
            f"{where}: {WEIGHTS} is damaged: its SHA-256 is not the one it was saved with"
        )
    if FITTED in expected:
        tensors.setdefault(FITTED, torch.tensor(True))
    model.load_state_dict(tensors, assign=True)


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
            f"{where}: {CONFIG} and {WEIGHTS} differ in {_line(', '.join(differ))}: {CONFIG} was "
            "edited, or a save was cut short; take both files from one save"
        )


def _check_names_and_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], where: str
) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    problems = [f"{name} is missing" for name in shapes.keys() - found.keys() - {FITTED}]
    problems += [f"{name!r:.80} is unexpected" for name in found.keys() - shapes.keys()]
    problems += [
        f"{name} is {found[name]} and should be {shapes[name]}"
        for name in shapes.keys() & found.keys()
        if shapes[name] != found[name]
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise HubError(
            f"{where}: {WEIGHTS} does not fit {CONFIG}: {'; '.join(sorted(problems)[:3])}{more}"
        )


def build(
    family: type[Any],
    config: Config,
    custom: list[str],
    encoder: nn.Module | None,
    decoder: nn.Module | None,
    where: str,
) -> Any:
    """The model of a config, without memory for its own tensors yet."""
    for name, part in [("encoder", encoder), ("decoder", decoder)]:
        if name in custom and part is None:
            raise HubError(
                f"{where}: this model was made with its own {name}; "
                f"build one and load with {name}=..."
            )
    with torch.device("meta"):
        return family(config, encoder=encoder, decoder=decoder)


def _line(text: object) -> str:
    """Something that came from outside, as a part of one line."""
    return " ".join(str(text).split())[:200]
