"""Publishing and loading over real HTTP, with the real client, against the Hub in loopback.py."""

import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import hf_xet
import pyarrow.parquet
import pytest
import torch
import xet
import yaml
from huggingface_hub import errors
from loopback import SPACE_STUB
from PIL import Image

import hfvae
from hfvae import VAE, HubError, VAEConfig
from hfvae.data import DataError, load_images
from hfvae.hub import push_folder, source
from hfvae.hub.card import is_edited, sign
from hfvae.hub.words import explained
from hfvae.priors.mixture import GaussianMixture

pytestmark = pytest.mark.quick

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FETCHING = {  # the requests that carry a file's content: large ones by Xet, or by LFS
    CONFIG: r"GET .*/config\.json",
    WEIGHTS: r"GET /(xorb/)?[0-9a-f]{64}",
}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def published(hub, model):
    model.push_to_hub("me/x")
    hub.requests.clear()
    return hub.repos["models/me/x"]


def families():
    shape = {"image_size": (8, 12), "channels": 1, "widths": (4,)}
    codes = {"codebook_size": 15, "embedding_dim": 4, "prior": "autoregressive", "prior_width": 16}
    yield hfvae.VAE(VAEConfig(latent_dim=3, **shape))
    yield hfvae.VAE(VAEConfig(latent_dim=3, prior="mixture", prior_components=2, **shape))
    plain = hfvae.AutoencoderConfig(latent_dim=3, prior="mixture", prior_components=2, **shape)
    yield hfvae.Autoencoder(plain)
    yield hfvae.VQVAE(hfvae.VQVAEConfig(**codes, **shape))
    yield hfvae.VQVAE(hfvae.VQVAEConfig(quantizer="fsq", **codes, **shape))


