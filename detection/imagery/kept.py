"""Decoded pictures kept from opening a scene until it is swept, so that a small one is decoded only once.

Decoding costs a tenth of inference, and a scene must be read whole to know its hash before anything else is
decided. The least recently used pictures go when the budget is spent; a large scene is simply read twice.
"""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

#: Bytes of all kept pictures together: a square of 10,000 pixels.
BUDGET_BYTES = 300_000_000

_pictures: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
_lock = threading.Lock()


def keep(content_hash: str, rgb: NDArray[np.uint8]) -> None:
    """Keeps a picture, (3, rows, columns), until it is forgotten or the budget is spent."""
    with _lock:
        _pictures[content_hash] = rgb
        _pictures.move_to_end(content_hash)
        while sum(picture.nbytes for picture in _pictures.values()) > BUDGET_BYTES:
            _pictures.popitem(last=False)


def kept(content_hash: str) -> NDArray[np.uint8] | None:
    """The picture, if it is still there."""
    with _lock:
        return _pictures.get(content_hash)


def forget(content_hash: str) -> None:
    """Lets go of a picture; nothing happens where there is none."""
    with _lock:
        _pictures.pop(content_hash, None)
