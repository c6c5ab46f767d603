// The map of our pages: a plain ground, surveyed ground, and features as circles. Nothing is loaded from elsewhere, so
// there is no background map, and letters are drawn with the fonts of the machine.

import * as maplibre from "./vendor/maplibre/maplibre-gl.mjs";

const EMPTY = { type: "FeatureCollection", features: [] };
// Pixels across an object of one metre at zoom 22, at the equator: 512-pixel tiles of the web's Mercator.
const PIXELS_A_METRE_AT_22 = 2 ** 22 / 78271.517;

const OVER_GROUND = 0.72;
// Over imagery things are rings, so that one sees what was counted.
const OVER_IMAGERY = 0.12;

// How one thing is drawn: as wide as it is, and never less than a dot.
export function circlePaint(box) {
  const middle = (box[1] + box[3]) / 2;
  const metre = PIXELS_A_METRE_AT_22 / Math.cos((middle * Math.PI) / 180);
  return {
    "circle-radius": [
      "interpolate", ["exponential", 2], ["zoom"],
      8, 2, 15, 3.2, 22, ["*", ["coalesce", ["get", "width_m"], 2], metre / 2],
    ],
    "circle-color": [
      "case", ["==", ["get", "verified"], true], "#0b4f8a",
      ["==", ["get", "status"], "doubtful"], "#d98a00", "#2f8f5b",
    ],
    "circle-opacity": OVER_GROUND,
    "circle-stroke-width": 1,
    "circle-stroke-color": "#ffffff",
  };
}

export function makeMap(container, box) {
  const map = new maplibre.Map({
    container,
    bounds: [[box[0], box[1]], [box[2], box[3]]],
    fitBoundsOptions: { padding: 24 },
    attributionControl: false,
    dragRotate: false,
    pitchWithRotate: false,
    maxZoom: 22,
    style: {
      version: 8,
      sources: {
        surveyed: { type: "geojson", data: EMPTY },
        features: { type: "geojson", data: EMPTY },
      },
      layers: [
        { id: "ground", type: "background", paint: { "background-color": "#eef1ee" } },
        { id: "surveyed", type: "fill", source: "surveyed", paint: { "fill-color": "#b8dcc4", "fill-opacity": 0.55 } },
        {
          id: "polygons", type: "line", source: "features", filter: ["!=", ["geometry-type"], "Point"],
          paint: { "line-color": "#1f5f43", "line-width": 1.5 },
        },
        {
          id: "points", type: "circle", source: "features", filter: ["==", ["geometry-type"], "Point"],
          paint: circlePaint(box),
        },
      ],
    },
  });
  map.touchZoomRotate.disableRotation();
  map.addControl(new maplibre.NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new maplibre.ScaleControl({ maxWidth: 120 }), "bottom-left");
  return map;
}

export function ready(map) {
  return new Promise((resolve) => (map.isStyleLoaded() ? resolve() : map.once("load", resolve)));
}

export function show(map, source, collection) {
  map.getSource(source).setData(collection ?? EMPTY);
}

// Imagery lies over the colours of the ground and under borders and points; an address of TileJSON, or null for none.
export function showImagery(map, address) {
  if (map.getLayer("imagery")) map.removeLayer("imagery");
  if (map.getSource("imagery")) map.removeSource("imagery");
  for (const layer of ["assets", "points"]) {
    if (map.getLayer(layer)) map.setPaintProperty(layer, "circle-opacity", address ? OVER_IMAGERY : OVER_GROUND);
  }
  if (!address) return;
  map.addSource("imagery", { type: "raster", url: address, tileSize: 512 });
  map.addLayer({ id: "imagery", type: "raster", source: "imagery" }, map.getLayer("borders") ? "borders" : "polygons");
}

export function boundsOf(geometry) {
  const bounds = new maplibre.LngLatBounds();
  const walk = (part) => (typeof part[0] === "number" ? bounds.extend([part[0], part[1]]) : part.forEach(walk));
  if (geometry) walk(geometry.coordinates);
  return bounds;
}

// Ids stay text and are looked up: MapLibre's own ids are numbers.
export function onClick(map, handle) {
  for (const layer of ["points", "polygons"]) {
    map.on("click", layer, (event) => handle(event.features[0].properties.shown_id));
    map.on("mouseenter", layer, () => (map.getCanvas().style.cursor = "pointer"));
    map.on("mouseleave", layer, () => (map.getCanvas().style.cursor = ""));
  }
}

export function withShownIds(collection) {
  for (const feature of collection.features) feature.properties.shown_id = String(feature.id);
  return collection;
}