def test_every_family_comes_back_bit_by_bit_in_a_process_without_a_cache(hub, tmp_path, generator):
    torch.manual_seed(1)
    expected = []
    for i, model in enumerate(families()):
        model(torch.rand(8, 1, 8, 12))
        if isinstance(model.prior, GaussianMixture):
            model.prior.fit(torch.randn(50, 3), seed=0)
        x = model.eval().sample(4, generator=generator(2))
        expected.append([x, model.reconstruct(x), *model.state_dict().values()])
        url = model.push_to_hub(f"me/model-{i}")
        assert url.startswith(f"{hub.url}/me/model-{i}/commit/")
    code = f"""
import torch, hfvae
found = []
for i in range({len(expected)}):
    model = hfvae.from_pretrained(f"me/model-{{i}}")
    x = model.sample(4, generator=torch.Generator().manual_seed(2))
    found.append([x, model.reconstruct(x), *model.state_dict().values()])
torch.save(found, {str(tmp_path / "out.pt")!r})
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    del environment["HF_TOKEN"]  # the repositories are public
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    for ours, theirs in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# Publishing


def test_a_push_is_one_commit_with_model_and_card(published, model):
    assert published.log == ["initial commit", "Upload model"]
    assert published.files().keys() == {".gitattributes", CONFIG, WEIGHTS, CARD}
    card = published.files()[CARD].decode()
    assert 'from_pretrained("me/x")' in card
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "hfvae"
    model.push_to_hub("me/x")
    assert len(published.log) == 2  # nothing has changed: no commit


def test_private_branch_message_and_pull_request(hub, model):
    assert model.push_to_hub("mine", private=True, commit_message="First").endswith(
        hub.repos["models/me/mine"].refs["main"]
    )
    repo = hub.repos["models/me/mine"]
    assert repo.private
    assert repo.log[-1] == "First"
    main = repo.refs["main"]
    other = VAE(VAEConfig(image_size=8, widths=(4,)))
    other.push_to_hub("me/mine", revision="small")
    assert repo.refs["main"] == main
    assert VAE.from_pretrained("me/mine", revision="small").config.image_size == 8
    url = other.push_to_hub("me/mine", create_pr=True)
    assert url.endswith("/me/mine/discussions/1")
    assert repo.refs["main"] == main
    assert VAE.from_pretrained("me/mine", revision="refs/pr/1").config.image_size == 8
    # Whoever may not write may still propose.
    hub.add("models/you/theirs")
    assert other.push_to_hub("you/theirs", create_pr=True).endswith("/discussions/1")


def test_a_card_that_a_person_edited_stays(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "x")
    (tmp_path / "x" / "evaluation.json").write_text("{}")
    (tmp_path / "x" / "secret.txt").write_text("not for others")
    push_folder(tmp_path / "x", "me/x")
    repo = hub.repos["models/me/x"]
    assert "evaluation.json" in repo.files()
    assert "secret.txt" not in repo.files()

    def change(text):
        (tmp_path / "x" / CARD).write_text(text)

    change(sign("---\nlicense: mit\n---\n# Newer\n"))  # ours, and nobody touched the old one
    push_folder(tmp_path / "x", "me/x")
    assert "# Newer" in repo.files()[CARD].decode()
    edited = repo.files()[CARD].decode().replace("# Newer", "# Dear reader")
    repo.commit("main", repo.files() | {CARD: edited.encode()}, "by hand")
    change(sign("---\nlicense: mit\n---\n# Newest\n"))
    (tmp_path / "x" / "evaluation.json").write_text('{"psnr": 20}')
    push_folder(tmp_path / "x", "me/x")
    model.push_to_hub("me/x")
    assert repo.files()[CARD].decode() == edited
    assert b"20" in repo.files()["evaluation.json"]


def test_another_model_takes_the_old_numbers_with_it(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "x")
    (tmp_path / "x" / "evaluation.json").write_text("{}")
    push_folder(tmp_path / "x", "me/x")
    repo = hub.repos["models/me/x"]
    again = hfvae.from_pretrained("me/x", cache_dir=tmp_path / "cache")
    again.push_to_hub("me/x")
    assert "evaluation.json" in repo.files()  # the same weights: it still holds
    hfvae.VQVAE(hfvae.VQVAEConfig(image_size=16, widths=(4,))).push_to_hub("me/x")
    assert "evaluation.json" not in repo.files()
    assert "vector-quantized" in repo.files()[CARD].decode()


def test_a_card_on_the_hub_names_the_model_by_its_id(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "x")
    assert 'from_pretrained("x")' in (tmp_path / "x" / CARD).read_text()
    push_folder(tmp_path / "x", "me/y")
    card = hub.repos["models/me/y"].files()[CARD].decode()
    assert 'from_pretrained("me/y")' in card
    assert not is_edited(card)


def test_private_is_not_taken_for_done_when_the_repository_is_public(hub, model):
    model.push_to_hub("me/x")
    with pytest.raises(HubError, match="me/x is there already and is public"):
        model.push_to_hub("me/x", private=True)


def test_a_card_that_the_hub_refuses_is_said(hub, model, tmp_path):
    model.save_pretrained(tmp_path / "x")
    (tmp_path / "x" / CARD).write_text("---\nlibrary_name: 3\n---\n# mine\n")
    with pytest.raises(HubError, match='me/x: Invalid metadata in README.md. - "library_name"'):
        push_folder(tmp_path / "x", "me/x")


def test_a_signed_card_is_known_again():
    card = sign("# A\ntext\n")
    assert not is_edited(card)
    for other in (card.replace("A", "B"), card + "more", card.replace("\n", "\r\n"), "# A\n"):
        assert is_edited(other)
    # What the Hub writes when a repository is made is nobody's work.
    assert not is_edited("---\nlicense: mit\n---\n")
    assert not is_edited(SPACE_STUB.decode())


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, "me/x", "no Hub token here: run hf auth login"),
        ("hf_wrong", "me/x", "does not know this token"),
        ("hf_reader", "me/x", "may not write to me/x"),
        ("hf_me", "you/x", "may not write to you/x"),
        ("hf_me", "me/x/y", "neither a folder nor a repository id"),
    ],
)
def test_what_hinders_a_push_is_said(hub, model, monkeypatch, token, repo, message):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(OSError, match=message) as caught:
        model.push_to_hub(repo, token=token)
    assert "hf_" not in str(caught.value)
    assert not hub.repos


def test_a_push_that_fails_midway_changes_nothing(published, hub, model):
    before = published.files()
    hub.fail("POST .*/commit/", 500)
    with pytest.raises(HubError, match="answered 500 for me/x: try again later"):
        VAE(VAEConfig(image_size=8, widths=(4,))).push_to_hub("me/x")
    assert published.files() == before


# Loading: what can go wrong, in its own words


def load(cache, name="me/x", **kwargs):
    return hfvae.from_pretrained(name, cache_dir=cache, **kwargs)


def test_an_id_that_is_none_never_becomes_a_request(hub, cache):
    for name in ("../me", "me/..", "~/x", "/me/x", "me\\x", "a/b/c", "me/x y", "me/" + "x" * 200):
        with pytest.raises(OSError, match="no folder|neither a folder nor a repository id"):
            load(cache, name)
    assert not hub.requests


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            hf_xet.XetAuthenticationError("refresh failed"),
            "storage refused a of me/x .refresh",
        ),
        (errors.FileMetadataError("no header"), "what answers at http://hub is no Hub: check HF_"),
    ],
)
def test_other_errors_of_the_client_are_words(error, words):
    with pytest.raises(HubError, match=words), explained("me/x", "http://hub", what="a"):
        raise error


def test_a_token_that_is_asked_for_and_not_there(published, cache, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="token=True, but there is no Hub token here"):
        load(cache, token=True)


def test_a_mistyped_folder_is_told_what_is_beside_it(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("runs/photos-vae")
    words = "no folder and no Hub repository runs/typo, .*; the folder runs holds photos-vae$"
    with pytest.raises(FileNotFoundError, match=words):
        hfvae.from_pretrained("runs/typo")


def test_missing_private_gated_and_wrong_revision_are_told_apart(published, hub, cache):
    with pytest.raises(FileNotFoundError, match="no Hub repository me/none, or it is private"):
        load(cache, "me/none")
    with pytest.raises(FileNotFoundError, match="me/x has no revision 'v9'"):
        load(cache, revision="v9")
    with pytest.raises(FileNotFoundError, match="me/x has no revision"):
        load(cache, revision="0" * 40)
    published.private = True
    for token in (False, "hf_other"):
        with pytest.raises(FileNotFoundError, match="or it is private and this token may not read"):
            load(cache, token=token)
    published.private, published.gated = False, True
    for token in (False, "hf_other"):
        with pytest.raises(HubError, match="me/x is gated: ask for access on its page"):
            load(cache, token=token)
    hub.fail("GET /api/models/me/x", 403, times=1)
    with pytest.raises(HubError, match="access to me/x is denied"):
        load(cache)
    with pytest.raises(HubError, match="does not know this token") as caught:
        load(cache, token="hf_wrong")
    assert "hf_" not in str(caught.value).replace("hf auth", "")
    assert load(cache, token="hf_me").config.latent_dim == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop(CONFIG), "me/x has no config.json"),
        (lambda f: f.pop(WEIGHTS), "me/x has no model.safetensors$"),
        (
            lambda f: f.update({"pytorch_model.bin": f.pop(WEIGHTS)}),
            r"only pytorch_model\.bin: pickled weights can run code",
        ),
        (lambda f: f.update({CONFIG: b"["}), "config.json is not valid JSON"),
        (lambda f: f.update({CONFIG: b'{"a":' * 9999}), "config.json is not valid JSON"),
        (lambda f: f.update({CONFIG: b" " * 10**6}), "config.json is larger than"),
        (lambda f: f.update({CONFIG: b"{}"}), "this is no hfvae model"),
        (lambda f: f.update({WEIGHTS: b"\x80\x04K\x01."}), "model.safetensors is damaged"),
        (lambda f: edit(f, latent_dim=10**9), "latent_dim must be from 1"),
        (lambda f: edit(f, image_size=[4096, 4096], channels=256), "is too large"),
        (lambda f: edit(f, latent_dim=5), "differ in latent_dim"),
        (lambda f: edit(f, auto_map={"AutoModel": "evil.py"}), "unknown settings .* auto_map"),
        (lambda f: edit(f, model_type="../vae"), "unknown model_type"),
        (lambda f: edit(f, format_version=9), "update it"),
    ],
)
def test_a_repository_that_is_no_sound_model_is_refused(published, cache, change, message):
    files = published.files()
    change(files)
    with pytest.raises((HubError, FileNotFoundError), match=message) as caught:
        load(cache)
    assert "\n" not in str(caught.value)


def edit(files, **changes):
    files[CONFIG] = json.dumps(json.loads(files[CONFIG]) | changes).encode()


def test_no_file_but_the_two_is_fetched(published, hub, cache):
    """Code, pickles or anything else in a repository stays there."""
    published.files().update({"model.py": b"raise SystemExit", "x.pkl": b"", "modeling.py": b""})
    load(cache)
    fetched = {r.path.rpartition("/")[2] for r in hub.requests if "/resolve/" in r.path}
    assert fetched == {CONFIG, WEIGHTS}


def test_config_and_weights_come_from_one_commit(published, hub, cache, monkeypatch, model):
    """Somebody pushes another model between the two downloads."""
    commits = []
    read_config = source.read_config

    def push_meanwhile(*args):
        commits.append(published.refs["main"])
        VAE(VAEConfig(image_size=8, widths=(4,))).push_to_hub("me/x")
        return read_config(*args)

    monkeypatch.setattr(source, "read_config", push_meanwhile)
    assert load(cache).config == model.config
    assert len(commits) == 1
    assert commits[0] != published.refs["main"]


def test_a_pinned_revision_stays_what_it_was(published, cache, model):
    commit = published.refs["main"]
    VAE(VAEConfig(image_size=8, widths=(4,))).push_to_hub("me/x")
    assert load(cache, revision=commit).config == model.config
    assert load(cache).config.image_size == 8


@pytest.mark.alone
def test_what_is_cached_needs_no_network(published, hub, cache, model, x, caplog):
    commit = published.refs["main"]
    load(cache)
    hub.requests.clear()
    load(cache, local_files_only=True)
    load(cache, revision=commit)
    assert not hub.requests
    load(cache)
    assert len(hub.requests) == 1  # has it changed?
    with pytest.raises(
        HubError, match=r"me/y is no folder, .* \(HF_HUB_OFFLINE or local_files_only"
    ):
        load(cache, "me/y", local_files_only=True)
    code = f"import hfvae; hfvae.from_pretrained('me/x', cache_dir={str(cache)!r})"
    hub.requests.clear()
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert not hub.requests
    hub.stop()
    try:
        start = time.monotonic()
        logging.getLogger("huggingface_hub").addHandler(caplog.handler)
        assert torch.equal(load(cache).encode(x), model.encode(x))
        assert "Could not reach the Hub" in caplog.text
        for name, revision in [("me/y", None), ("me/y", "a" * 40), ("me/x", "b" * 40)]:
            with pytest.raises(HubError, match="the Hub cannot be reached at http://127"):
                load(cache, name, revision=revision)
        with pytest.raises(HubError, match="the Hub cannot be reached at http://127"):
            load(cache, force_download=True)
        assert time.monotonic() - start < 3
    finally:
        hub.start()


def test_an_answer_of_5xx_that_passes_is_waited_for(published, hub, cache, model):
    hub.fail("GET /api/models/me/x", 503, times=2)
    hub.fail("HEAD .*config.json", 502, times=1)
    hub.fail(FETCHING[WEIGHTS], 500, times=1)
    assert load(cache).config == model.config
    assert not any(fault.times for fault in hub.faults)


@pytest.mark.alone
def test_an_answer_of_5xx_that_stays_is_said(published, hub, cache):
    hub.fail("GET /api/models/me/x", 503)
    start = time.monotonic()
    with pytest.raises(HubError, match="answered 503 for me/x: try again later"):
        load(cache)
    assert time.monotonic() - start < 5


def test_a_transfer_cut_short_is_resumed(published, hub, cache, model):
    hub.fail(FETCHING[WEIGHTS], "cut", times=1)
    assert load(cache).config == model.config
    assert not hub.faults[0].times


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_flipped_bit_is_noticed_and_force_download_mends_it(published, hub, cache, model, file):
    hub.fail(FETCHING[file], "flip", times=1)
    for _ in range(2):  # the cache has it now
        with pytest.raises(HubError, match="force_download=True"):
            load(cache)
    assert load(cache, force_download=True).config == model.config
    assert load(cache).config == model.config


def test_a_flipped_bit_anywhere_is_noticed(published, cache, model):
    """In the client's cache, as a transfer leaves it: in the config, and around the weights."""
    load(cache)
    for name, step in [(CONFIG, 1), (WEIGHTS, 131)]:
        path = next(cache.glob(f"models--me--x/snapshots/*/{name}")).resolve()
        sound = path.read_bytes()
        for at in range(0, len(sound), step):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            with pytest.raises(HubError, match="load with force_download=True$") as caught:
                load(cache, local_files_only=True)
            assert "\n" not in str(caught.value)
        path.write_bytes(sound)
    assert load(cache, local_files_only=True).config == model.config


