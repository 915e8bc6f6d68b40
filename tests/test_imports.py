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
LEAVES = {
    "functional",
    "configs",
    "networks",
    "images",
    "sprites",
    "errors",
    "machine",
    "disentanglement",
}
# From the bottom to the top: a module imports from its own layer or from those before it.
LAYERS = [
    LEAVES,
    {"bottlenecks", "likelihoods", "priors", "decoding", "sources", "data"},
    {"base"},
    {"models"},
    {"storage", "card"},
    {"checkpoint", "report", "budget"},
    {"remote"},
    {"hub"},
    {"space", "evaluate"},
    {"training"},
]


def siblings(path):
    """What a module imports when it is imported; imports inside functions are not counted."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found - {"__version__"}


def test_imports_run_one_way():
    graph = {p.stem: siblings(p) for p in PACKAGE.glob("*.py") if p.stem != "__init__"}
    TopologicalSorter(graph).prepare()  # raises on a cycle
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    assert graph.keys() == height.keys()
    for module, imported in graph.items():
        if module in LEAVES:
            assert not imported, module
        for name in imported:
            assert height[name] <= height[module], f"{module} imports {name}"


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


def test_importing_hfvae_brings_in_neither_gradio_nor_torchvision_nor_datasets():
    code = (
        "import sys, torch, time; start = time.perf_counter(); import hfvae; hfvae.VAE;"
        "heavy = {'gradio', 'torchvision', 'datasets', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy; print(time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3
