"""The child that tests a large polygon's validity: WKB on stdin, the reason on stdout.

``python -m inventory.polygon_check SECONDS``. GEOS cannot be interrupted from within; the system kills this
process when its time or memory is spent.
"""

import resource
import sys

_MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """Tests one polygon and says what is wrong with it."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # After the limits, so that they hold for the libraries too.
    import shapely

    sys.stdout.write(str(shapely.is_valid_reason(shapely.from_wkb(sys.stdin.buffer.read()))))


if __name__ == "__main__":
    main()
