"use strict";
const $ = (id) => document.getElementById(id);
const COLOURS = ["#00b3a4", "#e8710a", "#a142f4", "#d93025", "#1a73e8", "#7cb342"];
let answer = null;
let task = "boxes";
let picture = null;
let last = null;

function headers() {
  const token = $("token").value;
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "";
}

async function json(response) {
  if (response.status === 401) $("asktoken").hidden = false;
  const body = await response.json();
  if (!response.ok) throw new Error([body.message, body.fix].filter(Boolean).join(" "));
  return body;
}

async function showModel() {
  try {
    const m = await json(await fetch("v1/model", { headers: headers() }));
    task = m.task;
    $("least").hidden = task !== "boxes";
    $("nm").hidden = task !== "analysis";
    const revision = m.label_revision === null ? "" : `, labels revision ${m.label_revision}`;
    $("model").textContent = `${m.name ?? "model"} version ${m.model_version}${revision}: ${m.categories.join(", ")}`;
  } catch (error) {
    $("model").textContent = error.message;
  }
}

function draw() {
  const least = Number($("score").value);
  $("shown").textContent = least.toFixed(2);
  if (!answer) return;
  const canvas = $("canvas");
  const scale = picture.width / answer.image.width;
  canvas.width = picture.width;
  canvas.height = picture.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  pen.lineWidth = Math.max(1.5, picture.width / 400);
  pen.font = `${Math.max(11, picture.width / 60)}px sans-serif`;
  const names = [...new Set(answer.detections.map((d) => d.category))].sort();
  const rows = document.createDocumentFragment();
  const shown = answer.detections.filter((d) => d.score >= least);
  for (const d of shown) {
    const [x1, y1, x2, y2] = d.box.map((v) => v * scale);
    pen.strokeStyle = pen.fillStyle = COLOURS[names.indexOf(d.category) % COLOURS.length];
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    pen.fillText(d.score.toFixed(2), x1, y1 - 3);
    cells(rows, [d.category, d.score.toFixed(3), ...d.box.map((v) => v.toFixed(1))]);
  }
  show({ table: rows });
  const { width, height, bit_depth: depth } = answer.image;
  say(`${shown.length} of ${answer.detections.length} boxes; ${width} x ${height} pixels, ${depth} bits, ` +
      `${answer.seconds.toFixed(2)} s`);
}

function cells(table, values) {
  const row = document.createElement("tr");
  for (const value of values) row.appendChild(document.createElement("td")).textContent = value;
  table.appendChild(row);
}

function show(tables) {
  for (const name of ["table", "classes", "share", "particles"]) {
    $(name).hidden = !(name in tables);
    $(name).tBodies[0].replaceChildren(...(tables[name] ? [tables[name]] : []));
  }
  $("stage").hidden = false;
}

function drawPicture() {
  const canvas = $("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

const percent = (share) => share === null ? "–" : `${(100 * share).toFixed(1)} %`;
const fixed = (value) => value === null ? "–" : value.toFixed(3);

function drawAnalysis() {
  drawPicture();
  const s = answer.left_share, c = answer.counts;
  const share = document.createDocumentFragment();
  const interval = (low, high) => low === null ? "–" : `${percent(low)} to ${percent(high)}`;
  cells(share, ["as counted", percent(s.naive), interval(s.naive_low, s.naive_high)]);
  cells(share, ["corrected", percent(s.corrected), interval(s.low, s.high)]);
  const rows = document.createDocumentFragment();
  for (const p of answer.particles) {
    const size = (nm, px) => nm === null ? `${px.toFixed(1)} px` : `${nm.toFixed(1)} nm`;
    cells(rows, [p.particle, p.hand ?? p.set_aside, fixed(p.p_left), fixed(p.p_usable),
      size(p.length_nm, p.length_px), size(p.width_nm, p.width_px), `${p.turn_deg.toFixed(0)}°`]);
  }
  show({ share, particles: rows });
  say(`${c.particles} particles show their hand: ${c.left} left, ${c.right} right (orange, blue); set aside: ` +
      `${c.unusable} poses (pink), ${c.border + c.debris + c.cluster} others (grey); ` +
      `${answer.seconds.toFixed(2)} s. ${s.note}`);
}

function drawClass() {
  drawPicture();
  const rows = document.createDocumentFragment();
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, p] of sorted) cells(rows, [name, p.toFixed(3)]);
  show({ classes: rows });
  say(`${answer.category}: probability ${answer.probability.toFixed(3)}` +
      `${answer.calibrated ? "" : " (not calibrated)"}, ${answer.seconds.toFixed(2)} s`);
}

async function search(file) {
  last = file;
  say(`searching ${file.name} …`);
  try {
    await showModel();
    const form = new FormData();
    form.append("image", file);
    const size = Number($("size").value);
    const target = {
      boxes: "v1/detect?preview=true&min_score=0.02",
      classes: "v1/classify?preview=true",
      analysis: `v1/analyze?overlay=true${size > 0 ? `&pixel_size_nm=${size}` : ""}`,
    }[task];
    answer = await json(await fetch(target, { method: "POST", body: form, headers: headers() }));
    picture = new Image();
    picture.src = answer.preview ?? answer.overlay;
    await picture.decode();
    ({ boxes: draw, classes: drawClass, analysis: drawAnalysis })[task]();
  } catch (error) {
    say(error.message, true);
  }
}

$("file").addEventListener("change", (event) => event.target.files[0] && search(event.target.files[0]));
$("score").addEventListener("input", () => task === "boxes" && draw());
$("size").addEventListener("change", () => last && search(last));
$("token").addEventListener("change", showModel);
$("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) search(event.dataTransfer.files[0]);
  });
}
showModel();
