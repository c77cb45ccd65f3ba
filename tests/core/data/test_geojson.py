"""GeoJSON as QuPath writes and reads it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.annotations import Annotations, Region
from napari_muvit.core.data.geojson import (
    class_names_of,
    is_geojson,
    read_geojson,
    write_geojson,
)
from napari_muvit.core.data.named_labels import read_named
from napari_muvit.core.data.polygons import Polygon
from napari_muvit.core.errors import (
    AnnotationError,
    ImageNotFoundError,
    OutputError,
)
from napari_muvit.core.geometry import Box


def feature(coordinates, classification, kind="Polygon", **more):
    return {
        "type": "Feature",
        "id": "a2b6c1de-0000-4000-8000-000000000001",
        "geometry": {"type": kind, "coordinates": coordinates, **more},
        "properties": {
            "objectType": "annotation",
            "classification": classification,
            "isLocked": False,
            "measurements": {"Area": 12.5},
        },
    }


def square(x, y, edge):
    return [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]


TUMOUR = {"name": "Tumor", "color": [200, 0, 0]}
STROMA = {"name": "Stroma", "colorRGB": -6895466}
QUPATH = {
    "type": "FeatureCollection",
    "features": [
        feature([square(0, 0, 40)], {"name": "Region*", "color": [0, 0, 180]}),
        feature(
            [square(2, 4, 20), square(6, 8, 4)],
            TUMOUR,
            plane={"c": -1, "z": 0, "t": 0},
        ),
        feature([[square(30, 0, 4)], [square(30, 8, 4)]], STROMA, "MultiPolygon"),
        feature([square(20, 30, 6)], {"names": ["Tumor", "Positive"]}),
        feature([square(21, 31, 2)], {"name": "Ignore*"}),
        feature([square(0, 0, 9)], TUMOUR, plane={"c": -1, "z": 3, "t": 0}),
        feature([square(0, 0, 9)], None),
        feature([5, 5], TUMOUR, "Point"),
    ],
}


def write(tmp_path, content, name="a.geojson"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_qupath_writes(tmp_path):
    file = read_geojson(write(tmp_path, QUPATH))
    assert file.class_names == ("background", "Tumor", "Stroma", "Tumor: Positive")
    annotations = file.annotations()
    found = annotations.rasterise(Box((0, 0), (50, 50)), (50, 50))
    wanted = np.zeros((50, 50), np.uint8)
    wanted[:40, :40] = 1  # unmarked places of the region are background
    wanted[4:24, 2:22] = 2
    wanted[8:12, 6:10] = 1  # the hole
    wanted[0:4, 30:34] = wanted[8:12, 30:34] = 3
    wanted[30:36, 20:26] = 4
    wanted[31:33, 21:23] = 0  # taken away
    np.testing.assert_array_equal(found, wanted)
    for part in ("on other planes", "without a class", "no areas (Point)"):
        assert part in annotations.note
    assert file.colors["Tumor"] == "#c80000"
    assert file.colors["Stroma"] == "#96c896"


def test_another_plane(tmp_path):
    file = read_geojson(write(tmp_path, QUPATH), plane=(3, 0))
    # QuPath leaves the first plane unsaid.
    (only,) = file.outlines
    assert only.vertices.max() == 9
    # Where no area names a plane, they lie on all of them.
    path = write(tmp_path, feature([square(0, 0, 9)], TUMOUR))
    assert len(read_geojson(path, plane=(3, 0)).outlines) == 1


@pytest.mark.parametrize(
    "content", [QUPATH["features"], QUPATH["features"][1]], ids=["list", "feature"]
)
def test_a_list_and_a_single_feature(tmp_path, content):
    assert "Tumor" in read_geojson(write(tmp_path, content)).class_names


def test_collections_of_geometries(tmp_path):
    parts = [{"type": "Polygon", "coordinates": [square(k, 0, 3)]} for k in (0, 10)]
    content = feature(None, TUMOUR, "GeometryCollection", geometries=parts)
    assert len(read_geojson(write(tmp_path, content)).outlines) == 2


def test_names_choose_the_labels(tmp_path):
    file = read_geojson(write(tmp_path, QUPATH))
    names = ("Stroma", "tumor", "Tumor: Positive", "Background")
    found = file.annotations(names).rasterise(Box((0, 0), (50, 50)), (50, 50))
    assert found[5, 3] == 2
    assert found[0, 30] == 1
    assert found[39, 39] == 4
    with pytest.raises(AnnotationError, match=r"'Stroma'.*not among.*Tumor"):
        file.annotations(("Tumor", "background"))


def test_classes_of_several_files_are_numbered_together(tmp_path):
    one = read_geojson(write(tmp_path, feature([square(0, 0, 9)], STROMA), "1.json"))
    two = read_geojson(write(tmp_path, QUPATH, "2.json"))
    assert class_names_of([one, two]) == (
        "background", "Stroma", "Tumor", "Tumor: Positive",
    )  # fmt: skip
    assert class_names_of([]) is None


rings = st.lists(
    st.tuples(*[st.floats(-1e6, 1e6, allow_nan=False)] * 2),
    min_size=3,
    max_size=12,
    unique=True,
)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), rings, st.lists(rings, max_size=2)), max_size=5
    )
)
@settings(max_examples=50, deadline=None)
def test_round_trips_are_exact(tmp_path_factory, items):
    polygons = [
        Polygon(label, np.array(outer), tuple(np.array(h) for h in holes))
        for label, outer, holes in items
    ]
    names, colors = ("a", "b", "c"), ("#010203", "#ffffff", "#a0b0c0")
    path = tmp_path_factory.mktemp("geojson") / "a.geojson"
    write_geojson(Annotations(polygons, names, colors), path)
    found = read_geojson(path).annotations(names)
    assert len(found.items) == len(polygons)
    for item, wanted in zip(found.items, polygons, strict=True):
        assert item.label == wanted.label
        np.testing.assert_array_equal(item.vertices, wanted.vertices)
        assert len(item.holes) == len(wanted.holes)
        for ring, other in zip(item.holes, wanted.holes, strict=True):
            np.testing.assert_array_equal(ring, other)
    if {p.label for p in polygons} >= {1, 2, 3}:
        assert found.class_colors == colors


def test_what_it_writes_has_qupaths_schema(tmp_path):
    polygon = Polygon(1, np.array([[0, 0], [0, 5.5], [4, 5]]))
    path = tmp_path / "a.geojson"
    write_geojson(Annotations((polygon,), ("Tumor",), ("#c80000",)), path)
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    (only,) = content["features"]
    assert only["type"] == "Feature"
    assert only["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
    }
    assert only["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[0, 0], [5.5, 0], [5, 4], [0, 0]]],
        "plane": {"c": -1, "z": 0, "t": 0},
    }
    assert len(only["id"]) == 36


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no GeoJSON"),
        ("{", "is no GeoJSON"),
        ("[" * 100_000, "is no GeoJSON"),
        ("12", "is no GeoJSON"),
        ('{"type": "FeatureCollection"}', "is no GeoJSON"),
        ("[1]", "no feature"),
        ([feature([[[0, 0], [1, 1]]], TUMOUR)], "ring of 2 points"),
        ([feature([[[0, 0], [1, 1], [0, 0]]], TUMOUR)], "ring of 2 points"),
        ([feature(None, TUMOUR)], "no coordinates"),
        ([feature([[["a", 0], [1, 1], [2, 0]]], TUMOUR)], "no pairs of numbers"),
        ([feature([[[0], [1], [2]]], TUMOUR)], "ring of"),
        ([feature([["12", "34", "56"]], TUMOUR)], "no pairs of numbers"),
        ([feature([[{}, {}, {}]], TUMOUR)], "no pairs of numbers"),
        ([feature([[[0, 0], [1], [2, 0]]], TUMOUR)], "no pairs of numbers"),
        (
            '[{"type": "Feature", "properties": {"classification": "a"}, "geometry": '
            '{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [2, 0]]]}}]',
            "finite",
        ),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as error:
        read_geojson(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_odd_entries_are_left_out(tmp_path):
    content = [
        {"type": "Feature", "geometry": None, "properties": {"classification": "a"}},
        {"type": "Feature", "geometry": {"type": "Polygon"}, "properties": None},
        {"type": "Feature", "geometry": {"type": "Polygon"}, "properties": 5},
        feature([square(0, 0, 2)], {"name": 12, "color": "red"}),
        feature([], TUMOUR),
        feature([], TUMOUR, "MultiPolygon"),
    ]
    file = read_geojson(write(tmp_path, content))
    assert file.class_names == ("12",)
    assert "2 features without a geometry" in file.note
    assert "2 features without an area" in file.note


def test_self_crossings_and_open_rings_are_filled(tmp_path):
    bow = [[0, 0], [8, 8], [8, 0], [0, 8]]
    annotations = read_geojson(
        write(tmp_path, feature([bow], {"name": "a"}))
    ).annotations()
    found = annotations.rasterise(Box((0, 0), (8, 8)), (8, 8))
    assert found[4, 7] == found[4, 0] == 1
    assert found[0, 4] == found[7, 4] == 0


def test_a_million_vertices(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 400 + 500
    path = write(tmp_path, feature([ring.tolist()], {"name": "a"}))
    annotations = read_geojson(path).annotations()
    found = annotations.rasterise(Box((0, 0), (1000, 1000)), (250, 250))
    assert found.sum() * 16 == pytest.approx(np.pi * 400**2, rel=0.01)


def test_files_that_are_not_there_or_cannot_be_written(tmp_path):
    with pytest.raises(ImageNotFoundError):
        read_geojson(tmp_path / "none.geojson")
    polygon = Polygon(1, np.array([[0, 0], [0, 5], [4, 5]]))
    with pytest.raises(OutputError):
        write_geojson(Annotations((polygon,)), tmp_path / "none" / "a.geojson")
    volume = Annotations.from_labels(np.ones((4, 4, 4), np.uint8), ndim=3)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(AnnotationError, match="can be outlined"):
        write_geojson(volume, tmp_path / "a.geojson")
    with pytest.raises(OutputError, match="cannot be written"):
        write_geojson(Annotations((polygon,)), folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert is_geojson("x/a.GeoJSON")
    assert not is_geojson(np.zeros(3))


def test_upper_and_lower_case_are_the_same_class(tmp_path):
    # "Background" beside "Region*" made a second, empty class of that name.
    content = [
        feature([square(0, 0, 40)], {"name": "region*"}),
        feature([square(0, 0, 4)], {"name": "Tumour"}),
        feature([square(9, 9, 4)], {"name": "tumour"}),
        feature([square(20, 20, 4)], {"name": "Background", "color": [1, 2, 3]}),
    ]
    path = write(tmp_path, content)
    file = read_geojson(path)
    assert file.class_names == ("Background", "Tumour")
    assert class_names_of([file, file]) == ("Background", "Tumour")
    found = file.annotations().rasterise(Box((0, 0), (40, 40)), (40, 40))
    assert np.bincount(found.ravel()).tolist() == [0, 1600 - 32, 32]
    (shared, _) = read_named([path, path])
    assert shared.annotations(("tumour", "background")).class_colors is None


@pytest.mark.parametrize("name", ["a*", "A", " "])
def test_names_that_would_come_back_as_something_else_are_not_written(tmp_path, name):
    polygon = Polygon(1, np.array([[0, 0], [0, 5], [4, 5]]))
    with pytest.raises(AnnotationError, match="cannot be written as GeoJSON"):
        write_geojson(Annotations((polygon,), ("a", name)), tmp_path / "a.geojson")


def test_a_region_keeps_the_colour_of_its_class(tmp_path):
    area = Polygon(1, np.array([[0, 0], [0, 5], [4, 5]]))
    names, colors = ("background", "a"), ("#010203", "#040506")
    items = (Region(area), Polygon(2, area.vertices))
    write_geojson(Annotations(items, names, colors), tmp_path / "a.geojson")
    back = read_geojson(tmp_path / "a.geojson").annotations()
    assert (back.class_names, back.class_colors) == (names, colors)
    with pytest.raises(AnnotationError, match="#rrggbb"):
        write_geojson(Annotations((area,), ("a",), ("red",)), tmp_path / "a.geojson")


@given(
    st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 0.5]), st.integers()
)
@settings(max_examples=60, deadline=None)
def test_a_label_image_comes_back(tmp_path_factory, height, width, scale, seed):
    rng = np.random.default_rng(abs(seed))
    labels = rng.integers(0, 4, (height, width)).astype(np.uint8)
    before = Annotations.from_labels(
        labels, class_names="abc", offset=(-7, 5.5), scale=(scale, 2)
    )
    path = tmp_path_factory.mktemp("g") / "a.geojson"
    write_geojson(before, path)
    after = read_geojson(path).annotations("abc")
    box = Box((-7, 5.5), (-7 + scale * height, 5.5 + 2 * width))
    np.testing.assert_array_equal(after.rasterise(box, labels.shape), labels)


def test_numbers_beyond_all_bounds(tmp_path):
    huge = 10**400
    ring = [[0, 0], [huge, 0], [4, 4]]
    with pytest.raises(AnnotationError, match="no pairs of numbers"):
        read_geojson(write(tmp_path, feature([ring], TUMOUR)))
    text = json.dumps(feature([square(0, 0, 4)], TUMOUR, plane={"z": 7}))
    file = read_geojson(write(tmp_path, text.replace("7", "Infinity")))
    assert len(file.outlines) == 1
    odd = feature(None, TUMOUR, "GeometryCollection", geometries=5)
    assert read_geojson(write(tmp_path, odd)).outlines == ()
