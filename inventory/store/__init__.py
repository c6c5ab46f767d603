"""PostGIS: every SQL statement of the project, one module per concept."""

__all__ = [
    "addresses",
    "catalogue",
    "cities",
    "cluster",
    "cluster_upgrade",
    "database",
    "feature_pages",
    "features",
    "filter_geometries",
    "filter_operators",
    "filters",
    "identities",
    "migrate",
    "queryables",
    "questions",
    "reviews",
    "roles",
    "server",
    "states",
    "surveys",
]