# The client's settings, which it reads when it is imported

ROUND_TRIP = """
import sys, torch, hfvae

for anew in (False, False, True, False, True, False):
    try:
        model = hfvae.from_pretrained("me/x", force_download=anew)
    except hfvae.HubError as error:
        print(error)
model.push_to_hub("me/y")
again = hfvae.from_pretrained("me/y")
torch.save([model.state_dict(), again.state_dict()], sys.argv[1])
"""


@pytest.mark.parametrize(
    "setting", ["HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_SHARED_BLOBS", "HF_HUB_DISABLE_SYMLINKS"]
)
def test_other_settings_of_the_client_change_nothing(published, hub, model, tmp_path, setting):
    """Damage is told and mended, first of the config, then of the weights; then a round trip."""
    for pattern in FETCHING.values():
        hub.fail(pattern, "flip", times=1)
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, tmp_path / "out.pt"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), setting: "1"},
    )
    assert done.stdout.count("load with force_download=True\n") == 4
    assert done.stdout.count("config.json") == done.stdout.count("model.safetensors") == 2
    by_xet = any(r.path.startswith("/xorb/") for r in hub.requests)
    assert by_xet == (setting != "HF_HUB_DISABLE_XET")
    for found in torch.load(tmp_path / "out.pt", weights_only=True):
        assert all(torch.equal(t, found[name]) for name, t in model.state_dict().items())


