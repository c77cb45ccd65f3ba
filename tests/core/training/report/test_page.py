"""The report of a run: one page that stands alone, whatever names and numbers say."""

from __future__ import annotations

import base64
import html
import io
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_muvit._commands.parser import build_parser
from napari_muvit.core.config import ModelConfig, TrainingConfig
from napari_muvit.core.errors import OutputError
from napari_muvit.core.presets import PRESETS
from napari_muvit.core.training.report.examples import Example, ExampleSet
from napari_muvit.core.training.report.html import (
    STYLE,
    brief,
    count,
    duration,
    percent,
    setting,
    text,
)
from napari_muvit.core.training.report.page import (
    report_page,
    write_curves,
    write_report,
)
from napari_muvit.core.training.report.pictures import Panel
from napari_muvit.core.training.report.record import RunRecord, SlideRecord, StepLosses
from napari_muvit.core.training.report.settings import compare_settings

HARD = "<script>alert(\"1\")</script> & 'x' \u202e\x00 </table>"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed, and keeps what a reader would see."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[np.ndarray] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.codes: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.codes.append("")
        if tag in ("td", "th"):
            self.cells.append("")
        for name, value in attrs:
            if name in ("src", "href", "data", "srcset", "action"):
                self.links.append(value)
            assert not name.startswith("on")
        if tag == "img":
            values = dict(attrs)
            assert values["alt"]
            data = base64.b64decode(values["src"].split(",")[1])
            self.images.append(np.asarray(Image.open(io.BytesIO(data))))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if "pre" in self.open:
            self.codes[-1] += data
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def record(names=("background", "outer", "inner"), **changes) -> RunRecord:
    model = ModelConfig.from_dict(
        {**PRESETS["tiny"].model, "num_classes": len(names), "class_names": names,
         "background": 1}
    )  # fmt: skip
    training = TrainingConfig.from_dict({**PRESETS["tiny"].training, "seed": 7})
    values = {
        "kind": "finetune",
        "model": model.to_dict(),
        "training": training.to_dict(),
        "model_path": "models/my model",
        "slides": (
            SlideRecord(name="one", path="a b.tif", labels="l.tif", shape=(100, 200),
                        annotated=(9000, 700, 300), pixel_size=(0.5, 0.5)),
            SlideRecord(name="two", path="c.tif", labels="m.tif", shape=(100, 100),
                        role="validation", annotated=(5, 6, 7)),
        ),
        "history": ({"step": 10.0, "val_loss": 0.5, "mDSC": 0.625},),
        "best": {"step": 10.0, "val_loss": 0.5, "mDSC": 0.625},
        "losses": StepLosses(step=(1, 2), loss=(1.0, 0.5), learning_rate=(0.1, 0.1)),
        # 80 of 100 outer pixels found; 20 were taken for inner ones.
        "confusion": ((0, 9, 9, 9), (0, 400, 0, 0), (0, 0, 80, 20), (0, 0, 40, 60)),
        "steps": 10,
        "seconds": 83.0,
        "cpu_seconds": 160.0,
        "stopped": "steps",
        **changes,
    }  # fmt: skip
    return RunRecord(**values)


def examples(name: str = "one") -> ExampleSet:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[0, 0] = (1, 2, 3)
    panel = Panel(f"title {name}", picture, f"note {name}", color="#123456")
    return ExampleSet(
        items=(Example(name, f"place {name}", ((panel, panel),)),),
        legend=((f"class {name}", "#00ff00"),),
        caption=f"caption {name}",
        note=f"few {name}",
    )


def page_of(made: RunRecord, shown: ExampleSet | None = None) -> Page:
    return Page(report_page(made, PNG, shown))


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, format="png")
    return buffer.getvalue()


PNG = _png()


def test_two_files_are_written(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "model", record(), examples())
    assert path == tmp_path / "new" / "model" / "report.html"
    assert (path.parent / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "curves.png", "report.html",
    ]  # fmt: skip
    page = Page(path.read_text(encoding="utf-8"))
    with Image.open(path.parent / "curves.png") as curves:
        assert page.images[0].shape[:2] == curves.size[::-1]
    assert page.images[1][0, 0].tolist() == [1, 2, 3]


def test_the_curves_alone_can_be_written_again_and_again(tmp_path: Path) -> None:
    first = write_curves(tmp_path, record(history=(), best={})).read_bytes()
    path = write_curves(tmp_path, record())
    assert path == tmp_path / "curves.png"
    assert path.read_bytes() != first
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file", record())


def test_the_page_stands_alone() -> None:
    content = report_page(record(), PNG, examples())
    page = Page(content)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object", "form", "base", "a"}
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "default-src 'none'" in html.unescape(content)
    assert "prefers-color-scheme: dark" in STYLE
    assert "@media print" in STYLE


