"""The city's memory: rules, store and use cases.

``__all__ = [
    "boundaries",
    "counting",
    "decisions",
    "demo",
    "demo_scenes",
    "doctor",
    "domain",
    "errors",
    "evidence_changes",
    "exporting",
    "ingest",
    "migrating",
    "onboarding",
    "polygons",
    "removing",
    "store",
]
