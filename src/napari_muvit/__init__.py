"""Multi-resolution vision transformers (MuViT) for gigapixel images, in napari.

Everything that computes is in `napari_muvit.core`, which needs neither napari nor Qt.
"""

__version__ = "0.1.0"
