// The map beside a page of items: the features of that page, or the one feature.

import { boundsOf, makeMap, ready, show } from "./map.mjs";

const frame = document.getElementById("items-map");
const box = ["west", "south", "east", "north"].map((side) => Number(frame.dataset[side]));
const map = makeMap(frame, box);

async function start() {
  const [answer] = await Promise.all([fetch(frame.dataset.items), ready(map)]);
  if (!answer.ok) return;
  const found = await answer.json();
  const features = found.type === "Feature" ? [found] : found.features;
  show(map, "features", { type: "FeatureCollection", features });
  const bounds = features.map((each) => boundsOf(each.geometry)).filter((each) => !each.isEmpty());
  if (bounds.length) map.fitBounds(bounds.reduce((all, each) => all.extend(each)), { padding: 40, maxZoom: 19, animate: false });
  frame.dataset.ready = "yes";
}

start();
