"""Environments of the programs that a benchmark compares with: made once from a hashed lock, outside measured time."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


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
