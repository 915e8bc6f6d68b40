"""A Hugging Face Space that shows models: what its folder holds, and how it is published.

The folder carries hfvae's own source, so it needs no release of it, and the weights of models that
are not on the Hub. Models on the Hub are named in the variable HFVAE_MODELS.
"""

import re
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

from .errors import expand
from .hub import is_path, published_files
from .hub.card import CARD, resource, sign
from .hub.remote import commit, hub_api, make_repository
from .hub.words import explained
from .models import from_pretrained

HARDWARE = "zero-a10g"  # ZeroGPU: the only hardware for Gradio on which a free account may build
PLATFORM = ("gradio", "huggingface-hub")  # a Space brings them in the version that its card names
ZERO_GPU_TORCH = "torch>=2.8,<2.12"  # what ZeroGPU runs
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu\n"  # not 5 GB of CUDA
SOURCES = (".py", ".js", ".css", ".html")
MODELS = "pretrained"  # where the Space keeps models that are not on the Hub

README = """---
title: "{title}"
emoji: 🎨
colorFrom: indigo
colorTo: pink
sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
short_description: Images that a VAE makes, copies and blends
license: apache-2.0
suggested_hardware: {hardware}
{models}---

# {title}

New images, reconstructions and interpolations by variational autoencoders, with
[hfvae](hfvae/__init__.py). The variable `HFVAE_MODELS` in the settings names the models, separated
by commas; a private one needs a secret `HF_TOKEN` as well.
"""


def assemble(models: Sequence[str], title: str, hardware: str = HARDWARE) -> dict[str, bytes]:
    """The folder of a Space, name -> content.

    Args:
        models: folders, which go with it, or ids on the Hub, which do not.
        title: of the Space.
        hardware: see `publish`.

    Raises:
        HubError, FileNotFoundError: a model cannot be loaded.
    """
    files = {"app.py": resource("app.py").read_bytes()}
    files["model_card.md"] = resource("model_card.md").read_bytes()
    package = Path(__file__).parent
    for path in package.rglob("*.*"):
        name = path.relative_to(package).as_posix()
        if path.suffix in SOURCES and not name.startswith("resources/"):
            files[f"hfvae/{name}"] = path.read_bytes()
    for model, place in places(models).items():
        from_pretrained(model)  # what cannot be loaded here cannot be there
        if is_path(model):
            held = published_files(expand(model), place)
            files |= {f"{place}/{name}": data for name, data in held.items()}
    published = [model for model in models if not is_path(model)]
    readme = README.format(
        title=title,
        gradio=version("gradio"),
        hardware=hardware,
        models="".join(["models:\n", *(f"- {model}\n" for model in published)] * bool(published)),
    )
    files[CARD] = sign(readme).encode()
    files["requirements.txt"] = requirements(hardware).encode()
    return files


def places(models: Sequence[str]) -> dict[str, str]:
    """Where a Space finds each model: its id, or a folder with a name of its own."""
    found: dict[str, str] = {}
    for model in models:
        name = re.sub(r"[^\w.-]+", "-", expand(model).resolve().name, flags=re.ASCII)
        place, n = f"{MODELS}/{name}", 1
        while place in found.values():
            place, n = f"{MODELS}/{name}-{n + 1}", n + 1
        found[model] = place if is_path(model) else model
    return found


def requirements(hardware: str = HARDWARE) -> str:
    """What the demo needs beside the platform's own packages; torchvision is for training data."""
    names = [r for r in requires("hfvae") or [] if "extra ==" not in r]
    left_out = (*PLATFORM, "torchvision", "torch>")
    needed = [r for r in names if not r.startswith(left_out)]
    torch = ZERO_GPU_TORCH if hardware.startswith("zero") else "torch>=2.8"
    source = CPU_WHEELS if hardware.startswith("cpu") else ""
    return source + "\n".join([torch, *needed]) + "\n"


def publish(
    space: str, models: Sequence[str], *, hardware: str = HARDWARE, private: bool | None = None
) -> str:
    """Publish the demo of some models as a Space, made if it is missing.

    A README.md that a person edited there stays.

    Args:
        space: `owner/name`, or a name of one's own.
        models: folders or ids on the Hub.
        hardware: of a new Space: "zero-a10g" (ZeroGPU), "cpu-basic", "t4-small", ...
        private: whether a new Space is; the account's default if None.

    Returns:
        The Space's address, and what is left to do, in words.

    Raises:
        HubError, FileNotFoundError: a model cannot be loaded; no token, no write access, no
            connection; or the hardware needs a paid plan.
    """
    files = assemble(models, title=space.rpartition("/")[2], hardware=hardware)
    space = make_repository(space, kind="space", private=private, hardware=hardware)
    api = hub_api()
    with explained(space, api.endpoint, writing=True):
        api.add_space_variable(space, "HFVAE_MODELS", ",".join(places(models).values()))
        secret = [m for m in models if not is_path(m) and api.model_info(m).private]
    commit(space, files, "Upload the demo", kind="space")
    words = f"{api.endpoint}/spaces/{space}"
    if secret:
        words += f"; add a secret HF_TOKEN in its settings, since {', '.join(secret)} is private"
    return words
