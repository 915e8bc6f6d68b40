import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from hfvae.data import DataError, cache, load_images, records, sprites
from hfvae.data.sprites import Sprites

pytestmark = pytest.mark.quick


def draw(n, height=12, width=16, channels=3, seed=0):
    shape = (n, height, width, channels) if channels > 1 else (n, height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# Sprites


def test_sprites_are_a_function_of_their_factors():
    factors = Sprites().draw_factors(20, torch.Generator().manual_seed(0))
    images = Sprites((32, 40)).images(factors)
    assert images.shape == (20, 3, 32, 40)
    assert torch.equal(images, Sprites((32, 40)).images(factors))
    assert torch.equal(images[3:4], Sprites((32, 40)).images(factors[3:4]))


@pytest.mark.parametrize("factor", range(6))
def test_every_factor_changes_the_image_at_every_step(factor):
    base = torch.tensor([[2, 3, 8, 8, 8, 4]])
    count = Sprites().counts[factor]
    factors = base.repeat(count, 1)
    factors[:, factor] = torch.arange(count)
    images = Sprites().draw(factors).float()
    assert (images[1:] - images[:-1]).abs().flatten(1).sum(1).min() > 500


def test_no_two_tilts_of_a_square_look_alike():
    factors = torch.tensor([[0, 5, tilt, 8, 8, 0] for tilt in range(16)])
    images = Sprites().draw(factors).float()
    apart = torch.cdist(images.flatten(1), images.flatten(1), p=1) + 1e9 * torch.eye(16)
    assert apart.min() > 1000


def test_position_and_scale_are_where_the_factors_say():
    """The centre of mass moves by the same way for every step of x; the area grows with scale²."""
    factors = torch.tensor([[1, 3, 8, x, 8, 0] for x in range(16)])
    mass = Sprites((128, 128), 1).draw(factors).double()[:, 0]
    centre = (mass.sum(1) * (torch.arange(128) + 0.5)).sum(1) / mass.sum((1, 2))
    expected = torch.linspace(0.25, 0.75, 16).double() * 128
    assert (centre - expected).abs().max() < 0.2
    factors = torch.tensor([[0, scale, 8, 8, 8, 7] for scale in range(6)])
    side = Sprites((128, 128), 1).draw(factors).double().sum((1, 2, 3)).div(255).sqrt()
    expected = 2 * 0.85 * 128 * torch.linspace(0.10, 0.20, 6).double()
    assert (side / expected - 1).abs().max() < 0.01


def test_sprites_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="below"):
        Sprites().images(torch.tensor([[3, 0, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="1, 3 or 4"):
        Sprites(channels=2)


def test_sprites_of_both_splits_differ_and_know_their_factors(monkeypatch):
    monkeypatch.setattr(sprites, "COUNTS", {"train": 50, "test": 50})
    train, test = load_images("sprites"), load_images("sprites", "test", size=(16, 24), channels=1)
    assert load_images("sprites", "test", size=16).pixels.shape[1:] == (3, 16, 16)
    assert train.pixels.shape == (50, 3, 64, 64)
    assert test.pixels.shape == (50, 1, 16, 24)
    both = torch.cat([train.factors, test.factors])
    assert len(both.unique(dim=0)) == 100  # no image is in both
    assert torch.equal(train.pixels, Sprites().draw(train.factors))


# Folders


def test_idx_files_are_read_as_they_are(tmp_path):
    images = draw(5, 28, 28, 1)
    header = np.array([0x803, 5, 28, 28], ">i4").tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb") as f:
        f.write(header + images[::-1].tobytes())
    train, test = load_images(str(tmp_path)), load_images(str(tmp_path), "test")
    assert torch.equal(train.pixels[:, 0], torch.from_numpy(images))
    assert torch.equal(test.pixels.flip(0), train.pixels)
    assert load_images(str(tmp_path), size=(32, 20), channels=3).pixels.shape == (5, 3, 32, 20)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        load_images(str(tmp_path))


def test_a_folder_holds_out_a_fixed_tenth(tmp_path):
    for i, image in enumerate(draw(30)):
        (tmp_path / f"{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"{i % 3}" / f"{i}.png")
    train, test = load_images(str(tmp_path)), load_images(str(tmp_path), "test")
    assert train.pixels.shape == (27, 3, 12, 16)  # all of one size: it is kept
    assert len(test) == 3
    everything = {p.numpy().tobytes() for p in torch.cat([train.pixels, test.pixels])}
    assert len(everything) == 30
    assert torch.equal(test.pixels, load_images(str(tmp_path), "test").pixels)


def test_train_and_test_folders_are_used(tmp_path):
    for split, n in [("train", 6), ("test", 2)]:
        (tmp_path / split / "deep").mkdir(parents=True)
        for i, image in enumerate(draw(n, seed=n)):
            Image.fromarray(image).save(tmp_path / split / "deep" / f"{i}.jpg")
    assert len(load_images(str(tmp_path))) == 6
    assert len(load_images(str(tmp_path), "test")) == 2


def test_mixed_pictures_become_64_pixels_and_bad_ones_are_named(tmp_path):
    for i in range(10):
        Image.fromarray(draw(1, 30 + i, 50)[0]).save(tmp_path / f"{i}.png")
    Image.fromarray(draw(1, 30, 50)[0]).save(tmp_path / "a.png")
    Image.fromarray(draw(1, 70, 20, 1)[0]).convert("P").save(tmp_path / "b.gif")
    Image.fromarray(draw(1, 9, 9, 4)[0]).save(tmp_path / "c.webp", lossless=True)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "d.png").write_bytes((tmp_path / "a.png").read_bytes())
    both = [load_images(str(tmp_path), split) for split in ("train", "test")]
    assert sum(len(images) for images in both) == 13
    assert both[0].pixels.shape[1:] == (3, 64, 64)
    skipped = sorted(words.split(":")[0] for images in both for words in images.skipped)
    assert skipped == ["cut.png", "text.jpg"]


def test_links_that_lead_back_bring_no_image_twice(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for i, pixels in enumerate(draw(10)):
        Image.fromarray(pixels).save(tmp_path / "photos" / "deep" / f"{i}.png")
    (tmp_path / "photos" / "deep" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "photos" / "deep")
    assert sum(len(load_images(str(tmp_path / "photos"), s)) for s in ("train", "test")) == 10


def test_grey_folders_have_one_channel(tmp_path):
    for i, image in enumerate(draw(4, 20, 20, 1)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    assert load_images(str(tmp_path)).pixels.shape[1:] == (1, 20, 20)


def test_large_sets_live_in_a_file(tmp_path, monkeypatch):
    for i, image in enumerate(draw(10)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    small = load_images(str(tmp_path)).pixels
    monkeypatch.setattr(cache, "IN_MEMORY", 100)
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    large = load_images(str(tmp_path)).pixels
    assert torch.equal(small, large)
    # The file has no name, and goes with the process.
    assert (tmp_path / "cache").is_dir()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_parquet_folders_files_and_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(image) for image in draw(20)]
    table = {"picture": images, "other": images[::-1], "name": ["x"] * 20}
    features = datasets.Features(
        {"picture": datasets.Image(), "other": datasets.Image(), "name": datasets.Value("string")}
    )
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "train.parquet"
    datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    train = load_images(str(tmp_path / "set"))
    assert train.pixels.shape == (18, 3, 12, 16)
    assert torch.equal(train.pixels, load_images(str(path)).pixels)
    other = load_images(str(path), image_column="other").pixels
    assert not torch.equal(other, train.pixels)
    with pytest.raises(
        DataError, match="no image column 'name'; its image columns: picture, other"
    ):
        load_images(str(path), image_column="name")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "bare", "holds no images"),
        (lambda p: p / "none", "no data set of that name; known names: sprites, avatars, mnist"),
        (lambda p: "fasion-mnist", "no data set of that name"),
        (lambda p: p / "file.txt", "is a file; give a folder"),
        (lambda p: p / "one", "1 image is not enough"),
        (lambda p: p / "bad", "none of the 1 images in .* can be read"),
    ],
)
def test_a_missing_set_is_refused_in_words(tmp_path, make, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "file.txt").write_text("")
    for name in ("bare", "one", "bad"):
        (empty / name).mkdir()
    Image.new("RGB", (9, 9)).save(empty / "one" / "a.png")
    for name in "ab":
        (empty / "bad" / f"{name}.png").write_text("")
    with pytest.raises(DataError, match=message):
        load_images(str(make(empty)))


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A folder of images that are many enough to be kept decoded."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "WORTH_KEEPING", 100)
    (tmp_path / "many").mkdir()
    for i, image in enumerate(draw(20)):
        Image.fromarray(image).save(tmp_path / "many" / f"{i}.png")
    (tmp_path / "many" / "bad.png").write_text("")
    (tmp_path / "many" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path / "many"


def test_many_images_are_decoded_once(many, monkeypatch):
    first = load_images(str(many))
    assert "decoded 18 images once, for later runs in" in first.note

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(records, "_decode", never)
    again = load_images(str(many))
    assert "using 18 images decoded before" in again.note
    assert torch.equal(first.pixels, again.pixels)
    assert again.skipped == first.skipped
    monkeypatch.setattr(cache, "IN_MEMORY", 10)  # mapped from the file
    assert torch.equal(load_images(str(many)).pixels, first.pixels)


def test_what_has_changed_is_decoded_again(many):
    first = load_images(str(many))
    Image.new("RGB", (16, 12), "white").save(many / "3.png")
    second = load_images(str(many))
    assert "once" in second.note
    assert not torch.equal(first.pixels, second.pixels)
    assert "once" in load_images(str(many), size=(8, 8)).note
    assert "once" in load_images(str(many), "test").note


def test_a_full_disk_or_an_interrupt_leaves_nothing_half_kept(many, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "posix_fallocate", full)
        images = load_images(str(many))
    assert len(images) == 18
    assert "not kept: [Errno 28] No space left" in images.note

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_images(str(many))
    assert not list((tmp_path / "cache" / "decoded").iterdir())
    assert torch.equal(load_images(str(many)).pixels, images.pixels)
