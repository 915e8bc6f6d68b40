import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import hfvae
from hfvae import VAE, VQVAE, HubError, VAEConfig, VQVAEConfig
from hfvae.hub import files

pytestmark = pytest.mark.quick


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change=lambda tensors: tensors, metadata=None):
    """The weights with changed tensors; the metadata stay unless given."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata() if metadata is None else metadata
    save_file(change(load_file(path)), path, metadata)


def test_a_new_process_gets_the_same_bits(model, folder, x, generator, tmp_path):
    torch.save(x, tmp_path / "x.pt")
    code = f"""
import torch, hfvae
model = hfvae.from_pretrained({str(folder)!r})
x = torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)
seed = torch.Generator().manual_seed(3)
out = [model.encode(x), model.reconstruct(x), model.sample(5, generator=seed)]
torch.save(out, {str(tmp_path / "out.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    theirs = torch.load(tmp_path / "out.pt", weights_only=True)
    ours = [model.encode(x), model.reconstruct(x), model.sample(5, generator=generator(3))]
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized-logistic"])
@pytest.mark.parametrize("scale", [None, 0.2])
def test_every_setting_survives(likelihood, scale, tmp_path):
    config = VAEConfig(
        image_size=(9, 14), channels=2, likelihood=likelihood, scale=scale, latent_dim=3,
        widths=(4, 6, 8), blocks=1, beta=2,
    )  # fmt: skip
    model = VAE(config)
    model.save_pretrained(tmp_path / "m")
    again = hfvae.from_pretrained(tmp_path / "m")
    assert type(again) is VAE
    assert again.config == config
    assert not again.training
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    again(torch.zeros(2, 2, 9, 14))  # every buffer has memory


def test_config_json_is_flat_and_says_what_it_is(folder):
    settings = json.loads((folder / "config.json").read_text())
    assert settings["model_type"] == "vae"
    assert settings["format_version"] == 1
    assert settings["image_size"] == [10, 12]
    assert not any(isinstance(value, dict) for value in settings.values())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_models_load_in_float32_unless_told(model, tmp_path, stored):
    """Half precision is for storing: it takes no float32 images, and training in it ends in NaN."""
    model.to(stored).save_pretrained(tmp_path / "model")
    again = hfvae.from_pretrained(tmp_path / "model")
    assert {t.dtype for t in again.parameters()} == {torch.float32}
    assert torch.equal(again.encoder.body[0].weight, model.encoder.body[0].weight.float())
    again(torch.rand(2, 3, 10, 12)).loss.backward()
    assert hfvae.from_pretrained(tmp_path / "model", dtype=stored).dtype == stored


def test_a_prior_that_was_not_fitted_says_so_after_loading_too(tmp_path):
    """What was fitted does not, nor do the files of before, which do not tell."""
    model = VAE(VAEConfig(image_size=8, latent_dim=2, prior="mixture", prior_components=2))
    model.save_pretrained(tmp_path / "new")
    with pytest.warns(UserWarning, match="fitted to no latents yet"):
        hfvae.from_pretrained(tmp_path / "new").sample(1)
    model.prior.fit(torch.randn(50, 2))
    model.save_pretrained(tmp_path / "fitted")
    del model.prior.fitted
    model.save_pretrained(tmp_path / "before")
    for folder in ("fitted", "before"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hfvae.from_pretrained(tmp_path / folder).sample(1)


def test_a_family_loads_its_own_kind(folder, monkeypatch):
    assert type(VAE.from_pretrained(folder)) is VAE

    class Other(VAE):
        pass

    with pytest.raises(HubError, match=r"holds a VAE \(vae\), not a Other"):
        Other.from_pretrained(folder)


def test_custom_parts_are_asked_for(tmp_path, x, generator):
    def encoder():
        return nn.Sequential(nn.Flatten(), nn.Linear(360, 8))

    config = VAEConfig(image_size=(10, 12), latent_dim=4)
    model = VAE(config, encoder=encoder()).eval()
    model.save_pretrained(tmp_path / "m")
    again = hfvae.from_pretrained(tmp_path / "m", encoder=encoder())
    assert torch.equal(again.encode(x), model.encode(x))
    with pytest.raises(HubError, match="its own encoder; build one and load with encoder="):
        hfvae.from_pretrained(tmp_path / "m")


def test_parts_that_make_tensors_or_hold_none_can_be_loaded(tmp_path):
    class Counts(nn.Module):
        """An encoder that makes a tensor of its own."""

        def forward(self, x):
            return x.flatten(1)[:, torch.arange(4)] + torch.ones(4)

    config = VQVAEConfig(image_size=8, channels=1, likelihood="bernoulli", codebook_size=8,
                         embedding_dim=1, prior="autoregressive", prior_width=16)  # fmt: skip
    for model, parts in [
        (VAE(VAEConfig(image_size=8, channels=1, latent_dim=2), Counts()), {"encoder": Counts()}),
        (VQVAE(config, nn.MaxPool2d(2)), {"encoder": nn.MaxPool2d(2)}),
    ]:
        model.eval().save_pretrained(tmp_path / "m")
        again = hfvae.from_pretrained(tmp_path / "m", **parts)
        x = torch.ones(1, 1, 8, 8)
        if isinstance(model, VAE):
            assert torch.equal(again.encode(x), model.encode(x))
        assert again.sample(2).shape == (2, 1, 8, 8)


# Every way in which loading fails, in its own words


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "model.pt"), r"only model\.pt: pickled"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[" * 50_000), "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text(" " * 200_000), "config.json is larger than"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "no model_type, so this is no hfvae"),
        (
            lambda f: edit_config(f, model_type="unet"),
            "unknown model_type 'unet'; this hfvae knows",
        ),
        (lambda f: edit_config(f, model_type=[]), "unknown model_type"),
        (lambda f: edit_config(f, format_version=3), "format 3, .* update it"),
        (lambda f: edit_config(f, format_version="1"), "no format_version"),
        (lambda f: edit_config(f, depth=3), "unknown settings in config.json: depth"),
        (lambda f: edit_config(f, latent_dim="4"), "latent_dim must be a whole number"),
        (lambda f: edit_config(f, latent_dim=10**30), "latent_dim must be from 1"),
        (lambda f: edit_config(f, widths=[4096] * 13), "widths must have 0 to 12"),
        (lambda f: edit_config(f, custom_parts="encoder"), "custom_parts in config.json"),
        (lambda f: edit_config(f, beta=2), "differ in beta: config.json was edited"),
        (lambda f: edit_config(f, latent_dim=5), "differ in latent_dim"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"PK\3\4"),
            "model.safetensors is damaged",
        ),
        (lambda f: os.truncate(f / "model.safetensors", 5_000), "model.safetensors is damaged"),
        (
            lambda f: rewrite(f, lambda t: {k: v + 1 for k, v in t.items()}),
            "model.safetensors is damaged: its SHA-256",
        ),
        (
            lambda f: rewrite(f, lambda t: {k: v for k, v in t.items() if "raw_scale" not in k}),
            "does not fit config.json: likelihood.raw_scale is missing",
        ),
        (
            lambda f: rewrite(f, lambda t: t | {"extra": torch.zeros(1)}),
            "does not fit config.json: 'extra' is unexpected",
        ),
        (
            lambda f: rewrite(f, lambda t: t | {"likelihood.raw_scale": torch.zeros(2)}),
            r"likelihood.raw_scale is \(2,\) and should be \(3, 1, 1\)",
        ),
        (
            lambda f: rewrite(f, lambda t: {k: v.long() for k, v in t.items()}),
            "in model.safetensors has dtype torch.int64",
        ),
    ],
)
def test_what_is_wrong_is_said(folder, break_it, message):
    break_it(folder)
    with pytest.raises((HubError, FileNotFoundError), match=message) as caught:
        hfvae.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_one_flipped_bit_is_noticed(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(HubError, match="damaged: its SHA-256"):
        hfvae.from_pretrained(folder)


def test_no_folder_and_no_repository_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hfvae.from_pretrained(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hfvae.from_pretrained("./owner/name")
    with pytest.raises(FileNotFoundError, match="no folder and no Hub repository owner/name"):
        hfvae.from_pretrained("owner/name", cache_dir=tmp_path)


def test_weights_from_elsewhere_load_with_a_warning(model, folder, x):
    rewrite(folder, metadata={})
    with pytest.warns(UserWarning, match="no checksum"):
        again = hfvae.from_pretrained(folder)
    assert torch.equal(again.encode(x), model.encode(x))


def test_a_huge_model_in_the_config_costs_no_memory(folder):
    """The config asks for 5 GB of weights that the file does not hold."""
    edit_config(folder, latent_dim=65536, widths=[4096, 4096])
    rewrite(folder, metadata={})
    with pytest.raises(HubError, match="does not fit"):
        hfvae.from_pretrained(folder)


def put(name, value, at=...):
    """A change of one tensor, or of a part of it."""

    def change(tensors):
        tensors[name][at] = value
        return tensors

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("encoder.body.0.weight", float("nan"), (0, 0, 0, 0)),
            "holds numbers that are not fin",
        ),
        (put("decoder.body.0.weight", float("inf"), (0, 0)), "holds numbers that are not finite"),
        (
            lambda t: {k: v.double() * 1e300 if v.is_floating_point() else v for k, v in t.items()},
            "not finite in torch.float32",
        ),
        (
            put("encoder.body.1.running_var", -1.0, 0),
            "encoder.body.1 in .* has a negative variance",
        ),
        (put("prior.weights", -0.5, 0), "is no distribution: its weights must be 0 or more"),
        (put("prior.weights", 0.0), "is no distribution: its weights must be 0 or more"),
        (put("prior.cholesky", 1.0, (0, 0, 1)), "no distribution: its Cholesky factors must be lo"),
        (put("prior.cholesky", 0.0, (1, 2, 2)), "no distribution: its Cholesky factors must be lo"),
        (
            lambda t: t | {"prior.fitted": torch.tensor(7, dtype=torch.uint8)},
            "prior.fitted in model.safetensors has dtype torch.uint8",
        ),
        (
            lambda t: t | {"encoder.body.1.num_batches_tracked": torch.tensor(1).int()},
            "num_batches_tracked in model.safetensors has dtype torch.int32",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no checksum")
def test_numbers_that_no_model_can_compute_with_are_refused(change, message, tmp_path):
    config = VAEConfig(image_size=8, latent_dim=3, widths=(4,), prior="mixture", prior_components=2)
    VAE(config).save_pretrained(tmp_path)
    rewrite(tmp_path, change, metadata={})
    with pytest.raises(HubError, match=message) as caught:
        hfvae.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*no checksum")
def test_floats_of_several_dtypes_become_one(model, folder, x):
    half = {torch.float32: torch.float16, torch.int64: torch.int64}
    rewrite(
        folder,
        lambda t: {k: v.to(half[v.dtype]) if "encoder" in k else v for k, v in t.items()},
        metadata={},
    )
    again = hfvae.from_pretrained(folder)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.allclose(again.reconstruct(x), model.reconstruct(x), atol=0.01)


def test_a_custom_part_may_hold_a_mask_that_is_infinite(tmp_path, x):
    def masked():
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(360, 8))
        encoder.register_buffer("mask", torch.full((2, 2), float("-inf")))
        return encoder

    model = VAE(VAEConfig(image_size=(10, 12), latent_dim=4), encoder=masked()).eval()
    model.save_pretrained(tmp_path / "m")
    again = hfvae.from_pretrained(tmp_path / "m", encoder=masked())
    assert torch.equal(again.encode(x), model.encode(x))
    model.encoder[1].weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(HubError, match="encoder.1.weight .* not finite"):
        hfvae.from_pretrained(tmp_path / "m", encoder=masked())


# Saving loses nothing


def test_saving_keeps_a_card_that_a_person_wrote_and_other_files(model, folder):
    (folder / "README.md").write_text("mine")
    (folder / "notes.txt").write_text("keep")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "notes.txt").read_text() == "keep"


