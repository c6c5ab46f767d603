"""PostGIS: every SQL statement of the project, one module per concept."""

__all__ = [
    "addresses",
    "cities",
    "cluster",
    "cluster_upgrade",
    "database",
    "features",
    "reviews",
    "roles",
    "server",
    "surveys",
]
