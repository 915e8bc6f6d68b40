"""A Space as its visitors get it: the assembled folder, started on its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import gradio
import pytest
import yaml
from gradio_client import Client

import hfvae
from hfvae import HubError
from hfvae.space import assemble, publish, requirements

ROOT = Path(__file__).parent.parent


@pytest.fixture
def write(tmp_path):
    """Put an assembled Space on disk."""

    def make(files):
        for name, data in files.items():
            path = tmp_path / "space" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "space"

    return make


def generate_from(python, folder, **environment):
    """Start the Space's app file as the platform does, and ask it for two images."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "PYTHONPATH")}
    env |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "tmp")} | environment
    with subprocess.Popen([python, "app.py"], cwd=folder, env=env) as process:
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, "the app ended"
                    assert time.monotonic() < deadline, "the app does not answer"
                    time.sleep(0.2)
            client = Client(url, verbose=False)
            images, seed = client.predict(count=2, seed=3, api_name="/generate")
        finally:
            process.terminate()
    assert seed == 3
    return images


def test_the_folder_is_one_that_builds(hub, model, tmp_path):
    model.push_to_hub("me/x")
    model.save_pretrained(tmp_path / "local")
    files = assemble(["me/x", str(tmp_path / "local")], "My demo")
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert front["title"] == "My demo"
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == gradio.__version__
    assert front["models"] == ["me/x"]
    assert front["python_version"] == "3.12"
    assert len(front["short_description"]) <= 60
    assert front["app_file"] in files
    assert {"hfvae/__init__.py", "pretrained/local/model.safetensors"} <= files.keys()
    assert not [name for name, data in files.items() if str(tmp_path).encode() in data]
    # The repository's own README is not a Space's.
    assert not (ROOT / "README.md").read_text().startswith("---")


def test_requirements_leave_the_platform_its_own_and_fit_the_hardware():
    zero, cpu = requirements(), requirements("cpu-basic")
    for text in (zero, cpu):
        assert "safetensors" in text
        for name in ("gradio", "huggingface", "spaces", "hfvae", "datasets", "torchvision"):
            assert name not in text
    assert "torch>=2.8,<2.12\n" in zero
    assert cpu.startswith("--extra-index-url https://download.pytorch.org/whl/cpu\ntorch>=2.8\n")


def test_publishing_again_updates_and_keeps_an_edited_readme(hub, model):
    model.push_to_hub("me/x")
    assert publish("demo", ["me/x"], private=True) == f"{hub.url}/spaces/me/demo"
    space = hub.repos["spaces/me/demo"]
    assert space.private
    assert space.log == ["initial commit", "Upload the demo"]
    edited = space.files()["README.md"].replace("🎨".encode(), "👗".encode())
    space.commit("main", space.files() | {"README.md": edited, "app.py": b"old"}, "by hand")
    hub.repos["models/me/x"].private = True
    words = publish("me/demo", ["me/x"])
    assert "add a secret HF_TOKEN in its settings, since me/x is private" in words
    assert space.files()["README.md"] == edited
    assert space.files()["app.py"] == (ROOT / "app.py").read_bytes()
    assert b"hfvae" in edited  # not what the Hub wrote when it made the Space
    assert b"hf_me" not in b"".join(space.files().values())


def test_models_of_one_name_do_not_replace_each_other(hub, model, tmp_path):
    for name in ("a/vae", "b/vae", "c/of cats, dogs"):
        model.save_pretrained(tmp_path / name)
    publish("demo", [str(tmp_path / n) for n in ("a/vae", "b/vae", "c/of cats, dogs")])
    space = hub.repos["spaces/me/demo"]
    places = space.variables["HFVAE_MODELS"].split(",")
    assert places == ["pretrained/vae", "pretrained/vae-2", "pretrained/of-cats-dogs"]
    assert all(f"{place}/config.json" in space.files() for place in places)


def test_hardware_is_chosen_and_its_price_explained(hub, model):
    model.push_to_hub("me/x")
    publish("me/a", ["me/x"], hardware="t4-small")
    assert hub.repos["spaces/me/a"].hardware == "t4-small"
    hub.spaces_cost_money = True
    with pytest.raises(HubError, match=r"paid plan \(402\) for me/b: Spaces on cpu-basic need"):
        publish("me/b", ["me/x"], hardware="cpu-basic")
    publish("me/a", ["me/x"])  # one that is there costs nothing more


def test_a_model_that_cannot_be_loaded_is_not_published(hub):
    with pytest.raises(FileNotFoundError, match="no Hub repository me/none"):
        publish("me/demo", ["me/none"])
    assert not hub.repos


def test_the_command_line_publishes(hub, model, tmp_path, monkeypatch, capsys):
    import app

    def publish_with_app(source):
        argv = ["app.py", "--push_to_space", "demo", "--model", str(source)]
        monkeypatch.setattr(sys, "argv", argv)
        app.main()

    model.save_pretrained(tmp_path / "clothes")
    publish_with_app(tmp_path / "clothes")
    assert capsys.readouterr().out == f"{hub.url}/spaces/me/demo\n"
    assert hub.repos["spaces/me/demo"].variables == {"HFVAE_MODELS": "pretrained/clothes"}
    with pytest.raises(SystemExit, match="2"):
        publish_with_app("me/none")
    words = capsys.readouterr().err
    assert words.startswith("app.py: there is no folder and no Hub repository me/none")


def test_the_folder_starts_and_answers_with_its_own_source(hub, model, write, tmp_path):
    model.push_to_hub("me/x")
    space = write(assemble(["me/x"], "demo"))
    code = "import hfvae; print(hfvae.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=space, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == space / "hfvae"
    environment = {"HFVAE_MODELS": "me/x", "HF_HOME": str(tmp_path / "home")}
    assert len(generate_from(sys.executable, space, **environment)) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_folder_starts_in_an_environment_of_its_requirements_alone(model, write, tmp_path):
    """What the platform does: Gradio in the card's version, then requirements.txt."""
    model.save_pretrained(tmp_path / "local")
    files = assemble([str(tmp_path / "local")], "demo")
    space = write(files)
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", f"gradio=={front['sdk_version']}"]
    subprocess.run([*install, "-r", space / "requirements.txt"], check=True)
    assert len(generate_from(python, space)) == 2


def test_every_name_that_a_space_imports_is_there():
    """hfvae/ in a Space has all modules that the package has."""
    package = Path(hfvae.__file__).parent
    modules = {f"hfvae/{path.relative_to(package)}" for path in package.rglob("*.py")}
    modules = {name for name in modules if "resources" not in name}
    assert modules <= assemble([], "demo").keys()
