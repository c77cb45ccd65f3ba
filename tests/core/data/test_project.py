"""The project file: on disk when a call returns, whatever happens in between."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_muvit.core.data import project as project_module
from napari_muvit.core.data import project_file
from napari_muvit.core.data.annotations import (
    Annotations,
    BrushMask,
    Ellipse,
    LabelImage,
    Polygon,
    Rectangle,
    Region,
)
from napari_muvit.core.data.item_json import decode_item, decode_items, encode_item
from napari_muvit.core.data.open import open_pyramid
from napari_muvit.core.data.project import Project
from napari_muvit.core.data.project_log import is_project, read_log, write_line
from napari_muvit.core.errors import (
    AnnotationError,
    ImageNotFoundError,
    OutputError,
)
from napari_muvit.core.geometry import Box

MASK = np.random.default_rng(0).random((9, 13)) < 0.4
ITEMS = (
    Region(Rectangle(1, (0, 0), (40, 44.5))),
    Polygon(2, [(1.1, 2), (20, 3), (9, 30)], ([(5, 5), (9, 5), (9, 9)],)),
    Ellipse(3, (20, 22), (8, 5.25), 33),
    BrushMask(2, MASK, (4.5, 3), (2, 1)),
    Polygon(0, [(10, 10), (30, 10), (30, 20)]),
    Region(BrushMask(1, MASK, (20, 20))),
)
NAMES, COLORS = ("background", "a", "b"), ("#000000", "#ff0000", "#00ff00")
BOX = Box((0, 0), (48, 48))


def new(folder, name="a.muvit.jsonl", **more):
    options = {"slide": "a.svs", "class_names": NAMES, "class_colors": COLORS}
    return Project.create(folder / name, **(options | more))


def raster(source):
    marks = source if isinstance(source, Annotations) else source.annotations()
    return marks.rasterise(BOX, (48, 48))


def state(project):
    """Everything that a reopened project must have again."""
    items = {k: json.dumps(encode_item(v)) for k, v in project.items.items()}
    inner = project._state
    return (
        items,
        project.class_names,
        project.class_colors,
        [*inner.done],
        [*inner.undone],
    )


def edited(project):
    """A history with every operation; the state after each line."""
    states = [state(project)]
    for step in (
        lambda: project.add(ITEMS[0]),
        lambda: project.add(ITEMS[1]),
        lambda: project.add(ITEMS[3]),
        lambda: project.replace(2, ITEMS[2]),
        project.undo,
        lambda: project.remove(1),
        lambda: project.set_classes(("x", "y", "z")),
        project.undo,
        project.undo,
        project.redo,
        lambda: project.add(ITEMS[4]),
    ):
        step()
        states.append(state(project))
    return states


def test_items_come_back_exactly(tmp_path):
    with new(tmp_path, pixel_size=(0.25, 0.5)) as project:
        ids = project.extend(ITEMS)
        wanted = raster(project)
    np.testing.assert_array_equal(wanted, raster(Annotations(ITEMS)))
    with Project.open(project.path) as again:
        assert (again.slide, again.pixel_size) == ("a.svs", (0.25, 0.5))
        assert (again.class_names, again.class_colors) == (NAMES, COLORS)
        assert list(again.items) == ids
        assert again.note == ""
        np.testing.assert_array_equal(raster(again), wanted)
        np.testing.assert_array_equal(again.items[4].mask, ITEMS[3].mask)
    # Every line is JSON by itself.
    lines = project.path.read_text().splitlines()
    assert [json.loads(line)[1]["n"] for line in lines] == list(range(7))


def test_undo_history_survives_and_order_is_that_of_adding(tmp_path):
    with new(tmp_path) as project:
        first, second = (project.add(item) for item in ITEMS[1:3])
        before = raster(project)
        project.remove(first)
        project.replace(second, ITEMS[4])
        after = raster(project)
    with Project.open(project.path) as project:
        assert project.undo()
        assert project.undo()
        np.testing.assert_array_equal(raster(project), before)
        assert list(project.items) == [first, second]
    with Project.open(project.path) as project:
        assert project.redo()
        assert project.redo()
        assert not project.redo()
        np.testing.assert_array_equal(raster(project), after)
        project.undo()
        project.add(ITEMS[0])
        assert not project.can_redo
        while project.undo():
            pass
        assert not project.items
        assert project.can_redo


def test_every_prefix_opens_to_the_state_after_its_last_whole_line(tmp_path):
    project = new(tmp_path)
    states = edited(project)
    project.close()
    content = project.path.read_bytes()
    path = tmp_path / "b.muvit.jsonl"
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        with Project.open(path) as found:
            if whole:
                assert state(found) == states[whole - 1]
            cut = length > 0 and content[length - 1] != 10
            assert bool(found.note) == cut
            # The next write cuts off what is left of the last line.
            if length % 7 == 0:
                found.add(ITEMS[2])
                wanted = state(found)
                assert path.read_bytes().endswith(b"\n")
        if length % 7 == 0:
            with Project.open(path) as again:
                assert state(again) == wanted
                assert again.note == ""
    assert not list(tmp_path.glob("*.damaged*"))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_line_costs_that_line_only(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("p")
    with new(folder) as project:
        ids = project.extend(ITEMS)
    content = bytearray(project.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v not in (content[at], 10)))
    hit = content[:at].count(b"\n")
    cut_off = content[at] == 10 and hit == len(ITEMS)
    glued = content[at] == 10
    content[at] = value
    project.path.write_bytes(content)
    lines = (hit, hit + 1) if glued else (hit,)
    lost = {ids[k - 1] for k in lines if 0 < k <= len(ids)}
    with Project.open(project.path) as found:
        assert set(found.items) == set(ids) - lost
        assert ("cut off" if cut_off else "damaged") in found.note
        assert found.annotations().note.startswith("a.muvit.jsonl: ")
        assert project.path.read_bytes() == content
        new_id = found.add(ITEMS[2])
    copy = project.path.with_name("a.muvit.jsonl.damaged")
    if not cut_off:
        assert copy.read_bytes() == content
    with Project.open(project.path) as again:
        assert set(again.items) == (set(ids) - lost) | {new_id}
        assert again.note == ""
        assert again.class_names == (() if hit == 0 else NAMES)


def test_undo_beyond_a_damaged_line(tmp_path):
    with new(tmp_path) as project:
        project.extend(ITEMS[:3])
        project.undo()
        project.undo()
    lines = project.path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\0" * 20 + b"\n"  # the third item, the first to be undone, is line 4
    lines[2] = lines[2][:-9] + lines[2][-8:]
    project.path.write_bytes(b"".join(lines))
    with Project.open(project.path) as found:
        # The undone items are damaged: there is nothing to undo them from.
        assert list(found.items) == [1]
        found.compact()
        assert list(found.items) == [1]
    assert (tmp_path / "a.muvit.jsonl.damaged").read_bytes() == b"".join(lines)


def test_a_second_writer_is_refused(tmp_path):
    with new(tmp_path) as project:
        with pytest.raises(OutputError, match="being written by process"):
            Project.open(project.path)
        code = (
            "import sys; from napari_muvit.core.data.project import Project\n"
            "Project.open(sys.argv[1])"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, project.path], capture_output=True, text=True
        )
        assert "being written by process" in run.stderr
        project.add(ITEMS[0])
    with pytest.raises(OutputError, match="was closed"):
        project.add(ITEMS[0])
    project.close()
    with Project.open(project.path) as again:
        del project
        with pytest.raises(OutputError, match="being written"):
            Project.open(again.path)


def test_a_file_that_another_program_has_changed_is_not_written(tmp_path):
    with new(tmp_path) as project:
        project.add(ITEMS[0])
        with project.path.open("a") as file:
            file.write("x\n")
        for change in (lambda: project.add(ITEMS[1]), project.compact):
            with pytest.raises(OutputError, match="changed by another program"):
                change()
        project.path.unlink()
        with pytest.raises(OutputError, match="cannot be written"):
            project.add(ITEMS[1])
        assert list(project.items) == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_leaves_disk_and_memory_as_they_were(tmp_path):
    import resource

    big = BrushMask(1, np.random.default_rng(1).random((300, 300)) < 0.5)
    with new(tmp_path) as project:
        project.add(ITEMS[0])
        before, content = state(project), project.path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 1000, hard))
        try:
            for change in (
                lambda: project.add(big),
                lambda: project.extend([ITEMS[1], big]),
            ):
                with pytest.raises(OutputError, match="Free the disk"):
                    change()
                assert project.path.read_bytes() == content
            assert state(project) == before
            project.add(ITEMS[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        project.add(big)
        wanted = state(project)
    with Project.open(project.path) as again:
        assert state(again) == wanted


def test_a_line_that_cannot_be_taken_back_is_cut_off_later(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with new(tmp_path) as project:
        project.add(ITEMS[0])
        end = project.path.stat().st_size
        real = os.ftruncate
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(project_file.os, "fsync", fail)
            patch.setattr(
                project_file.os,
                "ftruncate",
                lambda *a: calls.append(a) or (fail() if len(calls) > 1 else real(*a)),
            )
            with pytest.raises(OutputError, match="No space left"):
                project.add(ITEMS[1])
        assert project.path.stat().st_size > end
        assert list(project.items) == [1]
        project.add(ITEMS[2])
        wanted = state(project)
    with Project.open(project.path) as again:
        assert state(again) == wanted


def test_compaction_keeps_the_state_and_the_last_edits(tmp_path, monkeypatch):
    with new(tmp_path) as project:
        item = project.add(ITEMS[1])
        for k in range(300):
            project.replace(item, Rectangle(2, (k, k), (5, 5)))
        project.add(ITEMS[2])
        project.undo()
        project.undo()
        wanted, size = raster(project), project.path.stat().st_size
        project.compact(keep=3)
        assert project.path.stat().st_size < size / 10
        np.testing.assert_array_equal(raster(project), wanted)
        assert [project.redo() for _ in range(3)] == [True, True, False]
        assert [project.undo() for _ in range(6)] == [True] * 5 + [False]
        assert project.items[item].corner == (295, 295)
    with Project.open(project.path) as again:
        assert again.items[item].corner == (295, 295)
        # Where the disk is full, the file stays as it was.
        content = project.path.read_bytes()
        monkeypatch.setattr(project_file.os, "fsync", _full)
        with pytest.raises(OutputError, match="Free the disk"):
            again.compact()
        assert project.path.read_bytes() == content
    assert not list(tmp_path.glob("*.part"))


def _full(*_):
    raise OSError(28, "No space left on device")


def test_a_long_history_is_compacted_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(project_module, "KEPT_EDITS", 10)
    with new(tmp_path) as project:
        for _ in range(30):
            item = project.add(ITEMS[1])
            project.remove(item)
        assert len(project.path.read_bytes().splitlines()) < 25
        assert project.add(ITEMS[2]) == 31


def test_classes(tmp_path):
    with new(tmp_path) as project:
        project.add(ITEMS[2])
        with pytest.raises(AnnotationError, match="only 3 classes"):
            project.add(Rectangle(4, (0, 0), (1, 1)))
        with pytest.raises(AnnotationError, match="has the class 3"):
            project.set_classes(("a", "b"))
        with pytest.raises(AnnotationError, match="told apart"):
            project.set_classes(("a", "b", "A"))
        with pytest.raises(AnnotationError, match="one colour"):
            project.set_classes(("a", "b", "c"), ("#000000",))
        project.set_classes(("a", "b", "c", "d"))
        project.add(Rectangle(4, (0, 0), (1, 1)))
        assert project.annotations().class_names == ("a", "b", "c", "d")
        assert project.annotations().class_colors is None


def test_what_is_no_project_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "a.muvit.jsonl"
    newer = {"n": 0, "format": "napari-muvit annotations", "version": 2}
    for content in (
        b"hello",
        b'["hello',
        b"{}\n{}\n",
        b'["01234567",{"n":0,"format":"something else"',
        pickle.dumps({"a": 1}),
        b"\0" * 5000,
        os.urandom(5000) + b"\n",
        json.dumps({"type": "FeatureCollection", "features": []}).encode(),
        write_line(newer),
        write_line({"n": 0, "format": "x", "version": 1, "op": "add"}),
    ):
        path.write_bytes(content)
        with pytest.raises(AnnotationError, match=r"no annotation project|version 2"):
            Project.open(path)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(OutputError, match="exists already"):
        new(tmp_path)
    with pytest.raises(ImageNotFoundError):
        Project.open(tmp_path / "b.muvit.jsonl")
    with pytest.raises(AnnotationError, match="must end with"):
        Project.create(tmp_path / "b.json")
    with pytest.raises(OutputError):
        new(tmp_path / "none")
    assert is_project("x/A.MUVIT.JSONL")
    assert not is_project(np.zeros(3))


def test_what_a_project_cannot_hold(tmp_path):
    with new(tmp_path) as project:
        image = LabelImage(open_pyramid(np.ones((4, 4), np.uint8)))
        with pytest.raises(AnnotationError, match="cannot hold LabelImage"):
            project.add(image)
        for change in (project.remove, lambda k: project.replace(k, ITEMS[0])):
            with pytest.raises(AnnotationError, match="no item of the id 9"):
                change(9)
        assert len(project.path.read_bytes().splitlines()) == 1


def test_entries_that_lie_are_refused(tmp_path):
    good = encode_item(ITEMS[3])

    def packed(count):
        return base64.b64encode(zlib.compress(bytes(count))).decode()

    for wrong, message in (
        ({"shape": [2**20, 2**20]}, "are possible"),
        ({"shape": [-1, 5]}, "whole numbers"),
        ({"shape": [True, 5]}, "whole numbers"),
        ({"shape": 7}, "no readable area"),
        ({"bits": packed(2**26)}, "another number of pixels"),
        ({"bits": packed(1)}, "another number of pixels"),
        ({"bits": "!!"}, "cannot be unpacked"),
        ({"bits": base64.b64encode(b"abc").decode()}, "cannot be unpacked"),
        ({"bits": 7}, "no readable area"),
        ({"bits": packed(15)}, "no painted pixel"),
        ({"scale": [0, 1]}, "larger than 0"),
        ({"label": 2.5}, "whole number"),
        ({"label": None}, "whole number"),
        ({"kind": "spline"}, "does not know"),
        ({"kind": "polygon"}, "no readable area"),
        ({"kind": "polygon", "vertices": [[1, 2], [3]]}, "no readable area"),
        ({"kind": "polygon", "vertices": [[1, 2], [3, 10**400], [1, 1]]}, "readable"),
        ({"kind": "rectangle", "corner": [1], "size": [1, 1]}, "two finite"),
    ):
        entry = {**good, **wrong}
        with pytest.raises(AnnotationError, match=message):
            decode_item(entry)
        # Such a file is not opened, and not changed.
        with new(tmp_path) as project:
            pass
        with project.path.open("ab") as file:
            file.write(write_line({"n": 1, "op": "add", "id": 1, "item": entry}))
        content = project.path.read_bytes()
        with pytest.raises(AnnotationError):
            Project.open(project.path)
        assert project.path.read_bytes() == content
        project.path.unlink()
    assert decode_item(good).label == 2
    many = [{**good, "shape": [2**14, 2**14]}] * 5
    with pytest.raises(AnnotationError, match="together"):
        decode_items(many)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 6) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
KINDS = [encode_item(item) for item in ITEMS]
FIELDS = sorted({name for entry in KINDS for name in entry})
some_item = plain | st.tuples(
    st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), plain, max_size=2)
).map(lambda pair: {**pair[0], **pair[1]})
some_entry = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "item", "replace", "remove", "classes", "undo"])},
    optional={
        "id": st.integers(-1, 4) | plain,
        "of": st.integers(0, 5) | plain,
        "item": some_item,
        "classes": plain | st.fixed_dictionaries({"names": plain, "colors": plain}),
    },
)


@given(
    st.dictionaries(
        st.sampled_from(["slide", "pixel_size", "unit", "classes"]), plain, max_size=1
    ),
    st.lists(some_entry, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_lines_of_any_content_open_or_are_refused(tmp_path_factory, changed, entries):
    path = tmp_path_factory.mktemp("f") / "a.muvit.jsonl"
    new(path.parent).close()
    header = json.loads(path.read_text())[1] | changed
    lines = [header, *({"n": n, **entry} for n, entry in enumerate(entries, 1))]
    texts = [json.dumps(line).encode() for line in lines]
    path.write_bytes(
        b"".join(b'["%08x",%b]\n' % (zlib.crc32(text), text) for text in texts)
    )
    try:
        project = Project.open(path)
    except AnnotationError:
        return
    with project:
        try:
            project.undo()
            wanted = list(project.items)
            project.compact()
            assert list(project.items) == wanted
        except AnnotationError:
            return
    with Project.open(path) as again:
        assert list(again.items) == wanted
        assert not again.note


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_a_link_stays_a_link(tmp_path):
    new(tmp_path).close()
    link = tmp_path / "l.muvit.jsonl"
    link.symlink_to(tmp_path / "a.muvit.jsonl")
    (tmp_path / "a.muvit.jsonl").chmod(0o640)
    with Project.open(link) as project:
        project.add(ITEMS[0])
        with pytest.raises(OutputError, match="being written"):
            Project.open(tmp_path / "a.muvit.jsonl")
        project.compact()
    assert link.is_symlink()
    assert (tmp_path / "a.muvit.jsonl").stat().st_mode & 0o777 == 0o640
    with Project.open(tmp_path / "a.muvit.jsonl") as project:
        assert list(project.items) == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_names_that_lead_to_no_file_are_refused(tmp_path):
    ring = tmp_path / "r.muvit.jsonl"
    ring.symlink_to(ring)
    for name in (ring, f"{tmp_path}/a\0b.muvit.jsonl"):
        for act in (Project.open, Project.create):
            with pytest.raises((AnnotationError, OutputError, ImageNotFoundError)):
                act(name)


WRITER = """
import sys
import numpy as np
from napari_muvit.core.data.annotations import BrushMask, Polygon
from napari_muvit.core.data import project as module
module.KEPT_EDITS = 8
project = module.Project.open(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
print("open", flush=True)
while True:
    if rng.random() < 0.5:
        item = BrushMask(1, rng.random((200, 200)) < 0.5)
    else:
        item = Polygon(1, rng.random((int(rng.integers(3, 2000)), 2)) * 1000)
    print("added", project.add(item), flush=True)
    if rng.random() < 0.3:
        oldest = min(project.items)
        print("removing", oldest, flush=True)
        project.remove(oldest)
        print("removed", oldest, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_20_kills_lose_nothing_that_was_acknowledged(tmp_path):
    new(tmp_path).close()
    path = tmp_path / "a.muvit.jsonl"
    rng = np.random.default_rng(0)
    known, total = set(), 0
    for turn in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(turn)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout.readline() == "open\n"
        try:
            writer.wait(timeout=float(rng.uniform(0.05, 0.8)))
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        said = writer.communicate()[0].splitlines()
        assert writer.returncode == -signal.SIGKILL
        doubtful = set()
        for line in said:
            word, number = line.split()
            item = int(number)
            doubtful.discard(item)
            if word == "added":
                known.add(item)
            elif word == "removing":
                doubtful.add(item)
            else:
                known.discard(item)
        log = read_log(path)
        assert not log.damaged
        found = set(log.state.items)
        assert known - doubtful <= found
        # At most the one item more that was on its way.
        assert len(found - known) <= 1
        known, total = found, total + len(said)
    assert total > 100
    with Project.open(path) as project:
        assert set(project.items) == known
