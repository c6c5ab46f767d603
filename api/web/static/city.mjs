// The landing page of a city: counts in words and as a table, and the map of what is counted.

import { showDetails } from "./details.mjs";

const MOST = 10000;
// Room around a thing of which only its place in a tile is known, in degrees, and the steps of a tile: 4,096.
const NEAR_DEG = 0.0002;
const STEPS = 4096;
// Areas narrower than this share of the city are specks on a map of all of it: it starts at the fullest one.
const SPECK_SHARE = 0.05;
const OUTSIDE = "outside";
const element = (id) => document.getElementById(id);
const frame = element("inventory");
const { root, today } = frame.dataset;
const box = ["west", "south", "east", "north"].map((side) => Number(frame.dataset[side]));
const state = { shown: new Map(), map: null, drawing: null };
const chosen = () => ({ asOf: element("as-of").value || today, level: element("level").value, kind: element("class").value });

async function fetched(address, parameters = {}, signal = undefined) {
  const query = new URLSearchParams({ f: "json", ...parameters });
  const answer = await fetch(`${address}?${query}`, { signal });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? answer.statusText);
  return body;
}

function say(message) {
  element("note").textContent = message ?? "";
  element("note").hidden = !message;
}

function guarded(work) {
  return work.catch((error) => error.name === "AbortError" || say(`Not loaded: ${error.message}`));
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const percent = (share) => (share > 0 && share < 0.01 ? "under 1 %" : `${Math.floor(share * 100)} %`);
const day = (instant) => instant.slice(0, 10);

function between(row) {
  return row.low === null ? "" : `${number.format(row.low)} – ${number.format(row.high)}`;
}

function looks(row) {
  if (!row.oldest_look) return "";
  const [first, last] = [day(row.oldest_look), day(row.newest_look)];
  return first === last ? `on ${first}` : `from ${first} to ${last}`;
}

function sayTotal(row) {
  const said = element("said");
  said.replaceChildren();
  said.classList.toggle("unknown", row.count === null);
  if (row.count === null) {
    said.textContent = `Not surveyed for “${row.class}” by ${row.as_of}: how many there are is unknown, which is not 0.`;
    return;
  }
  const total = document.createElement("strong");
  total.textContent = number.format(row.count);
  const interval = row.low === null ? "not validated" : `90 %: ${between(row)}`;
  const ground = row.coverage > 0 ? `${percent(row.coverage)} of the ground surveyed ${looks(row)}` : "No ground surveyed";
  said.append(total, ` listed as ${row.class} (${interval}). ${ground}.`);
}

function cell(row, text, className = "") {
  const made = row.insertCell();
  made.textContent = text;
  made.className = className;
  return made;
}

function drawTable(rows) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const [name, className] of [["Area", ""], ["Count", "number"], ["Surveyed", "number"]]) {
    const title = document.createElement("th");
    title.scope = "col";
    title.textContent = name;
    title.className = className;
    head.append(title);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    cell(line, row.name ?? row.area);
    const count = cell(line, row.count === null ? "–" : number.format(row.count), "number");
    if (between(row)) {
      const interval = document.createElement("small");
      interval.textContent = between(row);
      interval.title = "90 % interval";
      count.append(interval);
    }
    cell(line, row.coverage === null ? "not surveyed" : percent(row.coverage), row.coverage === null ? "unsurveyed number" : "number");
    if (chosen().level && row.area !== OUTSIDE) makeGoTo(line, areaAddress(chosen().level, row.area));
  }
  element("counts").replaceChildren(table);
}

function areaAddress(level, code) {
  return `${root}/collections/areas/items/${encodeURIComponent(`${level}:${code}`)}`;
}

function makeGoTo(line, address) {
  const go = async () => {
    if (!state.map) return;
    const { boundsOf } = await import("./map.mjs");
    state.map.fitBounds(boundsOf((await fetched(address)).geometry), { padding: 40 });
  };
  line.tabIndex = 0;
  line.title = "Show on the map";
  line.addEventListener("click", () => guarded(go()));
  line.addEventListener("keydown", (event) => event.key === "Enter" && guarded(go()));
}

async function drawCounts() {
  const { asOf, level, kind } = chosen();
  const asked = { as_of: asOf, ...(kind && { class: kind }) };
  const [whole, parts] = await Promise.all([
    fetched(`${root}/counts`, asked),
    level ? fetched(`${root}/counts`, { ...asked, level }) : null,
  ]);
  if (whole.counts.length) sayTotal(whole.counts[0]);
  drawTable((parts ?? whole).counts);
}

async function drawPlaces() {
  const { show } = await import("./map.mjs");
  const { showTiles } = await import("./tiles.mjs");
  const { asOf, level, kind } = chosen();
  const [tilejson, surveyed] = await Promise.all([
    fetched(`${root}/tiles/WebMercatorQuad/tilejson`, { ...(kind && { class: kind }), ...(level && { level }), ...then() }),
    fetched(`${root}/collections/surveys/items`, { datetime: `../${asOf}`, limit: 2000, ...(kind && { class: kind }) }),
  ]);
  showTiles(state.map, tilejson, box);
  show(state.map, "surveyed", surveyed);
}

// Today is asked for as “now”, which the service answers faster.
function then() {
  const { asOf } = chosen();
  return asOf === today ? {} : { datetime: asOf };
}