def test_a_failed_save_leaves_the_old_model_and_no_litter(model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(folder)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(folder.parent / "new")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["saved"]


def test_an_existing_folder_is_staged_within(model, folder, monkeypatch):
    """It may be a mount of its own, across which no file can be moved."""
    moves = []
    monkeypatch.setattr(files.os, "replace", lambda a, b: moves.append((Path(a), Path(b))))
    model.save_pretrained(folder)
    assert moves
    assert all(folder in source.parents for source, _ in moves)


def test_a_save_cut_short_between_its_files_is_noticed(model, folder, monkeypatch):
    replace = os.replace

    def die_at_the_weights(source, target):
        if Path(target).name == "model.safetensors":
            raise KeyboardInterrupt
        replace(source, target)

    other = VAE(VAEConfig(image_size=(10, 12), latent_dim=4, widths=(8, 16), beta=3.0))
    monkeypatch.setattr(files.os, "replace", die_at_the_weights)
    with pytest.raises(KeyboardInterrupt):
        other.save_pretrained(folder)
    with pytest.raises(HubError, match="differ in beta: .* a save was cut short"):
        hfvae.from_pretrained(folder)


def test_saving_over_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        model.save_pretrained(tmp_path / "file")


def test_a_part_that_is_used_twice_can_be_saved(tmp_path, generator):
    def parts():
        torch.manual_seed(0)
        twice = nn.Linear(64, 64)
        encoder = nn.Sequential(nn.Flatten(), twice, nn.Tanh(), twice, nn.Linear(64, 4))
        return encoder, nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))

    x = torch.rand(3, 1, 8, 8)
    model = VAE(VAEConfig(image_size=8, channels=1, latent_dim=2), *parts()).eval()
    model.encoder[1].weight.data.add_(1)
    model.save_pretrained(tmp_path / "m")
    encoder, decoder = parts()
    again = VAE.from_pretrained(tmp_path / "m", encoder=encoder, decoder=decoder)
    assert torch.equal(again(x, generator()).loss, model(x, generator()).loss)
    assert again.encoder[1] is again.encoder[3]


def test_a_home_folder_is_the_same_for_saving_and_loading(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("~/m")
    assert (tmp_path / "home" / "m" / "config.json").exists()
    hfvae.from_pretrained("~/m")
