"""A city is removed: everything is saved to a GeoPackage, then nothing of it is left."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyogrio
import pyogrio.errors
import shapely

from detection.errors import CallerError, Conflict
from inventory.domain.places import City
from inventory.store import cities, removal
from inventory.store.database import Database, Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a city holds: layer → rows."""

    name: str
    layers: dict[str, int]

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {layer}" for layer, count in self.layers.items())


def holdings_of(database: Database, code: str) -> Holdings:
    """What would be removed with a city.

    Raises:
        UnknownName: there is no such city.
    """
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        city = cities.get_city(connection, code)
        return Holdings(name=city.name, layers=removal.count_rows(connection, city.id))


def remove_city(database: Database, code: str, *, export_to: Path, home: Path) -> Holdings:
    """Saves a city to a GeoPackage, then removes its rows, its folder, and its imagery stored in ``home``.

    Imagery elsewhere stays where it is. If saving fails, nothing is removed.

    Raises:
        UnknownName: there is no such city.
        Conflict: the file to save to exists.
        CallerError: the file cannot be written.
    """
    if export_to.exists():
        raise Conflict("there is such a file already", where=str(export_to), do="Name another with --export.")
    with database.transaction(Patience.JOB) as connection:
        city = cities.get_city(connection, code)
        # Nobody may add to it between saving and dropping.
        cities.lock_city(connection, city.id)
        partial = export_to.with_name(f".{export_to.stem}.partial.gpkg")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            _save_city(city, partial)
            layers = {
                layer: _save(removal.stream_rows(connection, city.id, layer), partial, layer)
                for layer in removal.LAYERS
            }
            partial.rename(export_to)
        except (OSError, pyogrio.errors.DataSourceError) as error:
            raise CallerError(
                f"the city cannot be saved: {error}",
                where=str(export_to),
                do="Nothing was removed. Name another place with --export.",
            ) from error
        images = removal.stored_images(connection, city.id)
        cities.drop_city(connection, city.id)
    shutil.rmtree(home / "cities" / code, ignore_errors=True)
    imagery = (home / "imagery").resolve()
    for image in map(Path, images):
        if image.resolve().is_relative_to(imagery):
            image.unlink(missing_ok=True)
    return Holdings(name=city.name, layers=layers)


def _save_city(city: City, file: Path) -> None:
    # Here, not above: pandas takes half a second to load, which most commands need not wait for.
    import geopandas

    values = {
        "code": city.code,
        "name": city.name,
        "time_zone": city.time_zone,
        "metric_crs": city.metric_crs,
    }
    table = geopandas.GeoDataFrame([values], geometry=[city.boundary], crs="EPSG:4326")
    pyogrio.write_dataframe(table, file, layer="city", driver="GPKG")


def _save(batches: Iterable[removal.Rows], file: Path, layer: str) -> int:
    import geopandas
    import pandas

    written = 0
    for rows in batches:
        table = pandas.DataFrame(rows.columns)
        if rows.geometry is not None:
            places = [None if wkb is None else bytes(wkb) for wkb in rows.geometry]
            table = geopandas.GeoDataFrame(table, geometry=shapely.from_wkb(places), crs="EPSG:4326")
        # An append also where the layer is new: the file is there.
        pyogrio.write_dataframe(table, file, layer=layer, driver="GPKG", append=True)
        written += len(table)
    return written
