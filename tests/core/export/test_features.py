"""GeoJSON as QuPath reads it, and as our own reader does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_muvit.core.data.geojson import read_geojson
from napari_muvit.core.export import features as features_module
from napari_muvit.core.export.features import FeatureWriter
from napari_muvit.core.geometry import Box

NAMES = ("one", "zwei", "trois")
COLORS = ("#ff0000", "#00ff00", "#0000ff")
SHAPES = st.tuples(st.integers(1, 17), st.integers(1, 17))
LABELS = SHAPES.flatmap(lambda s: arrays(np.uint8, s, elements=st.integers(0, 3)))


def style(label: int) -> tuple[str, str]:
    return NAMES[label - 1], COLORS[label - 1]


def written(path: Path, objects, **options) -> Path:
    told: list[int] = []
    writer = FeatureWriter(objects, style, **options)
    path.write_bytes(b"".join(writer.text(told.append)))
    assert told == list(range(1, len(objects) + 1))
    return path


@settings(max_examples=60, deadline=None)
@given(
    labels=LABELS,
    block=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    part_runs=st.sampled_from([1, 9, 1000]),
)
def test_our_own_reader_finds_the_same_labels(
    follow, tmp_path_factory, labels, block, part_runs
) -> None:
    path = tmp_path_factory.mktemp("features") / "objects.geojson"
    with follow(labels, block, part_runs) as objects:
        written(path, objects)
    found = read_geojson(path).annotations(NAMES)
    np.testing.assert_array_equal(
        found.rasterise(Box((0, 0), labels.shape), labels.shape), labels
    )


def ring_and_dot() -> np.ndarray:
    labels = np.zeros((5, 8), dtype=np.uint8)
    labels[:4, :4] = 1
    labels[1:3, 1:3] = 0
    labels[4, 6:] = 2
    return labels


def test_a_feature_says_what_it_is(follow, tmp_path: Path) -> None:
    with follow(ring_and_dot()) as objects:
        path = written(tmp_path / "o.geojson", objects, pixel_area=0.25)
        again = written(tmp_path / "p.geojson", objects, pixel_area=0.25)
        plain = written(tmp_path / "q.geojson", objects)
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    ring, dot = content["features"]
    assert ring["properties"] == {
        "objectType": "annotation",
        "name": "one 1",
        "classification": {"name": "one", "color": [255, 0, 0]},
        "isLocked": True,
        "measurements": {"Object": 1, "Area px^2": 12, "Area µm^2": 3.0},
    }
    assert ring["geometry"]["type"] == "Polygon"
    outer, hole = ring["geometry"]["coordinates"]
    assert outer == [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    assert hole[0] == hole[-1]
    assert sorted(hole[1:]) == [[1, 1], [1, 3], [3, 1], [3, 3]]
    assert dot["geometry"]["coordinates"] == [
        [[6, 4], [8, 4], [8, 5], [6, 5], [6, 4]]
    ]  # fmt: skip
    assert ring["id"] != dot["id"]
    assert again.read_bytes() == path.read_bytes()
    bare = json.loads(plain.read_text())["features"][0]["properties"]
    assert bare["measurements"] == {"Object": 1, "Area px^2": 12}


def test_outlines_do_not_depend_on_the_batches(
    follow, tmp_path: Path, monkeypatch
) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((50, 50)) < 0.55).astype(np.uint8)
    with follow(labels, (7, 50)) as objects:
        whole = written(tmp_path / "a.geojson", objects, tolerance=1.0)
        monkeypatch.setattr(features_module, "BATCH_CORNERS", 7)
        parts = written(tmp_path / "b.geojson", objects, tolerance=1.0)
        assert whole.read_bytes() == parts.read_bytes()
        exact = written(tmp_path / "c.geojson", objects)
        assert len(exact.read_bytes()) > len(whole.read_bytes())


def test_an_object_with_too_many_corners_stays_exact(
    follow, tmp_path: Path, monkeypatch
) -> None:
    labels = np.triu(np.ones((30, 30), dtype=np.uint8))
    monkeypatch.setattr(features_module, "MOST_CORNERS", 20)
    with follow(labels) as objects:
        exact = written(tmp_path / "a.geojson", objects)
        simple = written(tmp_path / "b.geojson", objects, tolerance=1.0)
        assert FeatureWriter(objects, style, 1.0).exact.tolist() == [0]
        assert FeatureWriter(objects, style).exact.tolist() == []
    assert exact.read_bytes() == simple.read_bytes()


def test_no_objects(follow, tmp_path: Path) -> None:
    with follow(np.zeros((3, 3), dtype=np.uint8)) as objects:
        path = written(tmp_path / "o.geojson", objects, tolerance=1.0)
    assert json.loads(path.read_text())["features"] == []
