"""The child that tests large polygons' validity: on stdin WKB after WKB, each after its length in 8 bytes, little
endian; on stdout a line for each.

``python -m inventory.polygon_check``. GEOS cannot be interrupted from within; the parent kills this process when it
takes too long, the system when its memory is spent. It ends with its input.
"""

import resource
import sys

_MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """Tests one polygon after the other and says what is wrong with each."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # After the limits, so that they hold for the libraries too.
    import shapely

    while length := sys.stdin.buffer.read(8):
        polygon = shapely.from_wkb(sys.stdin.buffer.read(int.from_bytes(length, "little")))
        sys.stdout.write(f"{shapely.is_valid_reason(polygon)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
