"""Attention maps: what a window leaves out is drawn as left out, and every asked review gets its files."""

from pathlib import Path

import fabricate
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from batchscope.errors import UserError
from batchscope.report.difference_maps import moved
from batchscope.report.maps import (
    draw_map,
    draw_maps,
    layer_in_words,
    load_attention,
    load_heads,
    name_keys,
    not_allowed,
    pooled,
    readable,
    strongest_keys,
)
from batchscope.report.style import ATTENTION_SCALE, NOT_ALLOWED, attention_norm

SPEC = fabricate.spec(target_batch_sizes=[16], seeds=[1], lr_policies={"constant": {"base_lr": 1e-3}})


def test_not_allowed_is_further_than_the_window() -> None:
    n, window = 9, 3
    expected = [[abs(i - j) > window for j in range(n)] for i in range(n)]
    assert not_allowed(n, window).tolist() == expected
    assert not not_allowed(n, None).any()


def test_a_map_hatches_cells_outside_the_window_and_colours_zeros_inside() -> None:
    axis = Figure().subplots()
    draw_map(axis, np.zeros((12, 12)), 4, attention_norm(1.0, 12))
    image = axis.images[0]
    assert np.array_equal(np.ma.getmaskarray(image.get_array()), not_allowed(12, 4))
    assert tuple(image.get_cmap().get_bad()) == to_rgba(NOT_ALLOWED["facecolor"]) != ATTENTION_SCALE(0.0)
    corners = axis.patches
    assert len(corners) == 2
    assert all(corner.get_hatch() for corner in corners)
    covered = [
        [any(corner.get_path().contains_point((j, i)) for corner in corners) for j in range(12)] for i in range(12)
    ]
    assert not (np.array(covered) & ~not_allowed(12, 4)).any()


def test_global_layers_have_no_hatching() -> None:
    axis = Figure().subplots()
    draw_map(axis, np.full((6, 6), 1 / 6), None, attention_norm(1.0, 12))
    assert not axis.patches
    assert not np.ma.getmaskarray(axis.images[0].get_array()).any()


@pytest.mark.parametrize("model", ["bert", "modernbert"])
def test_each_review_gets_modest_files(tmp_path: Path, model: str) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=64, tokens=128, title="Costs $5 and $10")
    run = tmp_path / "runs" / model / "bs16/constant/seed1"
    draw_maps(run, ["undecided"], tmp_path / "maps")
    written = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in written] == ["undecided_all.png", "undecided_heads.png", "undecided_last.png"]
    for path in written:
        assert path.stat().st_size < 250_000
        assert Image.open(path).width > 500


def test_an_unknown_review_is_an_error_with_its_name(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=64)
    run = tmp_path / "runs/bert/bs16/constant/seed1"
    with pytest.raises(UserError, match="text1"):
        draw_maps(run, ["text1"], tmp_path / "maps")
    (run / "attention/measures.json").unlink()
    with pytest.raises(UserError, match=r"measures\.json"):
        draw_maps(run, ["undecided"], tmp_path / "maps")


@pytest.mark.parametrize("n", [8, 64, 128, 512])
def test_uniform_attention_is_light_and_not_the_maximum(n: int) -> None:
    norm = attention_norm(1 / n, n)
    assert norm(1 / n) <= 0.5
    assert norm(1 / n) < norm(4 / n) <= 1


def test_layers_are_counted_from_one() -> None:
    measured = {"entropy": 0.5, "largest_weight": 0.3, "special_share": 0.2, "diagonal_share": 0.1}
    assert layer_in_words({"layer": 0, "window": None, **measured}) == "layer 1, global"
    assert layer_in_words({"layer": 11, "window": 64, **measured}) == "layer 12, window ±64"


def test_an_encoder_without_attention_has_the_reason_in_place_of_maps(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=64, no_attention={"bert": "Its layers mix by Fourier transforms."})
    run = tmp_path / "runs/bert/bs16/constant/seed1"
    assert load_attention(run) == ({}, "Its layers mix by Fourier transforms.")
    draw_maps(run, ["undecided"], tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == 3


def test_heads_are_read_back_within_half_a_level_and_pooled_by_their_largest_weight(tmp_path: Path) -> None:
    fabricate.study_folder(tmp_path, SPEC, examples=64)
    run = tmp_path / "runs/modernbert/bs16/constant/seed1"
    heads = load_heads(run, "undecided")
    expected = load_attention(run)[0]["undecided"].weights
    assert heads.shape == (5, 2, 24, 24)
    assert np.abs(heads[:, 0] - expected).max() < heads.max() / 510 + 1e-3
    values = np.arange(25.0).reshape(5, 5)
    assert pooled(values, 5).tolist() == values.tolist()
    assert pooled(values, 2).tolist() == [[6, 9], [21, 24]]
    old = np.load(run / "attention/attention.npz")
    np.savez(run / "attention/attention.npz", undecided=old["undecided"])
    with pytest.raises(UserError, match="no maps of review 'undecided' by head"):
        load_heads(run, "undecided")


def test_a_difference_map_says_how_much_attention_moved() -> None:
    one = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert moved(one, one) == 0 and moved(one, one[:, ::-1]) == 0.5


def test_tokens_are_readable() -> None:
    assert readable(" great") == "·great"
    assert readable("  \n") == "··↵"
    assert readable("U+1F600 2/4") == "U+1F600 2/4"
    assert readable("a" * 40) == "a" * 13 + "…"


def test_strongest_keys_keep_their_distance() -> None:
    weights = np.zeros((4, 20))
    weights[:, [3, 4, 12]] = [0.5, 0.4, 0.1]
    assert strongest_keys(weights, 2, apart=2) == [3, 12]


@pytest.mark.parametrize("tokens", [32, 33])
def test_a_long_map_names_its_strongest_keys_alone(tokens: int) -> None:
    weights = np.zeros((tokens, tokens))
    weights[:, 9] = 1
    axis = Figure().subplots()
    name_keys(axis, [f"w{position}" for position in range(tokens)], weights)
    named = [label.get_text() for label in axis.get_xticklabels()]
    assert named == [f"w{position}" for position in range(32)] if tokens == 32 else len(named) == 7 and "w9" in named
