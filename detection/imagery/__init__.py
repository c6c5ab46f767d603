"""Rasters as ground: what a file shows, where, how finely, and which of its pixels count."""

__all__ = ["crops", "georeference", "inspect", "kept", "map_tiles", "placing", "reader", "scene", "windows"]
