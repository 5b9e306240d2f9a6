
"use strict";
// Entries are pictures: first those on the map, then what these are near to; the last
// ones have a name alone. `nearest` holds [entry, cosine] of each that has a picture.
const data = JSON.parse(document.getElementById("data").textContent);
const sheets = [...document.querySelectorAll("#sheets img")];
const canvas = document.getElementById("map"), chosen = document.getElementById("chosen");
const inSheet = data.columns * data.columns;
const methods = Object.keys(data.maps);
const state = { method: methods[0], x: 0, y: 0, zoom: 1, entry: null, cluster: null };

function paint(context, entry, x, y, side) {
  const place = entry % inSheet, from = data.side;
  const left = (place % data.columns) * from;
  const top = Math.floor(place / data.columns) * from;
  const sheet = sheets[Math.floor(entry / inSheet)];
  context.drawImage(sheet, left, top, from, from, x, y, side, side);
}

function fill(button) {
  const entry = Number(button.dataset.entry), picture = document.createElement("canvas");
  picture.width = picture.height = data.side;
  paint(picture.getContext("2d"), entry, 0, 0, data.side);
  button.prepend(picture);
  button.title = data.names[entry];
  button.onclick = () => choose(entry);
}

function tile(entry, caption) {
  const button = document.createElement("button");
  button.className = "tile";
  button.dataset.entry = entry;
  button.append(caption);
  if (entry < data.pictures) {
    fill(button);
  } else {
    button.disabled = true;
    button.append(` ${data.names[entry]}`);
    button.title = data.names[entry];
  }
  return button;
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function choose(entry) {
  state.entry = entry;
  const large = tile(entry, ""), near = element("div", "");
  large.classList.add("large");
  near.className = "tiles";
  near.id = "nearest";
  near.append(...data.nearest[entry].map(([other, cosine]) =>
    tile(other, cosine.toFixed(3))));
  const about = element("p", `cluster ${data.cluster[entry]}`);
  about.className = "muted";
  const name = element("strong", data.names[entry]);
  chosen.replaceChildren(large, name, about, element("h3", "Nearest"), near);
  draw();
}

// A point of the map, 0 to 1 both ways, is drawn at (point - corner) * scale.
function scale() {
  return state.zoom * Math.min(canvas.clientWidth, canvas.clientHeight);
}

function shownSide() {
  const count = data.maps[state.method].points.length;
  const whole = 0.7 * Math.min(canvas.clientWidth, canvas.clientHeight);
  return Math.min(96, Math.max(11, whole / Math.sqrt(count)) * Math.sqrt(state.zoom));
}

function corner(entry) {
  const [x, y] = data.maps[state.method].points[entry], half = shownSide() / 2;
  return [(x - state.x) * scale() - half, (y - state.y) * scale() - half];
}

function draw() {
  const sharp = window.devicePixelRatio || 1, context = canvas.getContext("2d");
  canvas.width = canvas.clientWidth * sharp;
  canvas.height = canvas.clientHeight * sharp;
  context.scale(sharp, sharp);
  const side = shownSide(), count = data.maps[state.method].points.length;
  const near = state.entry === null ? [] : data.nearest[state.entry].map(each => each[0]);
  const last = [...near, state.entry].filter(entry => entry !== null && entry < count);
  const order = [...Array(count).keys(), ...last];
  order.forEach((entry, place) => {
    const [x, y] = corner(entry), marked = place >= count;
    if (x < -side || y < -side || x > canvas.clientWidth || y > canvas.clientHeight) return;
    const faded = state.cluster !== null && data.cluster[entry] !== state.cluster;
    context.globalAlpha = faded && !marked ? 0.08 : 1;
    paint(context, entry, x, y, side);
    if (!marked) return;
    context.lineWidth = 3;
    context.strokeStyle = entry === state.entry ? "#d55e00" : "#0072b2";
    context.strokeRect(x, y, side, side);
  });
}

function entryAt(x, y) {
  const side = shownSide();
  for (let entry = data.maps[state.method].points.length - 1; entry >= 0; entry--) {
    const [left, top] = corner(entry);
    if (x >= left && x < left + side && y >= top && y < top + side) return entry;
  }
  return null;
}

function zoomBy(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = scale();
  state.zoom = Math.min(400, Math.max(0.5, state.zoom * factor));
  // What is under the pointer stays there.
  state.x += x / before - x / scale();
  state.y += y / before - y / scale();
  draw();
}

function showWhole() {
  state.zoom = 0.9;
  state.x = 0.5 - canvas.clientWidth / 2 / scale();
  state.y = 0.5 - canvas.clientHeight / 2 / scale();
  draw();
}

function press(buttons, pressed) {
  buttons.forEach(each => each.setAttribute("aria-pressed", each === pressed));
}

let grabbed = null;
canvas.addEventListener("pointerdown", event => {
  grabbed = { x: event.offsetX, y: event.offsetY, moved: 0 };
  if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", event => {
  if (!grabbed) {
    const entry = entryAt(event.offsetX, event.offsetY);
    canvas.title = entry === null ? "" : data.names[entry];
    return;
  }
  const x = event.offsetX - grabbed.x, y = event.offsetY - grabbed.y;
  grabbed = { x: event.offsetX, y: event.offsetY, moved: grabbed.moved + Math.hypot(x, y) };
  state.x -= x / scale();
  state.y -= y / scale();
  draw();
});
canvas.addEventListener("pointerup", event => {
  const entry = grabbed && grabbed.moved < 4 ? entryAt(event.offsetX, event.offsetY) : null;
  grabbed = null;
  if (entry !== null) choose(entry);
});
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });

document.getElementById("closer").onclick = () => zoomBy(1.5);
document.getElementById("farther").onclick = () => zoomBy(1 / 1.5);
document.getElementById("whole").onclick = showWhole;
const choices = [...document.querySelectorAll("[data-method]")];
choices.forEach(button => button.onclick = () => {
  state.method = button.dataset.method;
  press(choices, button);
  document.querySelectorAll("[data-axes]").forEach(each => {
    each.hidden = each.dataset.axes !== state.method;
  });
  showWhole();
});
const clusters = [...document.querySelectorAll("[data-cluster]")];
clusters.forEach(button => button.onclick = () => {
  const cluster = Number(button.dataset.cluster);
  state.cluster = state.cluster === cluster ? null : cluster;
  press(clusters, state.cluster === null ? null : button);
  canvas.scrollIntoView({ block: "nearest" });
  draw();
});
window.addEventListener("resize", draw);
// All sheets are part of the page, and ready with it.
window.addEventListener("load", () => {
  document.querySelectorAll("button[data-entry]").forEach(fill);
  showWhole();
});
