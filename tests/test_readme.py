"""What a new user reads must work when pasted, and its figures must be those of the files."""

import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name

import pytest
from PIL import Image

from hfvae import VAE, VAEConfig, encode
from hfvae.configs import PRESETS, PRIORS

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *sorted(ROOT.glob("docs/*.md")),
    ]
}
ALL = "\n".join(DOCUMENTS.values())


def blocks(language):
    """(document, code) of each."""
    fence = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(name, code) for name, text in DOCUMENTS.items() for code in fence.findall(text)]


PYTHON = [(name, code) for name, code in blocks("python") if "gradio_client" not in code]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("document", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_python_runs_as_pasted(document, code, tmp_path, monkeypatch):
    """Where there are the models of a checkout, and a folder of photos."""
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    photos = tmp_path / "path" / "to" / "photos"
    photos.mkdir(parents=True)
    for i in range(24):
        Image.new("RGB", (80, 70), (10 * i, 100, 200 - 5 * i)).save(photos / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    if "latents.safetensors" in code:
        config = VAEConfig(image_size=32, spatial=True, latent_dim=2, widths=(4, 8))
        VAE(config).save_pretrained("runs/photos-spatial-vae")
        argv = ["runs/photos-spatial-vae", "--dataset", str(photos)]
        encode.main([*argv, "--output", "latents.safetensors"])
    exec(compile(code, document, "exec"), {})


def test_the_demos_api_works_as_pasted(tmp_path):
    """But for the port, which may be taken here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (code,) = (code for _, code in blocks("python") if "gradio_client" in code)
    (curl,) = (code for _, code in blocks("bash") if code.startswith("curl"))
    code, curl = code.replace("7860", str(port)), curl.replace("7860", str(port))
    app = [sys.executable, ROOT / "app.py", "--port", str(port)]
    with subprocess.Popen(app, cwd=tmp_path) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.2)
            found: dict = {}
            exec(compile(code, "docs/demo.md", "exec"), found)
            assert found["seed"] == 7
            assert len(found["images"]) == 4
            assert len(found["steps"]) == 8
            assert "PSNR" in found["words"]
            assert Path(found["changed"]).exists()
            done = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True)
            assert "event: complete" in done.stdout
            assert done.stdout.count("image.png") >= 4
        finally:
            server.terminate()


def test_the_job_is_one_that_the_hub_takes():
    (command,) = re.findall(r"^hf (jobs uv run .*)$", ALL, re.MULTILINE)
    hf = Path(sys.executable).parent / "hf"
    done = subprocess.run(
        [hf, *shlex.split(command.replace("uv run", "uv run --dry-run"))],
        cwd=ROOT,
        env=os.environ | {"HF_TOKEN": "hf_me"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for words in ("hfvae[train] @ file:///hfvae", "t4-small", "HF_TOKEN=***", ".:/hfvae"):
        assert words in done.stdout + done.stderr


def test_the_readme_is_short_and_has_the_two_commands():
    readme = DOCUMENTS["README.md"]
    assert len(readme.splitlines()) <= 200
    for command in ("pip install -e . && python app.py", 'pip install -e ".[dev]" && pytest'):
        assert f"```bash\n{command}\n```" in readme


@pytest.fixture(scope="module")
def help_of():
    """The --help of a script or module, as it stands behind `python`."""
    found = {}

    def of(what):
        if what not in found:
            command = [sys.executable, *what.split(), "--help"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found[what] = done.stdout
        return found[what]

    return of


def test_commands_have_flags_that_exist(help_of):
    """In blocks and in sentences; what a table was measured by is history, and may be older."""
    commands = re.findall(r"\b(?:python |launch |hfvae\" )(-m hfvae\.\w+|[\w/]+\.py)(.*)", ALL)
    commands = [(what, rest) for what, rest in commands if not re.search(r", commit \w+", rest)]
    assert {"train.py", "app.py", "-m hfvae.evaluate", "-m hfvae.hub"} <= {w for w, _ in commands}
    for what, rest in commands:
        offered = (ROOT / what).read_text() if "benchmarks/" in what else help_of(what)
        for flag in re.findall(r"--\w+", re.split(r"[#`]", rest)[0]):
            assert re.search(rf"{flag}\b", offered), f"{what} {flag}"


def test_every_flag_of_train_py_is_in_the_documents(help_of):
    offered = set(re.findall(r"^  (--\w+)", help_of("train.py"), re.MULTILINE))
    listed = re.findall(r"^\| `(--\w+)` \|", DOCUMENTS["docs/training.md"], re.MULTILINE)
    assert set(listed) == offered
    assert len(listed) == len(offered) > 40


def test_every_family_and_prior_is_in_the_documents():
    families = re.findall(r"^\| `([\w-]+)` \| `", DOCUMENTS["README.md"], re.MULTILINE)
    assert families == list(PRESETS)
    table = DOCUMENTS["docs/theory.md"].partition("| `prior` |")[2]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(PRIORS)


def test_the_tables_are_those_of_the_files(tables):
    for path in tables.DOCUMENTS:
        text = path.read_text()
        assert tables.rewritten(text) == text, f"{path}: python benchmarks/tables.py"


def test_every_result_is_shown_once_and_every_table_has_one(tables):
    shown = re.findall(r"<!-- table: (\w+) -->", ALL)
    assert sorted(shown) == sorted(tables.TABLES)
    assert shown.count("headlines") == 1
    assert "table: headlines" in DOCUMENTS["README.md"]
    assert {path.stem for path in tables.RESULTS.glob("*.json")} == set(tables.MEASURED)
    assert len(tables.HEADLINES) == 10


def heading_links(text):
    """The anchors that GitHub gives headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = DOCUMENTS[document]
    links = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    for link in (a or b for a, b in links):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), link
        if anchor:
            assert anchor in heading_links(target.read_text()), link


def test_what_the_documents_call_by_its_place_is_there():
    """`hfvae.functional.slerp` and the like: each equation's place in the code."""
    names = set(re.findall(r"(?:`|  )(hfvae(?:\.\w+)+)", ALL))  # in a sentence or beside a formula
    assert len(names) > 30
    for name in names:
        resolve_name(name)
