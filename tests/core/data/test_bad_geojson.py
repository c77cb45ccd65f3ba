"""GeoJSON that is wrong in every way: read rightly, or refused in one line."""

import copy
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data.geojson import read_geojson
from napari_muvit.core.errors import AnnotationError, MuvitError
from napari_muvit.core.geometry import Box

SQUARE = [[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]


def feature(rings=None, name="Tumor", kind="Polygon", geometry=0):
    rings = [SQUARE] if rings is None else rings
    if geometry == 0:
        geometry = {
            "type": kind,
            "coordinates": rings,
            "plane": {"c": -1, "z": 0, "t": 0},
        }
    classification = {"name": name, "color": [200, 0, 0]}
    return {
        "type": "Feature",
        "id": "a2b6c1de-0000-4000-8000-000000000001",
        "geometry": geometry,
        "properties": {"objectType": "annotation", "classification": classification},
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def write(folder, content, name="a.geojson"):
    path = folder / name
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.encode()
    path.write_bytes(content)
    return path


def corner(value):
    return collection(feature([[[0, 0], [value, 0], [40, 40], [0, 40]]]))


COLLECTIONS = '{"type": "GeometryCollection", "geometries": ['
DEEP = COLLECTIONS * 300 + "]}" * 300
BROKEN = {
    "nan": corner(math.nan),
    "infinite": corner(-math.inf),
    "far_away": corner(1e308),
    "long_number": corner(10**400),
    "longer_number": json.dumps(corner(1)).replace("40", "9" * 5000),
    "text": corner("a"),
    "null": corner(None),
    "list": corner([1]),
    "two_points": collection(feature([[[0, 0], [1, 1]]])),
    "empty_hole": collection(feature([SQUARE, []])),
    "one_number": collection(feature([[[0], [1], [2], [3]]])),
    "flat": collection(feature([[0, 1, 2, 3, 4, 5]])),
    "coordinates_text": collection(feature("abc")),
    "part_none": collection(feature([None], kind="MultiPolygon")),
    "number": "5",
    "nothing": b"",
    "features_text": {"type": "FeatureCollection", "features": "abc"},
    "feature_number": {"type": "FeatureCollection", "features": [1]},
    "geometry_alone": {"type": "Polygon", "coordinates": [SQUARE]},
    "deep_lists": "[" * 200_000 + "]" * 200_000,
    "utf16": json.dumps(collection(feature())).encode("utf-16"),
    "latin1": json.dumps(collection(feature(name="ä")), ensure_ascii=False).encode(
        "latin-1"
    ),
    "zeros": b"\0" * 1000,
    "cut": json.dumps(collection(feature()))[:-30],
    "more": json.dumps(collection(feature())) + "x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path, name):
    path = write(tmp_path, BROKEN[name])
    with pytest.raises(AnnotationError) as caught:
        read_geojson(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "a.geojson" in str(caught.value)


ODD = {
    "open_ring": (feature([SQUARE[:-1]]), 1600),
    "crossing": (feature([[[0, 0], [40, 40], [40, 0], [0, 40]]]), 800),
    "backwards": (feature([SQUARE[::-1]]), 1600),
    "line": (feature([[[0, 0], [10, 10], [20, 20]]]), 0),
    "one_place": (feature([[[1, 1]] * 5]), 0),
    "third_coordinate": (feature([[[*p, 7.5] for p in SQUARE]]), 1600),
    "some_third": (feature([[[0, 0], [40, 0, "x"], [40, 40], [0, 40]]]), 1600),
    "hole_is_all": (feature([SQUARE, SQUARE]), 0),
    "hole_outside": (
        feature([SQUARE, [[90, 90], [99, 90], [99, 99]]]),
        1600,
    ),
    "in_collections": (
        feature(
            geometry={
                "type": "GeometryCollection",
                "geometries": [feature()["geometry"], {"type": "Point"}, 5, None],
            }
        ),
        1600,
    ),
    "half_a_character": (feature(name="a\ud800"), 1600),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_areas_are_read(tmp_path, name):
    wanted, area = ODD[name]
    annotations = read_geojson(write(tmp_path, collection(wanted))).annotations()
    labels = annotations.rasterise(Box.from_shape((50, 50)), (50, 50))
    # The crossing's edges run through pixel centres.
    assert abs(int((labels > 0).sum()) - area) <= 40 * (name == "crossing")
    for class_name in annotations.class_names or ():
        class_name.encode()


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        "text",
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
        {"type": ["Polygon"], "coordinates": [SQUARE]},
        {"type": None},
        json.loads(DEEP),
    ],
)
def test_what_is_no_area_is_left_out_and_said(tmp_path, geometry):
    content = collection(feature(geometry=geometry), feature())
    file = read_geojson(write(tmp_path, content))
    assert len(file.outlines) == 1
    assert "left out: 1" in file.note


@pytest.mark.parametrize(
    "color",
    ["red", [1, 2], [1e400, 2, 3], [math.nan, 2, 3], {"r": 1}, [None, 1, 2], 10**40],
)
def test_odd_colours_do_not_matter(tmp_path, color):
    content = collection(feature())
    content["features"][0]["properties"]["classification"]["color"] = color
    file = read_geojson(write(tmp_path, content))
    assert file.class_names == ("Tumor",)


def test_the_last_of_duplicated_keys_and_a_byte_order_mark(tmp_path):
    text = '{"features": [], "type": "FeatureCollection", "features": [{}]}'
    text = text.replace("{}", json.dumps(feature()))
    path = write(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert len(read_geojson(path).outlines) == 1


@pytest.mark.parametrize("count", [10**5, pytest.param(10**6, marks=pytest.mark.slow)])
def test_many_vertices_take_seconds(reader, tmp_path, count):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    ring = np.stack([500 + 400 * np.cos(angle), 500 + 400 * np.sin(angle)], axis=1)
    path = write(tmp_path, collection(feature([ring.round(2).tolist()])))
    outcome = reader.read(path)
    assert (outcome.kind, outcome.is_fine) == ("read", True), outcome
    assert outcome.nbytes < 2**30


def test_twenty_thousand_areas_take_seconds(tmp_path):
    places = np.random.default_rng(0).random((20_000, 2)).round(3) * 5000
    small = np.array([[0, 0], [3, 0], [3, 3]])
    features = [
        feature([(place + small).tolist()], f"class {k % 5}")
        for k, place in enumerate(places)
    ]
    path = write(tmp_path, collection(*features))
    start = time.perf_counter()
    annotations = read_geojson(path).annotations()
    assert time.perf_counter() - start < 10
    assert len(annotations.items) == 20_000


def test_a_text_of_a_hundred_megabytes(reader, tmp_path):
    path = write(tmp_path, {**collection(feature()), "other": "x" * 10**8})
    outcome = reader.read(path)
    assert (outcome.kind, outcome.is_fine) == ("read", True), outcome


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[1, 2]]),
    st.just([[[1, 2]]]),
    st.just({"type": "Polygon"}),
)
QUPATH = collection(
    feature(name="Region*"),
    feature([SQUARE, [[5, 5], [9, 5], [9, 9]]]),
    feature([[SQUARE], [SQUARE]], kind="MultiPolygon"),
    feature(name="Ignore*"),
)


def places(content, path=()):
    """Paths of all entries of nested lists and mappings."""
    yield path
    items = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield from places(value, (*path, key))


PLACES = [path for path in places(QUPATH) if path]


def complaint(path):
    """What is said when a file is read; any other error passes through."""
    try:
        annotations = read_geojson(path).annotations()
        annotations.rasterise(Box.from_shape((50, 50)), (25, 25))
    except MuvitError as error:
        return str(error)
    return ""


@given(st.lists(st.tuples(st.sampled_from(PLACES), SCALARS), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_wrong_types_anywhere(tmp_path_factory, changes):
    content = copy.deepcopy(QUPATH)
    for path, value in changes:
        parent = content
        try:
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    path = write(tmp_path_factory.getbasetemp(), content, "mutated.geojson")
    assert "\n" not in complaint(path)
