"""The child that writes a file of features: batches come on stdin as an Arrow stream, errors go to stderr in a line.

``python -m inventory.feature_file_child FORM FILE``. GDAL holds Python's lock while it works, for seconds where it
makes an index of a million features: in the service everybody else would wait. It ends with its input, and its
parent kills it when nobody waits for the file any more.
"""

import sys
from pathlib import Path

import pyarrow as pa

from inventory.feature_files import FileForm, NotWritten, write_features


def main() -> int:
    """Writes the file; 1 when it cannot be written."""
    form, file = FileForm(sys.argv[1]), Path(sys.argv[2])
    try:
        with pa.ipc.open_stream(sys.stdin.buffer) as batches:
            write_features(batches, form, file)
    except NotWritten as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