def test_a_transfer_that_is_always_cut_short_is_said(published, hub, cache):
    """Without Xet: that tries again for minutes."""
    hub.fail(FETCHING[WEIGHTS], "cut")
    code = f"import hfvae; hfvae.from_pretrained('me/x', cache_dir={str(cache)!r})"
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "HubError: the transfer of model.safetensors was cut short: try again" in done.stderr


def test_the_token_goes_to_the_hub_alone_and_is_written_nowhere(hub, model, cache, tmp_path):
    model.push_to_hub("me/x", private=True)
    load(cache)
    asked = [r for r in hub.requests if r.origin == "storage"]
    assert {r.method for r in asked} == {"POST", "GET"}
    assert {r.token for r in asked} == {None, xet.TOKEN}
    assert all(r.token == "hf_me" for r in hub.requests if r.origin == "hub")
    files = [p for d in (tmp_path, Path(os.environ["HF_HOME"])) for p in d.rglob("*")]
    files = [p for p in files if p.is_file()]
    assert files
    assert not [p for p in files if b"hf_me" in p.read_bytes()]
    assert not [n for n, d in hub.repos["models/me/x"].files().items() if b"hf_me" in d]


# Data sets on the Hub


@pytest.fixture
def pictures(hub, tmp_path):
    """Data sets on the Hub: parquet with and without a test split."""
    table = {"label": [0] * 30, "picture": [], "thumb": []}
    for i in range(30):
        for column, size in [("picture", (20, 16)), ("thumb", (8, 8))]:
            buffer = io.BytesIO()
            Image.new("RGB", size, (i, 255 - i, 9)).save(buffer, "PNG")
            table[column].append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
    features = {"label": datasets.Value("int64"), "picture": datasets.Image()}
    features["thumb"] = datasets.Image()
    rows = datasets.Dataset.from_dict(table, features=datasets.Features(features))
    rows.to_parquet(tmp_path / "p.parquet")
    data = (tmp_path / "p.parquet").read_bytes()
    hub.add("datasets/me/one", {"data/train.parquet": data})
    both = {"data/train-00000-of-00001.parquet": data, "data/test-00000-of-00001.parquet": data}
    hub.add("datasets/me/both", both)
    files = {f"{i}.png": cell["bytes"] for i, cell in enumerate(table["picture"])}
    hub.add("datasets/me/files", files)
    return hub


