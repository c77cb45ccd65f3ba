"""The subcommands of `napari_muvit.cli`: one module a family."""
