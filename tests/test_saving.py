"""Saves at once, a loader meanwhile, and savers that were killed: always one model, whole."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import hfvae
from hfvae import VAE, VAEConfig
from hfvae.hub import files, published_files
from hfvae.hub.lock import locked
from hfvae.training import TrainConfig, TrainingError, train

SHAPE = {"image_size": 8, "channels": 1, "widths": (4,), "latent_dim": 2}
SAVER = """
import sys
import hfvae
first, last = (hfvae.from_pretrained(folder) for folder in sys.argv[1:3])
print("ready", flush=True)
for line in sys.stdin:
    folder, which = line.split()
    (first if which == "0" else last).save_pretrained(folder)
    print("saved", flush=True)
"""


def saver(*models):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, *map(str, models)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def weights(model):
    return tuple(t.clone() for t in model.state_dict().values())


def same(a, b):
    return all(torch.equal(s, t) for s, t in zip(weights(a), weights(b), strict=True))


@pytest.fixture(params=["equal", "other"])
def pair(request, tmp_path):
    """Two models, of equal or of other configs, and processes that save either."""
    betas = (1.0, 1.0) if request.param == "equal" else (1.0, 4.0)
    models = [VAE(VAEConfig(beta=beta, **SHAPE)).eval() for beta in betas]
    for i, model in enumerate(models):
        model.save_pretrained(tmp_path / str(i))
    savers = [saver(tmp_path / "0", tmp_path / "1") for _ in range(2)]
    yield models, savers
    for process in savers:
        process.stdin.close()
        process.wait()


@pytest.mark.parametrize(
    "rounds", [50, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("new", [True, False], ids=["new", "existing"])
def test_two_savers_and_a_loader_see_whole_models(pair, new, rounds, tmp_path):
    """In every round both save at once; each load, and what is there at the end, is one of them."""
    models, savers = pair
    loads = 0
    folder = tmp_path / "there"
    for i in range(rounds):
        if new:
            folder = tmp_path / f"new-{i}"
        elif i == 0:
            models[0].save_pretrained(folder)
        for which, process in enumerate(savers):
            process.stdin.write(f"{folder} {which}\n")
            process.stdin.flush()
        done = threading.Event()
        waiting = threading.Thread(
            target=lambda done=done: ([p.stdout.readline() for p in savers], done.set())
        )
        waiting.start()
        last = False
        while not last:
            last = done.is_set()  # once more after both are done
            if folder.exists():
                found = hfvae.from_pretrained(folder)
                assert any(found.config == m.config and same(found, m) for m in models), i
                loads += 1
        waiting.join()
        assert {p.name for p in folder.iterdir()} == {
            "README.md", "config.json", "model.safetensors",
        }  # fmt: skip
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert loads >= rounds


@pytest.mark.alone
@pytest.mark.parametrize("new", [True, False], ids=["new", "existing"])
def test_a_saver_that_was_killed_is_in_nobodys_way(new, tmp_path):
    model = VAE(VAEConfig(**SHAPE)).eval()
    folder = tmp_path / "model"
    if not new:
        model.save_pretrained(folder)
    code = f"""
import os, signal
from pathlib import Path
from hfvae.hub import files, published_files
files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_folder(Path({str(folder)!r}), {{"config.json": b"half"}})
"""
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    where = tmp_path if new else folder
    assert [p for p in where.iterdir() if p.is_dir() and p.name.startswith(".model.")]
    start = time.perf_counter()
    model.save_pretrained(folder)
    assert time.perf_counter() - start < 2
    assert same(hfvae.from_pretrained(folder), model)
    assert not [p for p in (*folder.iterdir(), *tmp_path.iterdir()) if p.name.startswith(".")]


def test_a_save_waits_for_another_and_no_longer_than_it_must(tmp_path, monkeypatch):
    model = VAE(VAEConfig(**SHAPE))
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with (
        locked(files.saving(tmp_path / "model")),
        pytest.raises(TimeoutError, match="cannot write there: another process holds the lock"),
    ):
        model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")


def test_nothing_is_published_in_the_middle_of_a_save(tmp_path, monkeypatch):
    saved = [files.model_files(VAE(VAEConfig(beta=beta, **SHAPE))) for beta in (1.0, 4.0)]
    folder, replace = tmp_path / "model", os.replace
    files.write_folder(folder, saved[0])
    half, go = threading.Event(), threading.Event()

    def halfway(*paths):
        replace(*paths)
        half.set()
        assert go.wait(30)

    monkeypatch.setattr(os, "replace", halfway)
    monkeypatch.setattr("hfvae.hub.publish.PATIENCE", 0)
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(files.write_folder, folder, saved[1])
        try:
            assert half.wait(30)  # one file is new, the other old
            with pytest.raises(TimeoutError):
                published_files(folder, "me/model")
        finally:
            go.set()
        saving.result()
    assert published_files(folder, "me/model") == saved[1]


def test_a_lock_keeps_out_threads_and_is_gone_afterwards(tmp_path):
    """Eight threads count up, each reading and writing apart."""
    count, lock = tmp_path / "count", tmp_path / "lock"
    count.write_text("0")

    def add():
        for _ in range(50):
            with locked(lock, wait=60):
                seen = int(count.read_text())
                time.sleep(0)
                count.write_text(str(seen + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "400"
    assert not lock.exists()


def test_where_there_are_no_locks_saving_works(tmp_path, monkeypatch):
    def unsupported(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("hfvae.hub.lock._lock", unsupported)
    model = VAE(VAEConfig(**SHAPE))
    for _ in range(2):
        model.save_pretrained(tmp_path / "model")
    assert same(hfvae.from_pretrained(tmp_path / "model"), model)
    assert not [p for p in (tmp_path / "model").iterdir() if p.name.startswith(".")]


@pytest.mark.alone
def test_files_that_differ_are_looked_at_again_only_during_a_save(tmp_path):
    """A model that is damaged for good is refused at once."""
    for name, beta in [("a", 1.0), ("b", 4.0)]:
        VAE(VAEConfig(beta=beta, **SHAPE)).save_pretrained(tmp_path / name)
    os.replace(tmp_path / "a" / "config.json", tmp_path / "b" / "config.json")
    start = time.perf_counter()
    with pytest.raises(hfvae.HubError, match="differ in beta"):
        hfvae.from_pretrained(tmp_path / "b")
    assert time.perf_counter() - start < 1
    with (
        locked(files.saving(tmp_path / "b")),
        pytest.raises(hfvae.HubError, match="differ in beta"),
    ):
        hfvae.from_pretrained(tmp_path / "b")
    assert 1 < time.perf_counter() - start < 10


def small(folder):
    return TrainConfig(
        dataset="sprites", resolution=16, latent_dim=2, max_train_steps=2, train_batch_size=8,
        output_dir=folder,
    )  # fmt: skip


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    code = f"""
from pathlib import Path
from hfvae.training.folder import alone_in
with alone_in(Path({str(folder)!r})):
    print("training", flush=True)
    input()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "training\n"
    with pytest.raises(TrainingError, match="another run is training in .*run: choose another"):
        train(small(folder))
    first.kill()  # who was killed trains no more
    first.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(small(folder))
    assert (folder / "model.safetensors").exists()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_a_run_that_cannot_start_leaves_no_folder(tmp_path):
    with pytest.raises(Exception, match="nothing-there"):
        train(TrainConfig(dataset=str(tmp_path / "nothing-there"), output_dir=tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