async function findStart() {
  const level = element("level").options[1]?.value;
  if (!level) return;
  const { boundsOf } = await import("./map.mjs");
  const { asOf, kind } = chosen();
  const { features } = await fetched(`${root}/collections/areas/items`, { datetime: asOf, level, limit: 100 });
  const width = (bounds) => bounds.getEast() - bounds.getWest();
  const widest = Math.max(0, ...features.map((each) => width(boundsOf(each.geometry))));
  if (!features.length || widest > SPECK_SHARE * (box[2] - box[0])) return;
  const { counts } = await fetched(`${root}/counts`, { as_of: asOf, level, ...(kind && { class: kind }) });
  const count = (area) => counts.find((row) => row.area === area.properties.code)?.count ?? 0;
  const fullest = features.reduce((one, other) => (count(other) > count(one) ? other : one));
  state.map.fitBounds(boundsOf(fullest.geometry), { padding: 40, animate: false });
}

function moves() {
  return element("class").selectedOptions[0]?.dataset.kind === "mobile";
}

// What moves has no place in tiles: the stock of now is drawn from its items.
async function drawFeatures() {
  state.drawing?.abort();
  state.drawing = new AbortController();
  const { show, withShownIds } = await import("./map.mjs");
  const { kind } = chosen();
  if (!moves()) {
    state.shown.clear();
    show(state.map, "features", null);
    say(null);
    return;
  }
  const view = state.map.getBounds();
  const clamp = (value, most) => Math.max(-most, Math.min(most, value)).toFixed(7);
  const bbox = [clamp(view.getWest(), 180), clamp(view.getSouth(), 90), clamp(view.getEast(), 180), clamp(view.getNorth(), 90)];
  const address = `${root}/collections/observations/items`;
  const asked = { bbox: bbox.join(","), limit: MOST, current: true, ...(kind && { class: kind }), ...then() };
  const found = withShownIds(await fetched(address, asked, state.drawing.signal));
  state.shown = new Map(found.features.map((each) => [each.properties.shown_id, [each, `${address}/${encodeURIComponent(each.id)}?f=html`]]));
  show(state.map, "features", found);
  const all = found.numberMatched ?? Infinity;
  const cut = found.links.some((each) => each.rel === "next");
  say(cut ? `Only ${number.format(found.numberReturned)}${Number.isFinite(all) ? ` of ${number.format(all)}` : ""} are drawn: zoom in to see all.` : null);
}

async function openAsset({ geometry, properties }) {
  const address = `${root}/collections/assets/items`;
  const page = `${address}/${encodeURIComponent(properties.id)}?f=html`;
  const [lon, lat] = geometry.coordinates;
  const near = Math.max(NEAR_DEG, 360 / 2 ** Math.floor(state.map.getZoom()) / STEPS);
  const bbox = [lon - near, lat - near, lon + near, lat + near].map((edge) => edge.toFixed(7)).join(",");
  // As it was known on the date; a single item is always of now.
  const { features } = await fetched(address, { bbox, limit: MOST, ...then() });
  const feature = features.find((each) => each.id === properties.id) ?? { id: properties.id, properties };
  showDetails(element("details"), feature, page);
}

function openArea({ properties }) {
  const { code, name, level, count = "not surveyed", coverage } = properties;
  const told = { level, code, count, ...(coverage !== undefined && { surveyed: percent(coverage) }) };
  showDetails(element("details"), { id: name, properties: told }, `${areaAddress(level, code)}?f=html`);
}

function openCluster({ geometry }) {
  state.map.easeTo({ center: geometry.coordinates, zoom: Math.min(state.map.getZoom() + 2, 22) });
}

async function drawImagery() {
  const { showImagery } = await import("./map.mjs");
  const { asOf } = chosen();
  const asked = new URLSearchParams({ "tile-size": 512, ...(asOf !== today && { datetime: asOf }) });
  showImagery(state.map, element("imagery").checked ? `${root}/imagery/tiles/WebMercatorQuad/tilejson?${asked}` : null);
}

function remembered() {
  return new URLSearchParams(location.hash.slice(1));
}

function remember() {
  const { asOf, level, kind } = chosen();
  const kept = new URLSearchParams({ ...(asOf !== today && { as_of: asOf }), level, class: kind, ...(element("imagery").checked && { imagery: "yes" }) });
  history.replaceState(null, "", `#${kept}`);
}

async function redraw() {
  remember();
  element("details").hidden = true;
  await Promise.all([drawCounts(), ...(state.map ? [drawPlaces(), drawFeatures()] : [])]);
  if (state.map) await drawImagery();
}

async function start() {
  element("as-of").value = remembered().get("as_of") ?? today;
  for (const id of ["class", "level"]) {
    const said = remembered().get(id);
    if ([...element(id).options].some((option) => option.value === said)) element(id).value = said;
  }
  element("imagery").checked = remembered().get("imagery") === "yes";
  element("imagery").addEventListener("change", () => {
    remember();
    if (state.map) guarded(drawImagery());
  });
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["as-of", "level", "class"]) element(id).addEventListener("change", () => guarded(redraw()));
  await guarded(redraw());
  let drawing;
  try {
    drawing = await import("./map.mjs");
  } catch {
    say("The map library is not installed (scripts/setup brings it); the counts do not need it.");
    return;
  }
  const map = drawing.makeMap(element("map"), box);
  await drawing.ready(map);
  state.map = map;
  // For whoever looks on: tests, and people at a console.
  frame.map = map;
  await guarded(findStart());
  drawing.onClick(map, (id) => {
    const [feature, address] = state.shown.get(id) ?? [];
    if (feature) showDetails(element("details"), feature, address);
  });
  const { onTileClick } = await import("./tiles.mjs");
  onTileClick(map, { asset: (found) => guarded(openAsset(found)), area: openArea, cluster: openCluster });
  let waiting;
  map.on("moveend", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => guarded(drawFeatures()), 200);
  });
  await guarded(redraw());
  frame.dataset.ready = "yes";
}

start();
