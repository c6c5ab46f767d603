// The landing page of a city: counts in words and as a table, and the map of what is counted.

import { showDetails } from "./details.mjs";

const MOST = 10000;
const MOST_LABELS = 40;
// An area narrower than this on the screen gets no label.
const LEAST_WIDTH_PX = 34;
// Areas narrower than this share of the city are specks on a map of all of it: it starts at the fullest one.
const SPECK_SHARE = 0.05;
const element = (id) => document.getElementById(id);
const frame = element("inventory");
const { root, today } = frame.dataset;
const box = ["west", "south", "east", "north"].map((side) => Number(frame.dataset[side]));
const state = { areas: [], shown: new Map(), labels: [], map: null, drawing: null };
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
    const area = state.areas.find((each) => each.properties.code === row.area && each.properties.level === chosen().level);
    if (area) makeGoTo(line, area);
  }
  element("counts").replaceChildren(table);
}

function makeGoTo(line, area) {
  const go = async () => {
    if (!state.map) return;
    const { boundsOf } = await import("./map.mjs");
    state.map.fitBounds(boundsOf(area.geometry), { padding: 40 });
  };
  line.tabIndex = 0;
  line.title = "Show on the map";
  line.addEventListener("click", go);
  line.addEventListener("keydown", (event) => event.key === "Enter" && go());
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
  return (parts ?? whole).counts;
}

async function loadAreas() {
  const { asOf } = chosen();
  const found = await fetched(`${root}/collections/areas/items`, { datetime: asOf, limit: MOST });
  state.areas = found.features;
  const levels = [...new Map(found.features.map((each) => [each.properties.level, each.properties.level_rank]))];
  levels.sort((one, other) => one[1] - other[1]);
  const select = element("level");
  const before = select.value || remembered().get("level");
  select.replaceChildren(new Option("whole city", ""), ...levels.map(([name]) => new Option(name, name)));
  select.value = levels.some(([name]) => name === before) ? before : (levels.at(-1)?.[0] ?? "");
}

async function drawPlaces(rows) {
  const { show, label } = await import("./map.mjs");
  const { asOf, level, kind } = chosen();
  const areas = state.areas.filter((each) => !level || each.properties.level === level);
  show(state.map, "areas", { type: "FeatureCollection", features: areas });
  show(state.map, "surveyed", await fetched(`${root}/collections/surveys/items`, { datetime: `../${asOf}`, limit: 2000, ...(kind && { class: kind }) }));
  state.labels.forEach(({ marker }) => marker.remove());
  state.labels = [];
  if (!level || areas.length > MOST_LABELS) return;
  const { boundsOf } = await import("./map.mjs");
  for (const area of areas) {
    const row = rows.find((each) => each.area === area.properties.code);
    const count = !row || row.count === null ? "not surveyed" : number.format(row.count);
    const bounds = boundsOf(area.geometry);
    const full = `${area.properties.name}: ${count}`;
    const marker = label(state.map, bounds.getCenter(), full);
    const brief = row && row.count !== null ? count : "";
    state.labels.push({ marker, bounds, full, brief, fullWidth: marker.getElement().offsetWidth });
  }
  sortLabels();
}

function sortLabels() {
  for (const { marker, bounds, full, brief, fullWidth } of state.labels) {
    const width = state.map.project(bounds.getNorthEast()).x - state.map.project(bounds.getSouthWest()).x;
    const text = width < fullWidth ? brief : full;
    marker.getElement().textContent = text;
    marker.getElement().hidden = !text || width < LEAST_WIDTH_PX;
  }
}

async function findStart() {
  const { boundsOf } = await import("./map.mjs");
  const areas = state.areas.filter((each) => each.properties.level_rank === 0);
  const width = (bounds) => bounds.getEast() - bounds.getWest();
  const widest = Math.max(0, ...areas.map((each) => width(boundsOf(each.geometry))));
  if (!areas.length || widest > SPECK_SHARE * (box[2] - box[0])) return;
  const { asOf, kind } = chosen();
  const level = areas[0].properties.level;
  const { counts } = await fetched(`${root}/counts`, { as_of: asOf, level, ...(kind && { class: kind }) });
  const count = (area) => counts.find((row) => row.area === area.properties.code)?.count ?? 0;
  const fullest = areas.reduce((one, other) => (count(other) > count(one) ? other : one));
  state.map.fitBounds(boundsOf(fullest.geometry), { padding: 40, animate: false });
}

async function drawFeatures() {
  state.drawing?.abort();
  state.drawing = new AbortController();
  const { show, withShownIds } = await import("./map.mjs");
  const { asOf, kind } = chosen();
  const view = state.map.getBounds();
  const clamp = (value, most) => Math.max(-most, Math.min(most, value)).toFixed(7);
  const bbox = [clamp(view.getWest(), 180), clamp(view.getSouth(), 90), clamp(view.getEast(), 180), clamp(view.getNorth(), 90)];
  const moves = element("class").selectedOptions[0]?.dataset.kind === "mobile";
  const address = `${root}/collections/${moves ? "observations" : "assets"}/items`;
  const asked = {
    bbox: bbox.join(","), limit: MOST, ...(kind && { class: kind }), ...(moves && { current: true }),
    // Today is asked for as “now”, which the service answers faster.
    ...(asOf !== today && { datetime: asOf }),
  };
  const found = withShownIds(await fetched(address, asked, state.drawing.signal));
  state.shown = new Map(found.features.map((each) => [each.properties.shown_id, [each, `${address}/${encodeURIComponent(each.id)}?f=html`]]));
  show(state.map, "features", found);
  const all = found.numberMatched ?? Infinity;
  const cut = found.links.some((each) => each.rel === "next");
  say(cut ? `Only ${number.format(found.numberReturned)}${Number.isFinite(all) ? ` of ${number.format(all)}` : ""} are drawn: zoom in to see all.` : null);
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
  await loadAreas();
  remember();
  const rows = await drawCounts();
  if (!state.map) return;
  await Promise.all([drawPlaces(rows), drawFeatures(), drawImagery()]);
}

async function start() {
  element("as-of").value = remembered().get("as_of") ?? today;
  if (remembered().get("class")) element("class").value = remembered().get("class");
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
  map.on("zoom", sortLabels);
  await guarded(findStart());
  drawing.onClick(map, (id) => {
    const [feature, address] = state.shown.get(id) ?? [];
    if (feature) showDetails(element("details"), feature, address);
  });
  let waiting;
  map.on("moveend", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => guarded(drawFeatures()), 200);
  });
  await guarded(redraw());
  frame.dataset.ready = "yes";
}

start();
