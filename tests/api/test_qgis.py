"""QGIS itself, without a screen: what it makes of a city, and what it asks for on the way.

Debian's python3-qgis and qgis-providers, in a process of the system's own Python.
"""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.api.conftest import MANY, Service

PYTHON = "/usr/bin/python3"
_PROGRAM = """
import json, sys
from qgis.core import QgsApplication, QgsFeatureRequest, QgsRectangle, QgsVectorLayer
QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
asked = json.loads(sys.argv[1])
layer = QgsVectorLayer(f"url='{asked['url']}' typename='{asked['layer']}' restrictToRequestBBOX='1'"
                       + (f" filter='{asked['filter']}'" if "filter" in asked else ""), "layer", "OAPIF")
told = {"valid": layer.isValid(), "error": layer.error().message()}
if layer.isValid():
    told["fields"] = {field.name(): field.typeName() for field in layer.fields()}
    told["count"] = layer.featureCount()
    told["crs"] = layer.crs().authid()
    request = QgsFeatureRequest()
    if "bbox" in asked:
        request.setFilterRect(QgsRectangle(*asked["bbox"]))
    if "expression" in asked:
        request.setFilterExpression(asked["expression"])
    told["ids"] = [feature["id"] for feature in layer.getFeatures(request)]
print("TOLD" + json.dumps(told))
application.exitQgis()
"""


def has_qgis() -> bool:
    if shutil.which(PYTHON) is None:
        return False
    tried = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = [
    pytest.mark.qgis,
    pytest.mark.skipif(not has_qgis(), reason="QGIS is not installed (python3-qgis, qgis-providers)"),
]


def qgis(service: Service, city: str, layer: str, **asked: Any) -> dict[str, Any]:
    asked |= {"url": f"{service.url}/cities/{city}", "layer": layer}
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    environment.pop("PYTHONPATH", None)
    ran = subprocess.run(
        [PYTHON, "-c", _PROGRAM, json.dumps(asked)],
        capture_output=True, text=True, timeout=180, check=False, env=environment,
    )  # fmt: skip
    (line,) = [one for one in ran.stdout.splitlines() if one.startswith("TOLD")] or [ran.stderr[-2000:]]
    told: dict[str, Any] = json.loads(line.removeprefix("TOLD"))
    return told


def test_a_layer_is_valid_has_its_fields_and_all_its_features(service: Service) -> None:
    told = qgis(service, "town", "assets")
    assert told["valid"], told["error"]
    assert told["count"] == 4
    assert sorted(told["ids"]) == ["a00001", "a00002", "a00004", "a00006"]
    assert {"class", "status", "probability", "first_seen"} <= set(told["fields"])
    # Longitude first under either name; QGIS before 3.34 has but one for both.
    assert told["crs"] in {"OGC:CRS84", "EPSG:4326"}


def test_every_page_is_read_once(service: Service) -> None:
    told = qgis(service, "many", "assets")
    assert told["count"] == len(told["ids"]) == len(set(told["ids"])) == MANY


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"bbox": [100.0, 22.0, 100.05, 22.05]}, ["a00001", "a00002"]),
        ({"expression": '"verified" = true'}, ["a00004"]),
        ({"expression": '"class" = \'tree\' and "width_m" > 1'}, ["a00001", "a00002", "a00004", "a00006"]),
    ],
)
def test_what_is_in_view_and_what_meets_a_condition_is_read(
    service: Service, asked: dict[str, Any], ids: list[str]
) -> None:
    assert sorted(qgis(service, "town", "assets", **asked)["ids"]) == ids


@pytest.mark.parametrize("layer", ["areas", "surveys", "observations", "decisions", "counts"])
def test_the_other_collections_open_too(service: Service, layer: str) -> None:
    told = qgis(service, "town", layer)
    assert told["valid"], told["error"]
    assert told["count"] == len(told["ids"]) > 0
