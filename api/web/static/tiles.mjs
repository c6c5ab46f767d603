// What vector tiles show of a city: its areas with their counts, clusters with numbers from afar, and from near what
// stands there, one by one. A tile of many is clusters, whatever its zoom.

import { circlePaint } from "./map.mjs";

// Round a click, for fingers.
const NEAR_PX = 4;
const THOUSANDS_FROM = 10000;
const FONT = ["sans-serif"];
const IS_CLUSTER = ["has", "count"];
const short = [
  "case", [">=", ["get", "count"], THOUSANDS_FROM],
  ["concat", ["number-format", ["/", ["get", "count"], 1000], { locale: "en", "max-fraction-digits": 0 }], "k"],
  ["number-format", ["get", "count"], { locale: "en" }],
];
const spoken = ["number-format", ["get", "count"], { locale: "en" }];

function layers(box) {
  return [
    {
      id: "areas", before: "surveyed", type: "fill", "source-layer": "areas",
      paint: { "fill-color": "#e4e4de", "fill-opacity": 0.8 },
    },
    {
      id: "borders", before: "polygons", type: "line", "source-layer": "areas",
      paint: { "line-color": "#7d8f85", "line-width": 1.2 },
    },
    { id: "assets", type: "circle", "source-layer": "assets", filter: ["!", IS_CLUSTER], paint: circlePaint(box) },
    {
      id: "clusters", type: "circle", "source-layer": "assets", filter: IS_CLUSTER,
      layout: { "circle-sort-key": ["get", "count"] },
      paint: {
        "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "count"]], 0, 7, 1, 9.5, 2, 12.5, 3, 15, 4, 17, 6, 21],
        "circle-color": "#1f5f43", "circle-opacity": 0.82, "circle-stroke-width": 1, "circle-stroke-color": "#ffffff",
      },
    },
    {
      id: "numbers", type: "symbol", "source-layer": "assets", filter: IS_CLUSTER,
      layout: {
        "text-field": short, "text-font": FONT, "text-size": 11, "text-padding": 0,
        "symbol-sort-key": ["-", 0, ["get", "count"]],
      },
      paint: { "text-color": "#ffffff" },
    },
    {
      id: "places", type: "symbol", "source-layer": "area_labels",
      layout: {
        "text-field": [
          "format", ["get", "name"], { "font-scale": 1 }, "\n", {},
          ["case", IS_CLUSTER, spoken, "not surveyed"], { "font-scale": 0.92 },
        ],
        "text-font": FONT, "text-size": 12.5, "text-max-width": 9, "text-variable-anchor": ["center", "top", "bottom"],
        "text-justify": "center",
      },
      paint: { "text-color": "#1c2b24", "text-halo-color": "rgba(255, 255, 255, 0.95)", "text-halo-width": 2.2 },
    },
  ];
}

// Shows the tiles that a TileJSON tells of in place of those before.
export function showTiles(map, tilejson, box) {
  const source = map.getSource("tiles");
  if (source) {
    source.setTiles(tilejson.tiles);
    return;
  }
  const { tiles, minzoom, maxzoom, bounds } = tilejson;
  map.addSource("tiles", { type: "vector", tiles, minzoom, maxzoom, bounds });
  for (const { before, ...layer } of layers(box)) map.addLayer({ ...layer, source: "tiles" }, before);
}

// Calls handle.cluster, handle.asset or handle.area with what lies at a click, the first of these that does.
export function onTileClick(map, handle) {
  const targets = { clusters: handle.cluster, assets: handle.asset, areas: handle.area };
  const at = ({ x, y }) => [[x - NEAR_PX, y - NEAR_PX], [x + NEAR_PX, y + NEAR_PX]];
  map.on("click", (event) => {
    // What moves is drawn from features of their own, over the tiles.
    if (map.queryRenderedFeatures(at(event.point), { layers: ["points"] }).length) return;
    for (const [layer, called] of Object.entries(targets)) {
      if (!map.getLayer(layer)) continue;
      const [found] = map.queryRenderedFeatures(layer === "areas" ? event.point : at(event.point), { layers: [layer] });
      if (found) {
        called(found, event);
        return;
      }
    }
  });
  for (const layer of ["clusters", "assets"]) {
    map.on("mouseenter", layer, () => (map.getCanvas().style.cursor = "pointer"));
    map.on("mouseleave", layer, () => (map.getCanvas().style.cursor = ""));
  }
}
