"""From files and layers to nested crops: pyramids, annotations, sampling."""
