"""A whole ortho through GeoDeep with our ONNX file, whose metadata it reads; run in the peers' environment.

Usage: geodeep_peer.py NETWORK IMAGE THREADS

THREADS is a number, or ``default`` for what it sets by itself. Says one line when it is ready (warm), then measures one
detection on the whole image for every line it reads.
"""

import json
import sys
import time

import onnxruntime


def main():
    network, image, threads = sys.argv[1:]
    if threads != "default":
        plain = onnxruntime.InferenceSession

        def with_threads(*arguments, **named):
            options = named.get("sess_options") or onnxruntime.SessionOptions()
            options.intra_op_num_threads = int(threads)
            return plain(*arguments, **{**named, "sess_options": options})

        onnxruntime.InferenceSession = with_threads
    from geodeep import detect

    found = detect(image, network, output_type="default")
    print(json.dumps({"threads": threads, "objects": len(found[0])}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        found = detect(image, network, output_type="default")
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "objects": len(found[0])}), flush=True)


main()
