"""What a new user reads must work when pasted, and its figures must be those of the files."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
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


def test_the_demos_api_works_as_pasted(monkeypatch, tmp_path):
    """But for the port, which may be taken here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (code,) = (c for c in CODE if "gradio_client" in c)
    (curl,) = re.findall(r"```bash\n(curl.*?)```", README, re.DOTALL)
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
            exec(compile(code, "README.md", "exec"), found)
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
    (command,) = re.findall(r"^hf (jobs uv run .*)$", README, re.MULTILINE)
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


def test_commands_of_the_readme_have_flags_that_exist(monkeypatch, capsys):
    import app
    import train

    helps = {}
    for script in (train, app):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", "--help"])
        with pytest.raises(SystemExit, match="0"):
            script.main()
        helps[script.__name__] = capsys.readouterr().out
    for script, flags in re.findall(r"^(?:python )?(train|app)\.py(.*)$", README, re.MULTILINE):
        for flag in re.findall(r"--\w+", flags.partition("#")[0]):
            assert flag in helps[script], flag


def test_the_tables_are_those_of_the_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    assert tables.rewritten(README) == README


def test_pictures_and_files_named_in_the_readme_are_there():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
