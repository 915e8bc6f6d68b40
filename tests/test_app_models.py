"""Which models the demo opens, and how long it keeps them."""

import gc
import os
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xet
from costly import COSTLY, DEAR, save_cheaply
from memory import Memory
from PIL import Image
from visiting import call, encoded, pixels, uploaded

import hfvae
from hfvae.demo.actions import make_actions
from hfvae.demo.menu import Models
from hfvae.demo.work import check_work, work_of


def test_a_visitor_types_a_hub_id(client, hub, model):
    model.push_to_hub("me/typed")
    hub.requests.clear()
    images, _ = client.predict("me/typed", 2, 3, 1.0, api_name="/generate")
    expected = hfvae.to_pil(model.sample(2, generator=torch.Generator().manual_seed(3)))
    assert np.array_equal(pixels(images[1]), np.asarray(expected[1]))
    assert hub.requests
    assert {r.token for r in hub.requests} == {None, xet.TOKEN}  # not this server's
    hub.requests.clear()
    client.predict("me/typed", 1, 3, 1.0, api_name="/generate")
    assert not hub.requests  # it stays loaded


def test_what_visitors_type_stays_on_no_disk(hub, model, demo_models, tmp_path, monkeypatch):
    model.push_to_hub("me/typed")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def kept():
        files = [p for d in (tmp_path, Path(os.environ["HF_HOME"])) for p in d.rglob("*")]
        # hf_xet keeps a log, of some 10 kB a download, and clears it away itself.
        return {p: p.stat().st_size for p in files if p.is_file() and p.suffix != ".log"}

    before = kept()
    assert Models([str(demo_models / "plain")], allow_hub=True)["me/typed"].name == "me/typed"
    assert any(r.path.startswith("/xorb/") for r in hub.requests)
    assert kept() == before


def test_what_a_visitor_may_not_load(client, hub, model, tmp_path, monkeypatch):
    def refused(name, words):
        with pytest.raises(Exception, match=words) as caught:
            client.predict(name, 2, 3, 1.0, api_name="/generate")
        assert str(tmp_path) not in str(caught.value)

    model.push_to_hub("me/hidden", private=True)
    refused("me/hidden", "no Hub repository me/hidden, or it is private")
    model.push_to_hub("me/large")
    monkeypatch.setattr("hfvae.demo.menu.MAX_DOWNLOAD", 1000)
    hub.requests.clear()
    refused("me/large", "me/large has 0 MB; this demo loads up to 0 MB, with")
    assert not [r for r in hub.requests if "/resolve/" in r.path]  # before it is downloaded
    monkeypatch.undo()
    # A folder of that name is nobody's business.
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("owner/name")
    refused("owner/name", "no Hub repository owner/name")
    hub.add("models/owner/name", {n: d for n, d in hub.repos["models/me/large"].files().items()})
    client.predict("owner/name", 2, 3, 1.0, api_name="/generate")
    for name in ("me/../x", "/etc", "~/x", "me/x/y", "a" * 200 + "/b", "me\\x", "", "me/x\n", 7):
        refused(name, "no such model here")
    monkeypatch.setattr("hfvae.demo.menu.MAX_DIMS", 10)
    refused("me/large", "images of me/large are too large for this demo")


@pytest.mark.alone
@pytest.mark.parametrize("kind", COSTLY)
def test_models_that_ask_for_too_much_are_refused_before_they_are_fetched(
    client, hub, tmp_path, kind
):
    settings, words = COSTLY[kind]
    save_cheaply(hfvae.VQVAEConfig(**settings), tmp_path)
    hub.add(f"models/me/{kind}", {p.name: p.read_bytes() for p in tmp_path.iterdir()})
    hub.requests.clear()
    memory, start = Memory(), time.perf_counter()
    with pytest.raises(Exception, match=f"me/{kind} (takes|has layers of) .* {words}; this demo"):
        client.predict(f"me/{kind}", 64, 1, 1.0, api_name="/generate")
    assert time.perf_counter() - start < 5
    assert memory.growth() < 100
    fetched = [r.path for r in hub.requests if "/resolve/" in r.path]
    assert any("config.json" in path for path in fetched)
    assert not any("model.safetensors" in path for path in fetched)


@pytest.mark.parametrize("size", [8, 64, 256, 512])
def test_models_that_train_py_makes_are_welcome(size):
    for preset in hfvae.configs.PRESETS.values():
        config = preset(image_size=size)
        config = preset(image_size=size, prior=config.trained_prior)
        with torch.device("meta"):
            check_work(hfvae.models.FAMILIES[config.model_type](config), "me/welcome")


