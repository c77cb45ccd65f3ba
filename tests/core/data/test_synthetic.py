import itertools

import numpy as np
import pytest
import scipy.ndimage as ndi
import yaozarrs
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.annotations import Annotations, label_classes
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.synthetic import (
    CLASS_COLORS,
    CLASS_NAMES,
    SyntheticSlide,
    write_synthetic,
)
from napari_muvit.core.data.synthetic_noise import hash_positions, perlin, uniform
from napari_muvit.core.errors import Cancelled, ConfigError, OutputError

SIZE = 1024


@pytest.fixture(scope="module")
def slide():
    return SyntheticSlide(SIZE, 256, seed=3)


@pytest.fixture(scope="module")
def image(slide):
    return slide.image((0, 0), (SIZE, SIZE))


@pytest.fixture(scope="module")
def labels(slide):
    return slide.labels((0, 0), (SIZE, SIZE))


@pytest.fixture(scope="module")
def lines(slide):
    """Distance of each pixel from a line, and whether it lies in a ring."""
    y, x = np.arange(SIZE)[:, None] + 0.5, np.arange(SIZE)[None] + 0.5
    distance, around = slide._lines(y, x)
    return distance, around > 0


@given(
    st.integers(0, 900), st.integers(0, 900), st.integers(1, 120), st.integers(1, 120)
)
@settings(max_examples=12, deadline=None)
def test_a_window_does_not_change_the_pixels(slide, image, labels, y, x, h, w):
    upper = min(y + h, SIZE), min(x + w, SIZE)
    part = slice(y, upper[0]), slice(x, upper[1])
    np.testing.assert_array_equal(slide.image((y, x), upper), image[part])
    np.testing.assert_array_equal(slide.labels((y, x), upper), labels[part])


def test_the_seed_says_it_all(image):
    again = SyntheticSlide(SIZE, 256, seed=3).image((100, 100), (200, 200))
    other = SyntheticSlide(SIZE, 256, seed=4).image((100, 100), (200, 200))
    np.testing.assert_array_equal(again, image[100:200, 100:200])
    assert (other != again).mean() > 0.5


def test_a_window_of_a_huge_slide():
    slide = SyntheticSlide(100_000, 256, seed=0)
    got = slide.image((99_900, 54_321), (100_000, 54_421))
    assert got.shape == (100, 100)
    assert got.dtype == np.uint8
    assert 20 < got.mean() < 90


def test_both_kinds_of_cells_are_frequent(labels):
    share = np.bincount(labels.ravel(), minlength=4) / labels.size
    assert share[0] == 0
    assert share[2] + share[3] > 0.05
    assert 1 / 3 <= share[3] / (share[2] + share[3]) <= 0.6