def first_pixels(images):
    return images.pixels[:, 0, 0, 0].tolist()


def test_a_data_set_is_loaded_by_its_id(pictures):
    train, test = (load_images("me/one", split) for split in ("train", "test"))
    assert train.pixels.shape == (27, 3, 16, 20)
    assert sorted(first_pixels(train) + first_pixels(test)) == list(range(30))
    thumbs = load_images("me/one", image_column="thumb")
    assert thumbs.pixels.shape[2:] == (8, 8)
    assert len(load_images("me/both", "train")) == len(load_images("me/both", "test")) == 30
    assert len(load_images("me/both", max_samples=5)) == 5
    with pytest.raises(DataError, match="no image column 'label'; its image columns: picture, th"):
        load_images("me/one", image_column="label")
    with pytest.raises(DataError, match="cannot load the data set me/none"):
        load_images("me/none")


def test_a_streamed_data_set_stores_nothing_but_pixels(pictures, monkeypatch):
    whole = load_images("me/both", "train")
    monkeypatch.setattr(pictures, "large", {})  # fetched anew
    streamed = load_images("me/both", "train", streaming=True, max_samples=20)
    assert torch.equal(streamed.pixels, whole.pixels[:20])
    assert len(load_images("me/both", "test", streaming=True, max_samples=20)) == 2
    train, test = (
        load_images("me/one", split, streaming=True, max_samples=20) for split in ("train", "test")
    )
    assert first_pixels(test) == [0, 1]
    assert first_pixels(train) == list(range(2, 22))
    assert len(load_images("me/files", streaming=True, max_samples=20)) == 20
    few = load_images("me/files", streaming=True, max_samples=200)  # more than there are
    assert len(few) < 30
    assert not few.skipped
    with pytest.raises(DataError, match="say how many to take with --max_train_samples"):
        load_images("me/files", streaming=True)
    with pytest.raises(DataError, match="only a Hub data set can be streamed"):
        load_images("mnist", streaming=True)


