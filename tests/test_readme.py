"""What a new user reads must work when pasted, and its figures must be those of the files."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", [c for c in CODE if "gradio_client" not in c])
def test_python_runs_as_pasted(code, tmp_path, monkeypatch):
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("folder", sorted((ROOT / "pretrained").iterdir()), ids=lambda f: f.name)
def test_the_table_of_models_is_their_evaluation(folder):
    results = json.loads((folder / "evaluation.json").read_text())
    numbers = (-results["elbo"], results["bits_per_dim"], results["psnr"])
    row = "| `{}` | {:.1f} | {:.2f} | {:.1f} |".format(folder.name, *numbers)
    assert row in README


def test_pictures_and_files_named_in_the_readme_are_there():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
