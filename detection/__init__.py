"""The eyes: imagery and frames in, detections out. No database, no HTTP.

``__all__`` names the modules that floors above may import; the rest are this floor's own.
"""

__all__ = [
    "adding",
    "bare_weights",
    "cluster",
    "data_folder",
    "detector",
    "errors",
    "evaluation",
    "geojson",
    "imagery",
    "models",
    "providers",
    "sweep",
    "taxonomy",
    "training",
    "tuning",
]
