import pytest

from hfvae import PRESETS, VAEConfig

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"image_size": 7}, ValueError, "image_size must be from 8"),
        ({"image_size": "28"}, TypeError, "image_size must be a whole number"),
        ({"image_size": (28, 28, 28)}, ValueError, "2 to 2 entries"),
        ({"image_size": 28.0}, TypeError, "whole number"),
        ({"channels": True}, TypeError, "channels must be a whole number"),
        ({"latent_dim": 10**9}, ValueError, "latent_dim must be from 1 to 65536"),
        ({"beta": float("nan")}, ValueError, "beta must be from 0"),
        ({"beta": -1}, ValueError, "beta must be from 0"),
        ({"beta": "4"}, TypeError, "beta must be a number"),
        ({"likelihood": "mse"}, ValueError, "likelihood must be one of discretized-logistic"),
        ({"likelihood": ["mse"]}, ValueError, "likelihood must be one of"),
        ({"widths": 32}, TypeError, "widths must be a list"),
        ({"widths": [8] * 13}, ValueError, "widths must have 0 to 12"),
        ({"widths": [32, None]}, TypeError, "widths must be a whole number"),
        ({"prior": "none"}, ValueError, "prior must be one of standard-normal"),
        ({"scale": float("inf")}, ValueError, "scale must be from"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        VAEConfig(**settings)


def test_json_lists_become_tuples():
    config = VAEConfig(image_size=[28, 32], widths=[8, 16])
    assert config.image_size == (28, 32)
    assert config.widths == (8, 16)
    assert config == VAEConfig(image_size=(28, 32), widths=(8, 16))


@pytest.mark.parametrize("size", [8, 9, 28, 32, 33, 64, 100, 512, (112, 92)])
def test_default_widths_leave_a_small_grid(size):
    config = VAEConfig(image_size=size)
    longer = max(config.size)
    assert longer / 2 ** len(config.widths) <= config.coarsest < 2 * longer


def test_presets_differ_only_in_their_settings():
    assert PRESETS["vae"](image_size=28) == VAEConfig(image_size=28)
    assert PRESETS["beta-vae"]().beta == 4
