"""The city's memory: rules, store and use cases.

``__all__`` names the modules that the floor above may import; the rest are this floor's own.
"""

__all__ = [
    "boundaries",
    "comparing",
    "counting",
    "dates",
    "decision_files",
    "decisions",
    "demo",
    "demo_city_scene",
    "demo_scenes",
    "doctor",
    "domain",
    "downloading",
    "editing",
    "errors",
    "evidence_changes",
    "exporting",
    "feature_files",
    "feature_tables",
    "grouping",
    "ingest",
    "life_picture",
    "lives",
    "migrating",
    "model_comparison",
    "onboarding",
    "packing",
    "polygons",
    "removing",
    "reviewing",
    "showing",
    "store",
    "tiling",
]
