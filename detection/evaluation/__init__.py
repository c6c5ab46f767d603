"""What a model is worth on labelled ground."""

__all__ = ["card", "evaluate", "labels", "look", "measures", "mosaic", "picture", "sheet"]
