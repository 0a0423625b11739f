"""The page at `/`: batches as they go on, for whoever gives the key. It asks this server alone."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>blendrun batches</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9d9e0; --ground: #fcfcfd; --good: #1a7f4b;
  --bad: #b3261e; --warm: #8a5a00; --bar: #3e63dd; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f; --ground: #111113;
  --good: #71d083; --bad: #ff9592; --warm: #ffca16; --bar: #849dff; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
p { color: var(--soft); margin: 0 0 1.25rem; }
form { display: flex; gap: .5rem; flex-wrap: wrap; margin: 0 0 1.5rem; align-items: end; }
label { display: block; font-size: .875rem; color: var(--soft); }
input, button { font: inherit; padding: .4rem .7rem; border: 1px solid var(--soft); border-radius: .4rem;
  background: transparent; color: inherit; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: .8rem; color: var(--soft); font-weight: 600; }
th, td { padding: .55rem .75rem .55rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
code { font-size: .85rem; overflow-wrap: anywhere; }
progress { width: 8rem; height: .55rem; accent-color: var(--bar); display: block; margin-top: .35rem; }
.completed { color: var(--good); } .failed, .expired { color: var(--bad); }
.cancelled, .cancelling { color: var(--warm); }
.link { border: 0; padding: 0; text-decoration: underline; color: var(--bar); cursor: pointer; }
.note { color: var(--soft); font-size: .875rem; }
[hidden] { display: none !important; }
@media (max-width: 40rem) { .wide { display: none; } progress { width: 6rem; } }
</style>
</head>
<body>
<main>
<h1>Batches</h1>
<p id="state" role="status">Give the server's key to see the batches that belong to it.</p>
<form id="form">
<div><label for="key">Key</label><input id="key" type="password" autocomplete="off" size="36"></div>
<button>Show</button>
</form>
<div class="table" id="table" hidden tabindex="0" role="region" aria-label="Batches">
<table>
<thead><tr><th scope="col">Batch</th><th scope="col">Status</th><th scope="col">Requests</th>
<th scope="col" class="wide">Created</th><th scope="col">Took</th></tr></thead>
<tbody id="rows"></tbody>
</table>
</div>
</main>
<script>
const at = id => document.getElementById(id);
let told = "", shown = "";
let key = sessionStorage.getItem("key") || "";
const made = (name, text, kind) => {
  const found = document.createElement(name);
  if (text !== undefined) found.textContent = text;
  if (kind) found.className = kind;
  return found;
};
const span = seconds => seconds < 90 ? seconds + " s" : seconds < 5400 ? Math.round(seconds / 60) + " min"
  : (seconds / 3600).toFixed(1) + " h";
const ended = batch => batch.completed_at || batch.failed_at || batch.cancelled_at || batch.expired_at;
function row(batch) {
  const counts = batch.request_counts, done = counts.completed + counts.failed, line = made("tr");
  const name = made("td");
  name.append(made("code", batch.id));
  for (const [label, value] of Object.entries(batch.metadata || {}))
    name.append(made("div", label + ": " + value, "note"));
  const status = made("td", batch.status.replace("_", " "), batch.status);
  if (batch.errors) status.append(made("div", batch.errors.data[0].message, "note"));
  for (const note of batch.notes || []) status.append(made("div", note, "note"));
  const requests = made("td", done.toLocaleString() + " of " + counts.total.toLocaleString());
  if (counts.failed) requests.append(made("div", counts.failed.toLocaleString() + " failed", "failed"));
  if (counts.total) {
    const bar = made("progress");
    bar.max = counts.total; bar.value = done;
    bar.setAttribute("aria-label", "answered");
    requests.append(bar);
  }
  const created = made("td", new Date(batch.created_at * 1000).toLocaleString(), "wide");
  const end = ended(batch) || Math.round(Date.now() / 1000);
  const took = made("td", span(end - batch.created_at));
  if (ended(batch) && batch.in_progress_at) {
    const link = made("button", "Report", "link");
    link.setAttribute("aria-label", "Report of " + batch.id);
    link.addEventListener("click", () => report(batch.id));
    took.append(document.createElement("br"), link);
  }
  line.append(name, status, requests, created, took);
  return line;
}
async function report(id) {
  const headers = {Authorization: "Bearer " + key};
  const answer = await fetch("v1/batches/" + id + "/report", {method: "POST", headers});
  const found = await answer.json();
  if (answer.ok) location.assign(found.url);
  else { told = found.error.message; at("state").textContent = told; }
}
async function show() {
  if (!key) return;
  try {
    const answer = await fetch("v1/batches?limit=100", {headers: {Authorization: "Bearer " + key}});
    const found = await answer.json();
    if (!answer.ok) { at("state").textContent = found.error.message; at("table").hidden = true; return; }
    const going = found.data.filter(batch => !ended(batch)).length;
    at("state").textContent = found.data.length
      ? going + " going on, " + (found.data.length - going) + " ended" + (found.has_more ? " (the newest 100)" : "")
      : "No batches yet.";
    if (told) { at("state").textContent = told; told = ""; }
    // What has the focus stays as long as nothing has changed.
    const now = JSON.stringify(found.data);
    if (now !== shown || going) at("rows").replaceChildren(...found.data.map(row));
    shown = now;
    at("table").hidden = !found.data.length;
    at("form").hidden = true;
  } catch (error) {
    at("state").textContent = "The server does not answer; looking again.";
  }
}
at("form").addEventListener("submit", event => {
  event.preventDefault();
  key = at("key").value.trim();
  sessionStorage.setItem("key", key);
  show();
});
show();
setInterval(show, 2000);
</script>
</body>
</html>
"""
