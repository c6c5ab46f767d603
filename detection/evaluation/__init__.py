"""What a model is worth on labelled ground."""

__all__ = [
    "card",
    "evaluate",
    "labels",
    "look",
    "matching",
    "measures",
    "mosaic",
    "picture",
    "sheet",
    "worst",
]
