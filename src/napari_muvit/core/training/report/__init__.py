"""The report of a run: its record, curves, examples, and the page of them."""
