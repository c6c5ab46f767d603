"""Pure rules R1–R15: no SQL, no files, no clock, no randomness; evidence in, state out."""

__all__ = [
    "change",
    "datum",
    "evidence",
    "fold",
    "levels",
    "life",
    "ownership",
    "places",
    "tally",
    "tiles",
    "tracks",
]
