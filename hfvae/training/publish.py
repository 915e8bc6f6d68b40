"""Publishing what was trained: the repositories before, the files after."""

import dataclasses
import shlex
from pathlib import Path

from ..hub import push_folder
from ..hub.remote import check_write_access, make_repository
from ..space import HARDWARE, publish
from .config import TrainConfig
from .errors import TrainingError


def prepare(config: TrainConfig) -> TrainConfig:
    """Make the repositories, so that a missing token or right is known before the training."""
    private = config.hub_private_repo or None
    model_id, space_id = config.hub_model_id, config.space_id
    if config.push_to_hub:
        model_id = make_repository(model_id or config.folder.resolve().name, private=private)
        check_write_access(model_id)
    if space_id:
        hardware = HARDWARE if config.space_sdk == "gradio" else None
        space_id = make_repository(
            space_id, kind="space", private=private, sdk=config.space_sdk, hardware=hardware
        )
        check_write_access(space_id, kind="space")
    return dataclasses.replace(config, hub_model_id=model_id, space_id=space_id)


def publish_all(config: TrainConfig, folder: Path) -> None:
    """Push the output folder and the demo; if that fails, say how to go on from the folder."""
    if config.push_to_hub:
        assert config.hub_model_id is not None
        try:
            print(f"published: {push_folder(folder, config.hub_model_id)}")
        except OSError as error:
            again = shlex.join(["python", "-m", "hfvae.hub", str(folder), config.hub_model_id])
            raise TrainingError(
                f"saved in {folder}, but not published: {error}; {again}"
            ) from error
    if config.space_id:
        sdk, model = config.space_sdk, (config.push_to_hub and config.hub_model_id) or str(folder)
        if sdk == "static" and config.hub_private_repo:
            model = str(folder)  # inside the Space, private as well: no browser has a token
        try:
            print(f"published: {publish(config.space_id, [model], sdk=sdk)}")
        except OSError as error:
            where = ["--push_to_space", config.space_id, "--space_sdk", sdk]
            again = shlex.join(["python", "app.py", *where, "--model", model])
            raise TrainingError(f"the demo was not published: {error}; {again}") from error