def test_work_is_what_is_computed():
    config = hfvae.AutoencoderConfig(image_size=8, channels=1, widths=(2,), latent_dim=3)
    with torch.device("meta"):
        work = work_of(hfvae.Autoencoder(config))
    # A convolution 4x4 to 2 channels at 4x4 places, a layer from 32 to 3; and back.
    assert work == (2 * (16 * 16 * 2 + 32 * 3), 64)


@pytest.mark.slow
def test_the_dearest_model_that_is_welcome_answers_in_a_minute(client, hub, tmp_path):
    save_cheaply(DEAR, tmp_path)
    hub.add("models/me/dear", {p.name: p.read_bytes() for p in tmp_path.iterdir()})
    picture = uploaded(client, encoded(Image.new("RGB", (512, 512))))
    memory, start = Memory(), time.perf_counter()
    event, text = call(client, "interpolate", "me/dear", picture, picture, 40, "lerp")
    assert event == "complete", text
    assert time.perf_counter() - start < 60
    assert memory.growth() < 1500


def test_few_models_of_visitors_stay_loaded_and_the_own_ones_always(hub, model, demo_models):
    menu = Models([str(demo_models / "colour")], allow_hub=True)
    own = menu[None]
    for i in range(5):
        model.push_to_hub(f"me/m{i}")
        menu[f"me/m{i}"]
    assert list(menu.visiting) == ["me/m2", "me/m3", "me/m4"]
    assert menu[None] is own
    gone = weakref.ref(menu["me/m2"])
    act = make_actions(menu)
    act.show_latents("me/m2", Image.new("RGB", (12, 10)))
    for i in (3, 4, 0):
        menu[f"me/m{i}"]
    gc.collect()
    assert gone() is None  # its memory is free, though somebody explored it
    closed = Models([str(demo_models / "colour")], allow_hub=False)
    with pytest.raises(Exception, match="There is no such model here; there are: colour"):
        closed["me/m4"]


def test_one_that_loads_slowly_keeps_nobody_waiting(hub, model, demo_models, monkeypatch):
    model.push_to_hub("me/slow")
    menu = Models([str(demo_models / "colour")], allow_hub=True)
    menu[None]
    load, go = hfvae.demo.entry.load, threading.Event()
    calls = []

    def slow(*args, **kwargs):
        calls.append(1)
        assert go.wait(20)
        return load(*args, **kwargs)

    monkeypatch.setattr("hfvae.demo.entry.load", slow)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(lambda: menu["me/slow"]) for _ in range(4)]
        assert menu[None].name == "colour"
        go.set()
        assert len({id(w.result()) for w in waiting}) == 1
    assert len(calls) == 1  # loaded once for all of them


def test_folders_of_one_name_are_told_apart_and_paths_of_the_operator_known(demo_models, tmp_path):
    shutil.copytree(demo_models / "codes", tmp_path / "colour")
    sources = [str(demo_models / "colour"), str(tmp_path / "colour")]
    menu = Models(sources)
    assert menu.names == ["colour", "colour 2"]  # visitors see no path
    assert menu[sources[1]] is menu["colour 2"]
    assert menu["colour 2"].model.config.model_type == "vq-vae"


def test_a_link_fetches_no_model_unasked(hub, model, demo_models, capsys):
    model.push_to_hub("me/linked")
    menu = Models([str(demo_models / "colour")], allow_hub=True)
    act, link = make_actions(menu), SimpleNamespace(query_params={"model": "me/linked", "count": 3})
    hub.requests.clear()
    offered, *_, images, _ = act.open_link(link)
    assert not hub.requests
    assert len(images) == 3  # of the first model
    assert [name for name, _ in offered.choices] == ["colour", "me/linked"]
    assert "This link asks for me/linked from the Hub" in capsys.readouterr().out
    menu["me/linked"]
    assert act.open_link(link)[0] == "me/linked"  # somebody asked for it already


def test_a_model_that_is_refused_late_leaves_memory_at_once(client, hub, tmp_path, monkeypatch):
    model = hfvae.Autoencoder(hfvae.AutoencoderConfig(image_size=8, widths=(8,), hidden=4096))
    model.save_pretrained(tmp_path)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    files["model.safetensors"] = files["model.safetensors"][:-1] + b"!"
    hub.add("models/me/damaged", files)
    shapes = {tuple(t.shape) for t in model.parameters() if t.numel() > 100_000}
    del model
    gc.collect()
    gc.disable()
    monkeypatch.setattr(gc, "collect", lambda: 0)  # the demo's own would hide a cycle
    try:
        with pytest.raises(Exception, match="SHA-256"):
            client.predict("me/damaged", 1, 1, 1.0, api_name="/generate")
        left = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
        assert not [t for t in left if not t.is_meta and tuple(t.shape) in shapes]
    finally:
        gc.enable()
