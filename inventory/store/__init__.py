"""PostGIS: every SQL statement of the project, one module per concept."""

__all__ = [
    "addresses",
    "cities",
    "cluster",
    "cluster_upgrade",
    "copy",
    "database",
    "feature_pages",
    "features",
    "leaves",
    "reviews",
    "roles",
    "schema",
    "server",
    "surveys",
]