def test_figures_are_those_of_the_record() -> None:
    page = page_of(record(), examples())
    said = page.text
    for words in (
        "my model", "0.625 mDSC in validation", "10 steps", "1 min 23 s",
        "2 min 40 s of CPU time", "1 slide to train on, 1 to validate on",
        "10 k annotated pixels for training", "90.0 % of the validation",
        "The weights of step 10 were kept", "limit of steps", "caption one", "few one",
    ):  # fmt: skip
        assert words in said
    cells = [cell.replace("\u202f", " ") for cell in page.cells]
    row = cells.index("outer", cells.index("mostly taken for"))
    # Dice of outer: 2 * 80 / (100 + 120).
    assert cells[row : row + 8] == [
        "outer", "700", "7.0 %", "100", "0.727", "80.0 %", "66.7 %", "inner 20.0 %",
    ]  # fmt: skip
    row = cells.index("3 inner")
    assert cells[row : row + 5] == ["3 inner", "·", "40.0", "60.0", "100"]
    row = cells.index("onea b.tif")
    assert cells[row : row + 8] == [
        "onea b.tif", "training", "100 × 200", "0.5 µm", "50.0 %", "9 k", "700", "300",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_no_name_breaks_the_page(kind: str) -> None:
    names = ("background", HARD, "b")
    hostile = record(
        names, kind=kind, model_path=f"x/{HARD}", notes=(HARD,) * 20, device=HARD,
        started=HARD, validation=HARD, start=HARD, stopped=HARD, version=HARD,
        software={HARD: HARD}, command=("napari-muvit", HARD, "--out", HARD),
        slides=(SlideRecord(name=HARD, path=HARD, unit=HARD, pixel_size=(1.0,)),),
        training={HARD: HARD, "seed": HARD}, preset=HARD,
        history=({"step": 1.0, f"error {HARD}": 0.5},), best={f"error {HARD}": 0.5},
    )  # fmt: skip
    content = report_page(hostile, PNG, examples(HARD))
    page = Page(content)
    assert "script" not in page.tags
    assert "\x00" not in content
    assert "\u202e" not in content
    assert page.text.count("<script>") > 15
    assert HARD.replace("\x00", "\ufffd").replace("\u202e", "\ufffd") in page.text


@given(st.text())
def test_any_text_is_read_as_it_is(words: str) -> None:
    shown = text(words)
    assert not re.search("[<>\"']", shown)
    assert len(html.unescape(shown)) == len(words)
    plain = "".join(c for c in words if c.isalnum() or c in "<>&'\" ")
    assert html.unescape(text(plain)) == plain


@pytest.mark.parametrize(
    "made",
    [
        RunRecord(kind="finetune", model={}, training={}),
        RunRecord(kind="pretrain", model={}, training={}),
        record(confusion=None, history=(), best={}, slides=()),
        record(confusion=((0,) * 4,) * 4),
        record(confusion=((1, 2), (3, 4))),
        record(best={"step": 10.0, "mDSC": math.nan}, seconds=math.nan),
        record(slides=(SlideRecord(name="array", annotated=(1,)),)),
        record([f"c{n}" for n in range(60)], confusion=((1,) * 61,) * 61),
        record(model={"class_names": ["a"], "unknown": 1}, confusion=((0, 0), (0, 0))),
    ],
    ids=["nothing", "no pretraining", "no validation", "nothing counted", "unfitting",
         "no numbers", "array", "sixty classes", "another version"],
)  # fmt: skip
def test_a_page_is_made_of_whatever_there_is(made: RunRecord) -> None:
    for shown in (None, ExampleSet(), examples()):
        page = page_of(made, shown)
        assert "nan" not in page.text.lower().split()
        assert "How to use the model" in page.text


def test_many_classes_have_their_largest_mistakes() -> None:
    size = 61
    confusion = np.eye(size, dtype=int) * 100
    confusion[5, 9], confusion[7, 2] = 30, 60
    names = [f"c{n}" for n in range(1, size)]
    page = page_of(record(names, confusion=tuple(map(tuple, confusion.tolist()))))
    cells = page.cells[page.cells.index("taken for") :]
    assert cells[3:11] == [
        "c7", "c2", "60", "37.5\u202f%", "c5", "c9", "30", "23.1\u202f%",
    ]  # fmt: skip
    # Of 60 classes with 2 mistakes, there are two rows; then come the settings.
    assert cells[11:13] == ["of", "setting"]


def test_settings_that_differ_come_first() -> None:
    found = compare_settings(record())
    assert found.preset == "tiny"
    assert found.model == ()
    assert [(c.name, c.value, c.usual) for c in found.training] == [("seed", 7, 0)]
    page = page_of(record())
    at = page.cells.index("setting")
    assert page.cells[at - 1 : at + 7] == [
        "of", "setting", "here", "in tiny", "training", "seed", "7", "0",
    ]  # fmt: skip
    # Channels, classes and what else follows from the data is no difference.
    small = record(preset="small")
    names = {c.name for c in compare_settings(small).model}
    assert names == {"scale_factors", "embed_dim", "depth", "num_heads", "decoder_dim",
                     "mae_dim", "pyramid_channels"}  # fmt: skip


def test_settings_of_another_version_are_shown_all_the_same() -> None:
    other = record(model={"class_names": [], "num_classes": "many", "new": 5})
    assert compare_settings(other).preset == ""
    assert {"new", "5"} <= set(page_of(other).cells)


def test_pretraining_is_compared_with_its_own_preset() -> None:
    training = {**TrainingConfig(steps=3).to_dict(), **PRESETS["tiny"].pretraining}
    made = record(kind="pretrain", training={**training, "clip_norm": 9.0})
    changes = compare_settings(made).training
    assert {(c.name, c.value, c.usual) for c in changes} == {
        ("clip_norm", 9.0, 0.5), ("steps", 3, None),
    }  # fmt: skip


def commands_of(made: RunRecord) -> list[list[str]]:
    said = page_of(made)
    # A shell takes a backslash at the end of a line away, and goes on.
    codes = [shlex.split(code.replace("\\\n", "")) for code in said.codes]
    # Behind those that say how to use the model.
    return codes[2:]


def test_the_run_can_be_repeated_from_the_page() -> None:
    given_ = ("napari-muvit", "finetune", "--images", "a b.tif", "it's", "--out", "m")
    stored = ["napari-muvit", "finetune", "--config", "my model/config.yaml", "--out",
              "NEW_MODEL"]  # fmt: skip
    assert commands_of(record(command=given_)) == [list(given_)]
    settings = {"config_file": "my model/config.yaml"}
    assert commands_of(record(**settings)) == [stored]
    assert commands_of(record(**settings, command=given_)) == [stored, list(given_)]
    assert commands_of(record()) == [[
        "napari-muvit", "finetune", "--images", "a b.tif", "--labels", "l.tif",
        "--val-images", "c.tif", "--val-labels", "m.tif", "--out", "NEW_MODEL",
    ]]  # fmt: skip
    assert commands_of(record(kind="pretrain")) == [[
        "napari-muvit", "pretrain", "a b.tif", "--val-images", "c.tif", "--out",
        "NEW_MODEL",
    ]]  # fmt: skip


@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_the_command_takes_what_the_page_says(kind: str) -> None:
    made = record(kind=kind)
    shown = [shlex.split(code.replace("\\\n", "")) for code in page_of(made).codes]
    shown += commands_of(record(kind=kind, config_file="m/config.yaml"))
    commands = [words[1:] for words in shown if words[0] == "napari-muvit"]
    assert len(commands) == 3
    for words in commands:
        # Placeholders such as IMAGE... are paths to the parser; errors would exit.
        assert callable(build_parser().parse_args(words).run)


def test_arrays_in_memory_have_no_command() -> None:
    arrays = {"slides": (SlideRecord(name="array"),)}
    assert commands_of(record(**arrays)) == []
    assert "arrays in memory" in page_of(record(**arrays)).text
    said = page_of(record(**arrays, config_file="config.yaml")).text
    assert "given as arrays have no path" in said


def test_the_model_can_be_used_from_the_page() -> None:
    said = page_of(record()).text
    assert "napari-muvit predict IMAGE --model 'models/my model' --out DIR" in said
    said = page_of(record(kind="pretrain")).text
    assert "--start 'models/my model' --out NEW_MODEL" in said


def test_numbers_are_written_for_people() -> None:
    assert count(1234567) == "1\u202f234\u202f567"
    assert brief(1234567) == "1.23\u202fM"
    assert brief(999) == "999"
    assert percent(0.1234) == "12.3\u202f%"
    assert [duration(s) for s in (0.44, 59, 59.7, 3600, 90061)] == [
        "0.4 s", "59 s", "1 min 0 s", "1 h 0 min", "1 d 1 h",
    ]  # fmt: skip
    assert {count(math.nan), percent(math.inf), duration(math.nan)} == {"–"}
    assert [setting(v) for v in (None, True, 1e-4, (1, 2.5), {"a": 1}, [])] == [
        "none", "yes", "0.0001", "1, 2.5", '{"a": 1}', "none",
    ]  # fmt: skip
