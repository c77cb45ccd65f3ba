"""Long pieces of work of the panel: calls into the core that can be sent to a process.

A task is a frozen dataclass that is called with four keywords: ``on_progress`` and
``tell`` hand out what happens, ``should_stop`` says when to end, ``commands`` brings
what the user does meanwhile. Whatever goes in or out can be pickled. Imports neither Qt
nor napari; torch only while a task runs.
"""

from __future__ import annotations