def test_a_data_set_reads_no_file_but_its_own(hub, tmp_path):
    """Cells of a hostile data set name files of this machine, and of another repository."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    (tmp_path / "private.png").write_bytes(buffer.getvalue())
    hub.add("datasets/me/hidden", {"a.png": buffer.getvalue()}, private=True)
    cells = [{"bytes": buffer.getvalue(), "path": "fine.png"} for _ in range(46)]
    named = ["{0}/private.png", "../{0}/private.png", "hf://datasets/me/hidden/a.png",
             "hf://datasets/me/evil@main/../hidden/a.png"]  # fmt: skip
    cells += [{"bytes": None, "path": name.format(tmp_path)} for name in named]
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": cells}, features=features)
    pyarrow.parquet.write_table(rows.data.table, tmp_path / "p.parquet")
    hub.add("datasets/me/evil", {"data/train.parquet": (tmp_path / "p.parquet").read_bytes()})
    hub.requests.clear()
    for streaming in (False, True):
        sets = [
            load_images("me/evil", split, streaming=streaming, max_samples=50 * streaming or None)
            for split in ("train", "test")
        ]
        assert sum(map(len, sets)) == 46
        assert sum(len(s.skipped) for s in sets) == 4
    assert not [r for r in hub.requests if "hidden" in r.path]


def test_training_takes_a_data_set_id(pictures, tmp_path):
    command = [
        sys.executable, Path(__file__).parent.parent / "train.py", "--dataset", "me/one",
        "--streaming", "--max_train_samples", "20", "--image_column", "picture",
        "--max_train_steps", "1", "--train_batch_size", "4", "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "20 images of 16x20, 3 channels; 2 held out" in done.stdout
    card = (tmp_path / "out" / CARD).read_text()
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["me/one"]
