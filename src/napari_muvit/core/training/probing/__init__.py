"""Probes of trained models: features by level, reconstruction and noise by boxes."""
