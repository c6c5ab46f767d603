"""How models are made: recipe → windows → weights → ONNX → threshold → card."""

__all__ = ["calibrate", "fit", "recipe", "train", "windows"]
