"use strict";
const $ = (id) => document.getElementById(id);
const COLOURS = ["#00b3a4", "#e8710a", "#a142f4", "#d93025", "#1a73e8", "#7cb342"];
let answer = null;
let task = "boxes";
let picture = null;

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
    $("least").hidden = task === "classes";
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
  $("table").tBodies[0].replaceChildren(rows);
  $("stage").hidden = $("table").hidden = false;
  $("classes").hidden = true;
  const { width, height, bit_depth: depth } = answer.image;
  say(`${shown.length} of ${answer.detections.length} boxes; ${width} x ${height} pixels, ${depth} bits, ` +
      `${answer.seconds.toFixed(2)} s`);
}

function cells(table, values) {
  const row = document.createElement("tr");
  for (const value of values) row.appendChild(document.createElement("td")).textContent = value;
  table.appendChild(row);
}

function drawClass() {
  const canvas = $("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const rows = document.createDocumentFragment();
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, p] of sorted) cells(rows, [name, p.toFixed(3)]);
  $("classes").tBodies[0].replaceChildren(rows);
  $("stage").hidden = $("classes").hidden = false;
  $("table").hidden = true;
  say(`${answer.category}: probability ${answer.probability.toFixed(3)}` +
      `${answer.calibrated ? "" : " (not calibrated)"}, ${answer.seconds.toFixed(2)} s`);
}

async function search(file) {
  say(`searching ${file.name} …`);
  try {
    await showModel();
    const form = new FormData();
    form.append("image", file);
    const target = task === "classes" ? "v1/classify?preview=true" : "v1/detect?preview=true&min_score=0.02";
    answer = await json(await fetch(target, { method: "POST", body: form, headers: headers() }));
    picture = new Image();
    picture.src = answer.preview;
    await picture.decode();
    if (task === "classes") drawClass();
    else draw();
  } catch (error) {
    say(error.message, true);
  }
}

$("file").addEventListener("change", (event) => event.target.files[0] && search(event.target.files[0]));
$("score").addEventListener("input", () => task === "boxes" && draw());
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
