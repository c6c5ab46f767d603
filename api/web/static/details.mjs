// The properties of one feature, as text: whatever a property says, it stays inert.

export function showDetails(panel, feature, address) {
  panel.replaceChildren();
  const header = document.createElement("header");
  const title = document.createElement("h2");
  const link = document.createElement("a");
  link.href = address;
  link.textContent = String(feature.id);
  title.append(link);
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", () => (panel.hidden = true));
  header.append(title, close);
  const list = document.createElement("dl");
  for (const [name, value] of Object.entries(feature.properties)) {
    if (value === null || name === "shown_id") continue;
    const term = document.createElement("dt");
    term.textContent = name.replaceAll("_", " ");
    const said = document.createElement("dd");
    said.textContent = worded(value);
    list.append(term, said);
  }
  panel.append(header, list);
  panel.hidden = false;
}

function worded(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 3 });
  if (/^\d{4}-\d\d-\d\dT/.test(value)) return value.slice(0, 16).replace("T", " ") + " UTC";
  return String(value);
}
