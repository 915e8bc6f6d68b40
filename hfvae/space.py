"""A Hugging Face Space that shows models: what its folder holds, and how it is published.

With Gradio, the folder carries hfvae's own source, so it needs no release of it, and the weights of
models that are not on the Hub. Models on the Hub are named in the variable HFVAE_MODELS. A static
one is the page without a server, which is a file for any disk and any web server as well.
"""

from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

from .errors import expand
from .export import page_of, places
from .hub import is_path, published_files
from .hub.card import CARD, resource, sign
from .hub.remote import commit, hub_api, make_repository
from .hub.words import explained
from .models import from_pretrained

HARDWARE = "zero-a10g"  # ZeroGPU: the only hardware for Gradio on which a free account may build
PLATFORM = ("gradio", "huggingface-hub")  # a Space brings them in the version that its card names
ZERO_GPU_TORCH = "torch>=2.8,<2.12"  # what ZeroGPU runs
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu\n"  # not 5 GB of CUDA
SDKS = ("gradio", "static")
SOURCES = (".py", ".js", ".css", ".html")

README = """---
title: "{title}"
emoji: 🎨
colorFrom: indigo
colorTo: pink
{settings}
short_description: Images that a VAE makes, copies and blends
license: apache-2.0
{models}---

# {title}

New images, reconstructions and interpolations by variational autoencoders, with hfvae.
{words}
"""
GRADIO = """sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
suggested_hardware: {hardware}"""
GRADIO_WORDS = """The variable `HFVAE_MODELS` in the settings names the models, separated
by commas; a private one needs a secret `HF_TOKEN` as well."""
STATIC = "sdk: static\napp_file: index.html"
STATIC_WORDS = """The models run in the browser of whoever looks at them; `?model=owner/name`
after the address opens any public one of hfvae."""


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
    settings = GRADIO.format(gradio=version("gradio"), hardware=hardware)
    files[CARD] = _card(models, title, settings, GRADIO_WORDS)
    files["requirements.txt"] = requirements(hardware).encode()
    return files


def assemble_static(models: Sequence[str], title: str) -> dict[str, bytes]:
    """The folder of a static Space: visitors fetch models on the Hub, and folders go inside.

    Raises:
        HubError, FileNotFoundError: see `page_of`.
    """
    index = page_of(models, hub_api().endpoint).encode()
    return {"index.html": index, CARD: _card(models, title, STATIC, STATIC_WORDS)}


def _card(models: Sequence[str], title: str, settings: str, words: str) -> bytes:
    published = [f"- {model}\n" for model in models if not is_path(model)]
    named = "".join(["models:\n", *published] if published else [])
    return sign(README.format(title=title, settings=settings, models=named, words=words)).encode()


def requirements(hardware: str = HARDWARE) -> str:
    """What the demo needs beside the platform's own packages; torchvision is for training data."""
    names = [r for r in requires("hfvae") or [] if "extra ==" not in r]
    left_out = (*PLATFORM, "torchvision", "torch>")
    needed = [r for r in names if not r.startswith(left_out)]
    torch = ZERO_GPU_TORCH if hardware.startswith("zero") else "torch>=2.8"
    source = CPU_WHEELS if hardware.startswith("cpu") else ""
    return source + "\n".join([torch, *needed]) + "\n"


def publish(
    space: str,
    models: Sequence[str],
    *,
    sdk: str = "gradio",
    hardware: str = HARDWARE,
    private: bool | None = None,
) -> str:
    """Publish the demo of some models as a Space, made if it is missing.

    A README.md that a person edited there stays.

    Args:
        space: `owner/name`, or a name of one's own.
        models: folders or ids on the Hub.
        sdk: "gradio", or "static", which needs no hardware.
        hardware: of a new Space: "zero-a10g" (ZeroGPU), "cpu-basic", "t4-small", ...
        private: whether a new Space is; the account's default if None.

    Returns:
        The Space's address, and what is left to do, in words.

    Raises:
        HubError, FileNotFoundError: a model cannot be loaded; no token, no write access, no
            connection; or the hardware needs a paid plan.
    """
    api, title = hub_api(), space.rpartition("/")[2]
    if sdk == "static":
        files = assemble_static(models, title)
        space = make_repository(space, kind="space", private=private, sdk=sdk)
        commit(space, files, "Upload the demo", kind="space")
        return f"{api.endpoint}/spaces/{space}"
    files = assemble(models, title, hardware)
    space = make_repository(space, kind="space", private=private, hardware=hardware)
    with explained(space, api.endpoint, writing=True):
        api.add_space_variable(space, "HFVAE_MODELS", ",".join(places(models).values()))
        secret = [m for m in models if not is_path(m) and api.model_info(m).private]
    commit(space, files, "Upload the demo", kind="space")
    words = f"{api.endpoint}/spaces/{space}"
    if secret:
        words += f"; add a secret HF_TOKEN in its settings, since {', '.join(secret)} is private"
    return words
