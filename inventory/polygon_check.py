"""The child that tests large polygons' validity: on stdin WKB after WKB, each after its length in 8 bytes, little
endian; on stdout a line for each.

``python -m inventory.polygon_check SECONDS``. GEOS cannot be interrupted from within; the parent kills this process
when it takes too long, the system when the time of a polygon or its memory is spent, also where no parent is left. It
ends with its input.
"""

import math
import resource
import sys
import time

_MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """Tests one polygon after the other and says what is wrong with each."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # After the limits, so that they hold for the libraries too.
    import shapely

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    while length := sys.stdin.buffer.read(8):
        # From now on; what earlier polygons took is not this one's.
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))
        polygon = shapely.from_wkb(sys.stdin.buffer.read(int.from_bytes(length, "little")))
        sys.stdout.write(f"{shapely.is_valid_reason(polygon)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
