"""A prediction as what other programs read: objects, tables, outlines, a picture."""

from .config import ExportConfig
from .result import ClassFigures, Export
from .run import export_prediction

__all__ = ["ClassFigures", "Export", "ExportConfig", "export_prediction"]