@pytest.mark.parametrize("size", [256, 512, 2048])
def test_inner_cells_at_other_sizes(size):
    count = np.zeros(4)
    for seed in range(max(1, 1024 // size)):
        one = SyntheticSlide(size, 256, seed).labels((0, 0), (size, size))
        count += np.bincount(one.ravel(), minlength=4)
    assert 0.28 <= count[3] / count[2:].sum() <= 0.6


def test_a_cell_is_of_one_class_and_touches_no_other(labels):
    cells, count = ndi.label(labels > 1, structure=np.ones((3, 3)))
    lowest = ndi.minimum(labels, cells, np.arange(1, count + 1))
    highest = ndi.maximum(labels, cells, np.arange(1, count + 1))
    np.testing.assert_array_equal(lowest, highest)
    area = np.bincount(cells.ravel())[1:]
    assert area.max() < np.pi * (6 * 1.15) ** 2 + 8


def test_no_line_comes_near_a_cell(labels, lines):
    distance, inside = lines
    assert distance[labels > 1].min() > 1.5
    assert inside[labels == 3].all()
    assert not inside[labels == 2].any()


def test_rings_are_closed_whole_and_apart(lines):
    _, inside = lines
    rings, count = ndi.label(inside)
    assert count == 36
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    for rows, columns in ndi.find_objects(rings):
        size = max(rows.stop - rows.start, columns.stop - columns.start)
        assert 0.35 * 256 <= size <= 0.8 * 256
    # Nothing of a ring's inside is cut off from the outside world.
    assert ndi.label(~inside)[1] == 1


def sides(labels, lines, least):
    """Cells of both classes and the free ground of both sides, away from lines."""
    distance, inside = lines
    border = np.zeros(labels.shape, dtype=bool)
    border[20:-20, 20:-20] = True
    ground = (distance > least) & border
    return ground & inside, ground & ~inside


def test_both_sides_look_alike(image, labels, lines):
    """Density, size and brightness of cells, ground and grain: within 12 %.

    Away from lines, which take away the cells that they would touch.
    """
    inner, outer = sides(labels, lines, 14)
    figures = []
    for side, kind in ((inner, 3), (outer, 2)):
        cells = labels == kind
        ground = image[side & (labels == 1)].astype(float)
        numbered, _count = ndi.label(cells)
        area = np.bincount(numbered.ravel())[1:]
        figures.append(
            [
                (side & cells).sum() / side.sum(),
                np.median(area),
                area.std(),
                image[cells].mean(),
                image[cells].std(),
                ground.mean(),
                ground.std(),
            ]
        )
    ratio = np.array(figures[0]) / figures[1]
    assert (np.abs(ratio - 1) < [0.25, 0.12, 0.2, 0.05, 0.1, 0.05, 0.1]).all(), ratio


def test_a_line_does_not_show_its_side(image, lines):
    """Mean brightness across a line, from without and from within."""
    distance, inside = lines
    for low, high in itertools.pairwise([0, 1, 2, 3, 4]):
        band = (distance >= low) & (distance < high)
        within, without = image[band & inside].mean(), image[band & ~inside].mean()
        assert abs(within - without) < 6


def test_the_wobble_hides_the_curvature(slide):
    """A piece of line bends to its inside hardly more often than to its outside."""
    to_inside = []
    for row, column in itertools.product(range(5), range(5)):
        ring = slide._ring(row, column)
        angle = np.arange(ring.radius.shape[1]) * (2 * np.pi / ring.radius.shape[1])
        y, x = ring.radius[0] * np.sin(angle), ring.radius[0] * np.cos(angle)
        step = 24
        middle = ring.radius[0]
        chord = np.hypot(
            (np.roll(y, step) + np.roll(y, -step)) / 2,
            (np.roll(x, step) + np.roll(x, -step)) / 2,
        )
        to_inside.append(chord < middle)
    assert 0.4 < np.mean(to_inside) < 0.68


def test_files(tmp_path):
    events = []
    pairs = write_synthetic(
        tmp_path, 2, 512, field=256, seed=1, on_progress=events.append
    )
    assert [p.name for pair in pairs for p in pair] == [
        "000_image.zarr", "000_labels.zarr", "001_image.zarr", "001_labels.zarr",
    ]  # fmt: skip
    assert [e.done for e in events] == [1, 2]
    for path in pairs[1]:
        yaozarrs.validate_zarr_store(path)
        pyramid = open_pyramid(path)
        assert pyramid.shape == (512, 512)
        assert pyramid.scale_factors == (1, 2)
        assert pyramid.pixel_size == (0.5, 0.5)
    slide = SyntheticSlide(512, 256, seed=1)
    stored = open_pyramid(pairs[0][0]).levels[0].source.read([0, 0], [512, 512])[0]
    np.testing.assert_array_equal(stored, slide.image((0, 0), (512, 512)))
    found = label_classes(Annotations.from_labels(pairs[0][1]))
    assert (found.largest, found.names, found.colors) == (3, CLASS_NAMES, CLASS_COLORS)
    first = open_pyramid(pairs[1][0]).levels[0].source.read([0, 0], [512, 512])[0]
    assert (first != stored).mean() > 0.5


def test_files_of_the_same_settings_are_kept(tmp_path):
    stop = iter([False] * 3 + [True] * 9)
    with pytest.raises(Cancelled):
        write_synthetic(tmp_path, 2, 256, should_stop=lambda: next(stop))
    pairs = write_synthetic(tmp_path, 2, 256)
    before = {p: (p / "zarr.json").stat().st_mtime_ns for pair in pairs for p in pair}
    assert write_synthetic(tmp_path, 2, 256) == pairs
    assert before == {p: (p / "zarr.json").stat().st_mtime_ns for p in before}
    for changed in ({"seed": 5}, {"field": 128}, {"size": 300}):
        with pytest.raises(OutputError, match="not of these settings"):
            write_synthetic(tmp_path, 2, **({"size": 256} | changed))


def test_other_files_are_not_touched(tmp_path):
    (tmp_path / "001_labels.zarr").mkdir()
    with pytest.raises(OutputError, match="001_labels"):
        write_synthetic(tmp_path, 2, 256)
    assert [p.name for p in tmp_path.iterdir()] == ["001_labels.zarr"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [((0, 512), "images"), ((1, 10), "size"), ((1, 512, 10), "field")],
)
def test_numbers_that_are_too_small(tmp_path, arguments, field):
    with pytest.raises(ConfigError) as caught:
        write_synthetic(tmp_path, *arguments)
    assert caught.value.field == field


def test_noise():
    y, x = np.mgrid[0:200, 0:200]
    values = uniform(y, x, 5)
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.var() - 1 / 12) < 0.003
    assert len(np.unique(hash_positions(y, x, 5))) > 39_990
    assert abs(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1]) < 0.02
    smooth = perlin(y / 10.0, x / 10.0, 1)
    # Gradient noise is zero on its lattice and smooth between.
    np.testing.assert_allclose(smooth[::10, ::10], 0, atol=1e-6)
    assert np.abs(smooth).max() <= 1.01
    assert np.abs(np.diff(smooth, axis=0)).max() < 0.4
    assert np.isfinite(perlin(np.array([-3.5, 1e6]), np.array([2.5, -1e6]), 1)).all()
