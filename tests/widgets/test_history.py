"""Steps that are taken back and done again."""

from __future__ import annotations

from functools import partial

from napari_muvit.widgets.history import STEPS, History, Step


def written(history: History, log: list[str], name: str) -> None:
    history.add(Step(partial(log.append, f"-{name}"), partial(log.append, f"+{name}")))


def test_steps_together_are_one() -> None:
    history, log = History(), []
    with history.together():
        written(history, log, "a")
        with history.together():
            written(history, log, "b")
    written(history, log, "c")
    assert history.undo()
    assert history.undo()
    assert not history.undo()
    assert history.redo()
    assert log == ["-c", "-b", "-a", "+a", "+b"]
    assert history.can_redo
    written(history, log, "d")
    assert not history.can_redo


def test_nothing_together_is_no_step() -> None:
    history = History()
    with history.together():
        pass
    assert not history.can_undo


def test_it_forgets_what_is_long_ago() -> None:
    history, log = History(), []
    for number in range(STEPS + 5):
        written(history, log, str(number))
    while history.undo():
        pass
    assert len(log) == STEPS
    assert log[-1] == "-5"


def test_what_comes_of_undoing_is_no_step() -> None:
    history = History()

    def undo() -> None:
        history.add(Step(undo, undo))

    history.add(Step(undo, undo))
    history.undo()
    assert not history.can_undo
