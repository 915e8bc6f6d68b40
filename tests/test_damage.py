"""Damaged checkpoints and kept images, processes that were killed, a disk that is full."""

import contextlib
import errno
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import hfvae
from hfvae import evaluate
from hfvae.data import cache, load_images
from hfvae.errors import HubError
from hfvae.training import checkpoint

TRAIN = Path(__file__).parent.parent / "train.py"
RESUME = ("--resume_from_checkpoint", "latest")


def photograph(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        photograph(i).save(folder / f"{i}.png")
    (folder / "bad.png").write_text("")
    return folder


def command(photos, out, *extra, every=3):
    return [
        "--dataset", photos, "--output_dir", out, "--latent_dim", "2", "--max_train_steps", "9",
        "--train_batch_size", "8", "--checkpointing_steps", every, *extra,
    ]  # fmt: skip


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def hidden(folder):
    return [path.name for path in folder.rglob(".*")]


@pytest.fixture
def unfinished(photos, tmp_path, train_py, monkeypatch):
    """A run that is as far as step 6, beside "whole", the same run as it ends."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove_checkpoints", lambda folder: None)
        train_py(*command(photos, tmp_path / "whole", "--checkpoints_total_limit", "3"))
    out = tmp_path / "out"
    out.mkdir()
    for step in (3, 6):
        name = f"checkpoint-{step:06d}"
        (tmp_path / "whole" / name).rename(out / name)
    return out


# Checkpoints


def edited(step):
    def edit(numbers):
        numbers["budgets"]["model"][0] = step
        return json.dumps(numbers)

    return edit


def without(name):
    return lambda numbers: json.dumps({k: v for k, v in numbers.items() if k != name})


@pytest.mark.quick
@pytest.mark.timeout(60)
def test_numbers_that_were_edited_are_not_gone_on_from(unfinished, photos, train_py):
    file = unfinished / "checkpoint-000006" / "state.json"
    numbers = json.loads(file.read_text())
    edits = [edited(90), edited(-5), edited(10**12), edited(6.0), edited(None)]
    edits += [without(name) for name in numbers]
    edits += [lambda _, text=text: text for text in ("", "[]", "3", "null", '"{}"', "[" * 100_000)]
    for edit in edits:
        file.write_text(edit(json.loads(json.dumps(numbers))))
        words = train_py(*command(photos, unfinished, *RESUME), status=2)
        assert "train.py: the checkpoint" in words
        assert "is damaged" in words
        assert words.rstrip().endswith("use an older one")
        assert words.count("\n") == 1
    file.write_text(json.dumps(numbers))  # spaces do not matter
    train_py(*command(photos, unfinished, *RESUME))
    assert weights(unfinished) == weights(unfinished.parent / "whole")


@pytest.mark.quick
def test_other_images_at_the_same_path_are_not_gone_on_with(unfinished, photos, train_py):
    photograph(99).save(photos / "3.png")
    words = train_py(*command(photos, unfinished, *RESUME), status=2)
    assert "the checkpoint is of a run on other images; give the same, or start afresh" in words
    photograph(3).save(photos / "3.png")
    photograph(99).save(photos / "more.png")
    assert "other images" in train_py(*command(photos, unfinished, *RESUME), status=2)
    (photos / "more.png").unlink()
    train_py(*command(photos, unfinished, *RESUME))
    assert weights(unfinished) == weights(unfinished.parent / "whole")


def test_another_model_of_that_name_is_not_gone_on_with(photos, tmp_path, train_py, monkeypatch):
    base, out = tmp_path / "base", tmp_path / "out"
    argv = ["--dataset", photos, "--model_name_or_path", base, "--max_train_steps", "9"]
    argv += ["--checkpointing_steps", "6", "--output_dir", out]
    hfvae.VAE(hfvae.VAEConfig(image_size=8, latent_dim=2, widths=(4,))).save_pretrained(base)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove_checkpoints", lambda folder: None)
        train_py(*argv)
    hfvae.VAE(hfvae.VAEConfig(image_size=8, latent_dim=2, widths=(8,))).save_pretrained(base)
    words = train_py(*argv, *RESUME, status=2)
    assert "the checkpoint is of another model; give the same, or start afresh" in words


def mutations(folder, n):
    """A folder of files damaged in n ways, one after the other, and whole again at the end."""
    draw = random.Random(0)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for _ in range(n):
        path, data = draw.choice(list(files.items()))
        i, j = sorted(draw.randrange(len(data)) for _ in "ij")
        noise = draw.randbytes(draw.choice([1, 8, 100]))
        damaged = draw.choice([
            data[:i], data[i:], data[:i] + data[j:], data[:i] + noise + data[i:],
            data[:i] + noise + data[i + len(noise) :], data + noise, bytes(len(data)), b"",
            data[:i] + bytes([data[i] ^ 1 << draw.randrange(8)]) + data[i + 1 :],
            data[:100] + noise[:1] + data[101:], None,
        ])  # fmt: skip
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        yield
        folder.mkdir(exist_ok=True)
        for path, data in files.items():
            path.unlink(missing_ok=True)
            path.write_bytes(data)


SOME = pytest.mark.parametrize(
    "n",
    [pytest.param(40, marks=pytest.mark.quick), pytest.param(500, marks=pytest.mark.slow)],
)


@SOME
def test_a_damaged_checkpoint_is_the_same_or_refused(unfinished, n):
    folder = unfinished / "checkpoint-000006"
    whole, words = checkpoint.read(folder), []
    for _ in mutations(folder, n):
        try:
            state = checkpoint.read(folder)
        except (HubError, FileNotFoundError) as error:
            words.append(str(error))
            continue
        assert state.numbers == whole.numbers
        assert state.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(t, whole.tensors[name]) for name, t in state.tensors.items())
    assert len(words) > 0.8 * n
    assert all(len(line) < 1000 for line in words)


def test_a_checkpoint_says_only_so_much_of_itself(unfinished):
    folder = unfinished / "checkpoint-000006"
    said = {"a": "0" * 30_000_000}
    (folder / "state.safetensors").write_bytes(safetensors.torch.save({}, said))
    with pytest.raises(HubError, match=r"the header of state.safetensors has 30,0.* are the most"):
        checkpoint.read(folder)
    (folder / "state.json").write_text("[" * 2_000_000)
    with pytest.raises(HubError, match="state.json is larger than 1,000,000 bytes"):
        checkpoint.read(folder)


# Kept images


@pytest.fixture
def kept(photos, tmp_path, monkeypatch):
    """A function that reads images which are kept decoded in a folder, and that folder."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "WORTH_KEEPING", 100)
    read = functools.partial(load_images, str(photos))
    read()
    (folder,) = (tmp_path / "cache" / "decoded").iterdir()
    return read, folder


@pytest.mark.quick
def test_what_is_left_of_kept_images_is_not_trained_on(kept):
    read, folder = kept
    whole = read()
    assert "using" in whole.note
    pixels = (folder / "pixels").read_bytes()
    for name, damaged in [
        ("pixels", pixels[: len(pixels) // 2]),
        ("pixels", b""),
        ("pixels", pixels[:-9] + b"x" + pixels[-8:]),
        ("facts.json", b"{}"),
        ("facts.json", b"[" * 100_000),
        ("facts.json", b""),
    ]:
        (folder / name).unlink()  # not cut while it is mapped
        (folder / name).write_bytes(damaged)
        again = read()
        words = (
            f"images again, because what was kept of them is damaged, for later runs in {folder}"
        )
        assert words in again.note
        assert torch.equal(again.pixels, whole.pixels)
        assert again.skipped == whole.skipped
        assert "using" in read().note


@SOME
def test_damaged_kept_images_are_decoded_again(kept, n):
    read, folder = kept
    whole, again = read(), 0
    for _ in mutations(folder, n):
        images = read()
        again += "because what was kept of them is damaged" in images.note
        assert torch.equal(images.pixels, whole.pixels)
        assert images.skipped == whole.skipped
    assert again > 0.8 * n


# What killed processes leave behind

KILLED = """
import os, signal, sys
from hfvae.data import cache, load_images, records
cache.WORTH_KEEPING = 100
left, real = [int(sys.argv[2])], {where}.{what}
def last(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
{where}.{what} = last
"""
WRITING = KILLED.format(where="os", what="fsync") + "import train\ntrain.main()"
DECODING = KILLED.format(where="records", what="to_bytes") + "load_images(sys.argv[1])"


def killed(program, *argv, home=None):
    """Run a program that kills itself; whether it came to that."""
    env = os.environ | {"PYTHONPATH": str(TRAIN.parent)} | ({"HOME": str(home)} if home else {})
    run = [sys.executable, "-c", program, *map(str, argv)]
    return subprocess.run(run, env=env, capture_output=True).returncode == -signal.SIGKILL


def killed_while_writing(n, *argv):
    program = WRITING.replace("sys.argv[2]", str(n), 1)
    return killed(program, *argv)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([1], marks=pytest.mark.quick),
        pytest.param(range(20), marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_while_it_writes_a_run_leaves_nothing_behind(photos, tmp_path, kills, train_py):
    left = 0
    for kill in kills:
        out = tmp_path / f"{kill}" / "out"
        again = command(photos, out, *RESUME, every=2 if kill % 2 else 0)
        assert killed_while_writing(kill % 10, *again)
        left += bool(hidden(out.parent))
        train_py(*again, "--overwrite_output_dir")
        assert not hidden(out.parent)
        assert not list(out.glob("checkpoint-*"))
    assert left


def test_other_hidden_folders_stay(photos, tmp_path, train_py):
    names = [".git", ".out", ".out.backup", ".outer.abcdefgh", ".checkpoint-3", "out/.git"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    train_py(*command(photos, tmp_path / "out"))
    assert all((tmp_path / name).is_dir() for name in names)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([9], marks=pytest.mark.quick),
        pytest.param(range(20), marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_while_it_decodes_it_leaves_nothing_behind(photos, tmp_path, kills, monkeypatch):
    kept = tmp_path / ".cache" / "hfvae"
    monkeypatch.setattr(cache, "CACHE", kept)
    monkeypatch.setattr(cache, "WORTH_KEEPING", 100)
    for kill in kills:
        assert killed(DECODING, photos, kill, home=tmp_path)
    assert hidden(kept / "decoded")
    living = kept / "decoded" / ".living"
    living.mkdir()
    with open(living / "pixels", "wb") as file:
        cache._lock(file)
        load_images(str(photos))
        assert hidden(kept / "decoded") == [".living"]
    load_images(str(photos))
    assert hidden(kept / "decoded") == []


# A full disk


@pytest.mark.quick
@pytest.mark.parametrize("room", [1, 0])
def test_old_checkpoints_make_room_for_the_model(photos, tmp_path, monkeypatch, train_py, room):
    """A disk on which a model fits beside so many checkpoints and no more."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    train_py(*command(photos, whole))

    def fsync(_):
        if list(out.glob(".*/model.safetensors")) and len(checkpoint.existing(out)) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if room:
            train_py(*command(photos, out))
        else:
            words = train_py(*command(photos, out), status=2)
            (newest,) = out.glob("checkpoint-*")
            assert newest.name == "checkpoint-000009"
            assert f"make room; then --resume_from_checkpoint latest goes on from {newest}" in words
            assert not hidden(out)
    if not room:
        train_py(*command(photos, out, *RESUME))
    assert weights(out) == weights(whole)
    assert not list(out.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "n",
    [pytest.param(n, marks=() if n == 12 else pytest.mark.slow) for n in range(0, 48, 3)],
)
@pytest.mark.parametrize("times", [1, 1000], ids=["once", "for good"])
def test_a_full_disk_loses_nothing_that_was_saved(
    photos, tmp_path, monkeypatch, train_py, n, times
):
    """At the n-th place where kept images, a checkpoint, a picture, a model or numbers go to it."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "WORTH_KEEPING", 1)
    out, whole, numbers = tmp_path / "out", tmp_path / "whole", tmp_path / "numbers.json"
    train_py(*command(photos, out, "--seed", 1))
    train_py(*command(photos, whole))
    shutil.rmtree(tmp_path / "cache")
    numbers.write_text("{}")
    calls = itertools.count()
    measure = [str(out), "--dataset", str(photos), "--output", str(numbers)]

    def full(real):
        def write(*args, **kwargs):
            if n <= next(calls) < n + times:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return write

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "posix_fallocate"):
            patch.setattr(os, name, full(getattr(os, name)))
        words = train_py(*command(photos, out, "--overwrite_output_dir"), status=(0, 2))
        places = next(calls)  # in training: measuring comes after them
        hfvae.from_pretrained(out)  # the old one, the new one, or that before its prior
        with contextlib.suppress(SystemExit):
            evaluate.main(measure)
        json.loads(numbers.read_text())
    if times > 1 and n < places:
        assert "No space left" in words or "the disk is full" in words
    if not (out / "evaluation.json").exists():
        assert "make room" in words
        train_py(*command(photos, out, *RESUME, "--overwrite_output_dir"))
    assert weights(out) == weights(whole)
    assert not hidden(out)
