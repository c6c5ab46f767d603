"""A whole ortho through GeoDeep with our ONNX file, whose metadata it reads; run in the peers' environment.

Usage: geodeep_peer.py NETWORK IMAGE THREADS

THREADS is a number, or 0 for what it sets by itself. Says one line when it is ready (warm), then measures one detection
on the whole image for every line it reads.
"""

import json
import sys
import time

from geodeep import detect


def main():
    network, image, threads = sys.argv[1:]

    def run():
        started = time.perf_counter()
        boxes, _, _ = detect(image, network, max_threads=int(threads) or None)
        return {"seconds": time.perf_counter() - started, "objects": len(boxes)}

    run()
    print(json.dumps({"threads": int(threads)}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


main()
