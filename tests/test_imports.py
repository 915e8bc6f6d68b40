"""Imports run one way, and the package is light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hfvae

pytestmark = pytest.mark.quick

PACKAGE = Path(hfvae.__file__).parent
# From the bottom to the top: a room imports from those before it, and its own modules in no circle.
LAYERS = [
    {"functional", "configs", "networks", "images", "errors", "machine", "web"},
    {"disentanglement", "likelihoods", "priors"},
    {"latents", "data"},
    {"hub"},
    {"base"},
    {"models"},
    {"evaluate", "report", "export"},
    {"encode", "space"},
    {"training"},
    {"demo"},
]
MODULES = {p.relative_to(PACKAGE).with_suffix("").parts: p for p in PACKAGE.rglob("*.py")}


def imported_by(module, path):
    """The modules that one imports, in functions too, but not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    here = module[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = here[: len(here) - node.level + 1] + tuple((node.module or "").split("."))
            start = tuple(part for part in start if part)
            for alias in node.names:
                for name in ((*start, alias.name), start):
                    if name in MODULES:
                        yield name
                        break
                    if name and (*name, "__init__") in MODULES:
                        yield (*name, "__init__")
                        break


def test_imports_run_one_way():
    graph = {m: set(imported_by(m, p)) - {m} for m, p in MODULES.items() if m != ("__init__",)}
    TopologicalSorter(graph).prepare()  # raises on a circle
    height = {room: i for i, layer in enumerate(LAYERS) for room in layer}
    assert {m[0] for m in graph} == height.keys()
    for module, imported in graph.items():
        for room in {name[0] for name in imported} - {module[0]}:
            assert height[room] < height[module[0]], f"{module} imports {room}"


def test_the_scripts_do_not_import_each_other():
    for script, other in [("train.py", "app"), ("app.py", "train")]:
        tree = ast.parse((PACKAGE.parent / script).read_text())
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert other not in modules


def test_loading_a_model_does_not_import_the_compiler(tmp_path):
    """Some operations do on the meta device, where loading builds models: two seconds each time."""
    shape = {"image_size": 16, "widths": (4,)}
    codes = {"codebook_size": 64, "prior": "autoregressive", "prior_width": 16}
    hfvae.VAE(hfvae.VAEConfig(prior="mixture", **shape)).save_pretrained(tmp_path / "0")
    hfvae.VQVAE(hfvae.VQVAEConfig(**codes, **shape)).save_pretrained(tmp_path / "1")
    fsq = hfvae.VQVAEConfig(quantizer="fsq", **codes, **shape)
    hfvae.VQVAE(fsq).save_pretrained(tmp_path / "2")
    code = (
        "import sys, hfvae; [hfvae.from_pretrained(f'./{i}') for i in range(3)];"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.alone
def test_importing_hfvae_brings_in_neither_gradio_nor_torchvision_nor_datasets():
    code = (
        "import sys, torch, time; start = time.process_time(); import hfvae; hfvae.VAE;"
        "heavy = {'gradio', 'torchvision', 'datasets', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy; print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3
