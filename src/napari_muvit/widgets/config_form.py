"""A form made of the fields of a settings dataclass: all of them, with their words.

What is typed is checked by the dataclass itself, so that form, file and command know
the same rules and say the same sentences.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from .ui import Combo, form

AUTOMATIC = "auto"
"""What stands in a field that is left to the program."""


class ConfigForm(QWidget):
    """Editors for some fields of a dataclass.

    Parameters
    ----------
    kind
        The dataclass; its types choose the editors, its docstrings are the tooltips.
    names
        Which fields, in this order.
    """

    changed = Signal()

    def __init__(self, kind: type, names: Sequence[str]) -> None:
        super().__init__()
        self._kinds = _kinds(kind)
        docs = field_docs(kind)
        self.editors: dict[str, QCheckBox | Combo | QLineEdit] = {}
        layout = form()
        layout.setContentsMargins(0, 0, 0, 0)
        # Long names stand above their field, so that the panel stays narrow.
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for name in names:
            editor = self._editor(name)
            words = docs.get(name, "")
            editor.setToolTip(words)
            editor.setAccessibleName(name)
            label = QLabel(name.replace("_", " "))
            label.setToolTip(words)
            label.setBuddy(editor)
            layout.addRow(label, editor)
            self.editors[name] = editor
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(layout)
        self._shown: dict[str, Any] = {}

    def _editor(self, name: str) -> QCheckBox | Combo | QLineEdit:
        kind = self._kinds[name]
        if kind is bool:
            box = QCheckBox()
            box.toggled.connect(lambda _on: self.changed.emit())
            return box
        choices = _choices(kind)
        if choices:
            combo = Combo()
            combo.addItems(choices)
            combo.currentIndexChanged.connect(lambda _index: self.changed.emit())
            return combo
        line = QLineEdit()
        line.setPlaceholderText(AUTOMATIC)
        line.editingFinished.connect(self.changed.emit)
        return line

    def show_values(self, values: Mapping[str, Any]) -> None:
        """Show values, from which `changes` counts."""
        blocked = self.blockSignals(True)
        for name, editor in self.editors.items():
            if name in values:
                _put(editor, values[name])
        self.blockSignals(blocked)
        self._shown = self._read()

    def changes(self) -> dict[str, Any]:
        """Return what the user has changed; not checked yet."""
        now = self._read()
        return {n: v for n, v in now.items() if v != self._shown.get(n)}

    def _read(self) -> dict[str, Any]:
        return {name: _get(editor) for name, editor in self.editors.items()}


def _put(editor: QCheckBox | Combo | QLineEdit, value: Any) -> None:
    if isinstance(editor, QCheckBox):
        editor.setChecked(bool(value))
    elif isinstance(editor, Combo):
        editor.setCurrentText(str(value))
    else:
        editor.setText(_words(value))


def _get(editor: QCheckBox | Combo | QLineEdit) -> Any:
    if isinstance(editor, QCheckBox):
        return editor.isChecked()
    if isinstance(editor, Combo):
        return editor.currentText()
    return _parsed(editor.text())


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ", ".join(f"{v}" for v in value)
    return f"{value}"


def _parsed(words: str) -> Any:
    """Return what was typed as a number or a list; other words as they are."""
    words = words.strip()
    if not words:
        return None
    try:
        value = ast.literal_eval(words)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return words
    return value if isinstance(value, int | float | tuple) else words


def _choices(kind: Any) -> list[str]:
    """Return the words that a field takes; none where it takes anything."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return [words for part in typing.get_args(kind) for words in _choices(part)]
    return []


@functools.cache
def _kinds(kind: type) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(typing.cast("Any", kind))
    return {field.name: hints[field.name] for field in fields}


@functools.cache
def field_docs(kind: type) -> Mapping[str, str]:
    """Return the docstring below each field; nothing where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, SyntaxError):
        return {}
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            words = " ".join(below.value.value.split())
            found[field.target.id] = words.replace("``", "")
    return found
