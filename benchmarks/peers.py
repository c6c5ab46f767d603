"""The programs that a benchmark compares with: environments made once from a hashed lock, outside measured time, and
processes in them that measure when asked."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any


def peers_python(name: str) -> Path:
    """The Python of the environment that ``benchmarks/NAME.lock`` describes; the first call installs it."""
    lock = Path(__file__).parent / f"{name}.lock"
    fingerprint = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "urban-inventory" / "benchmarks" / f"{name}-{fingerprint}"
    python = folder / "bin" / "python"
    finished = folder / "installed"
    if not finished.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing what {name} is compared with into {folder} …", file=sys.stderr)
        venv.create(folder, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        hashes = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", str(lock)]
        subprocess.run([str(python), *install, *hashes], check=True, stdout=sys.stderr)
        finished.touch()
    return python


def site_packages(python: Path) -> Path:
    """Where an environment's libraries lie."""
    asked = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(asked.stdout.strip())


class Peer:
    """One process of a peer: warm once it answers, then measuring when asked, in lines of JSON."""

    def __init__(self, python: Path, script: Path, *arguments: object) -> None:
        self._name = script.stem
        self._process = subprocess.Popen(
            [str(python), str(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready: dict[str, Any] = self._answer()

    def measure(self) -> dict[str, Any]:
        """What one run took, ``seconds`` at least."""
        assert self._process.stdin is not None
        self._process.stdin.write("measure\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{self._name} ended with {self._process.wait()}")


def fastest(peers: list[Peer]) -> Peer:
    """The fastest of several settings of one peer, by one run each after a warm one; the others are closed."""
    for peer in peers:
        peer.measure()
    times = [peer.measure()["seconds"] for peer in peers]
    best = peers[times.index(min(times))]
    for peer in peers:
        if peer is not best:
            peer.close()
    return best


def thread_settings() -> list[int]:
    """Numbers of threads worth trying on this machine."""
    cores = len(os.sched_getaffinity(0))
    return sorted({1, 2, cores // 2, cores} - {0})
