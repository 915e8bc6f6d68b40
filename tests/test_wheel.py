"""The wheel, installed where no checkout is, does what a checkout does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = """
import subprocess, sys
from pathlib import Path

import hfvae
from hfvae.hub.card import resource
from hfvae.space import assemble

assert Path(hfvae.__file__).parent == Path(sys.argv[1]) / "hfvae", hfvae.__file__
model = hfvae.VAE(hfvae.VAEConfig(image_size=8, widths=(4,), latent_dim=2)).eval()
model.save_pretrained("saved")
assert "from_pretrained" in Path("saved/README.md").read_text()
assert hfvae.from_pretrained("saved").sample(2).shape == (2, 3, 8, 8)
model.push_to_hub("me/x")
assert hfvae.from_pretrained("me/x").sample(2).shape == (2, 3, 8, 8)
files = assemble(["saved"], "demo")
assert {"app.py", "hfvae/__init__.py", "pretrained/saved/config.json"} <= files.keys()
assert not [name for name in files if "resources" in name]
train = [sys.executable, str(resource("train.py")), "--model_name_or_path", "me/x", "--dataset"]
train += ["sprites", "--max_train_steps", "1", "--prior", "standard-normal"]
train += ["--output_dir", "tuned", "--push_to_hub"]
subprocess.run(train, check=True)
assert hfvae.from_pretrained("me/tuned").config == model.config
subprocess.run([sys.executable, str(resource("app.py")), "--help"], check=True)
"""


@pytest.fixture
def installed(tmp_path):
    """The folder in which the wheel was installed, without its dependencies, which are here."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "-w", tmp_path / "dist", ROOT]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").iterdir()
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def test_a_wheel_does_what_a_checkout_does(hub, installed, tmp_path):
    names = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    assert {f"hfvae/resources/{n}" for n in ("model_card.md", "train.py", "app.py")} <= names
    web = ROOT / "hfvae" / "web"
    assert {f"hfvae/web/{path.name}" for path in web.iterdir() if path.is_file()} <= names
    assert not [n for n in names if n.startswith(("pretrained", "tests", "benchmarks"))]
    (tmp_path / "outside").mkdir()
    subprocess.run(
        [sys.executable, "-c", CODE, installed],
        check=True,
        cwd=tmp_path / "outside",
        env=os.environ | {"PYTHONPATH": str(installed)},
    )
