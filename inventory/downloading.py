"""A collection's features as one file that other programs open: written by a child, ended as soon as nobody waits.

The features come from the caller's transaction, many at a time; a child process writes the file
(``feature_file_child.py`` says why). Memory does not grow with the collection.
"""

import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pyarrow as pa

from inventory.errors import StoreError
from inventory.feature_files import FileForm
from inventory.feature_tables import Layer, feature_batch, parsed

_LOG = logging.getLogger("urban_inventory")
_CHILD = (sys.executable, "-m", "inventory.feature_file_child")


class NobodyWaits(Exception):
    """The file was given up before it was finished."""


class FileMaking:
    """One file on its way, which may be given up from another thread."""

    def __init__(self, layer: Layer, form: FileForm, file: Path) -> None:
        self._layer = layer
        self._form = form
        self._file = file
        self._given_up = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, texts: Iterable[bytes]) -> None:
        """Writes the file.

        Args:
            texts: Features as GeoJSON, many in each with commas between.

        Raises:
            NobodyWaits: ``give_up`` was called.
            StoreError: the file cannot be written.
        """
        command = [*_CHILD, self._form.value, str(self._file)]
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
            self._child = child
            try:
                self._hand_over(child, texts)
                failed = child.wait() != 0
            finally:
                child.kill()
                child.wait()
            self._require_wanted()
            if failed:
                raise _unwritten(said)

    def give_up(self) -> None:
        """Ends the work, wherever it is; ``run`` raises."""
        self._given_up.set()
        if self._child is not None:
            self._child.kill()

    def _hand_over(self, child: "subprocess.Popen[bytes]", texts: Iterable[bytes]) -> None:
        assert child.stdin is not None
        try:
            with child.stdin as pipe, pa.ipc.new_stream(pipe, self._layer.schema) as out:
                for text in texts:
                    self._require_wanted()
                    out.write_batch(feature_batch(self._layer, parsed(text)))
        except BrokenPipeError:
            # The child has ended; what it said is read where its exit is looked at.
            pass

    def _require_wanted(self) -> None:
        if self._given_up.is_set():
            raise NobodyWaits


def _unwritten(said: IO[bytes]) -> StoreError:
    said.seek(0)
    # For the log: they may hold a path, which no caller is shown.
    _LOG.error("a file of features was not written: %s", said.read(10_000).decode(errors="replace").strip())
    return StoreError(
        "the file could not be written", do="Tell the operator: the disk of the service's home may be full."
    )
