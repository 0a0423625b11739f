// Draws every picture of the page, and makes the prefix tree one to walk through by mouse and keyboard.
const specs = JSON.parse(document.getElementById("specs").textContent);
const drawn = {};

for (const [id, spec] of Object.entries(specs)) {
  const place = document.getElementById(id);
  place.replaceChildren();
  drawn[id] = vegaEmbed(place, spec, { renderer: "svg", actions: false, tooltip: { theme: "custom" } }).then(
    (result) => result.view,
    (error) => {
      place.textContent = `This picture cannot be drawn: ${error.message}`;
      throw error;
    },
  );
}

for (const controls of document.querySelectorAll("[data-icicle]")) {
  const id = controls.dataset.icicle;
  drawn[id].then((view) => walk(controls, view, specs[id]));
}

function walk(controls, view, spec) {
  const blocks = spec.data.values;
  const all = Math.max(...blocks.map((block) => block.x2));
  const found = controls.querySelector(".found");
  let from = 0;
  let to = all;

  function show(low, high) {
    const wide = Math.min(Math.max(high - low, 1), all);
    from = Math.min(Math.max(low, 0), all - wide);
    to = from + wide;
    view.signal("from", from).signal("to", to).runAsync();
  }

  const moves = {
    in: () => show(from + (to - from) / 4, to - (to - from) / 4),
    out: () => show(from - (to - from) / 2, to + (to - from) / 2),
    left: () => show(from - (to - from) / 3, to - (to - from) / 3),
    right: () => show(from + (to - from) / 3, to + (to - from) / 3),
    all: () => show(0, all),
  };
  for (const button of controls.querySelectorAll("button")) {
    button.addEventListener("click", () => moves[button.dataset.do]());
  }

  view.addEventListener("click", (event, item) => {
    if (item && item.datum && item.datum.x2 > item.datum.x) show(item.datum.x, item.datum.x2);
  });

  const search = controls.querySelector("input");
  search.addEventListener("input", () => {
    const needle = search.value.trim().toLowerCase();
    view.signal("needle", needle).runAsync();
    const hits = needle ? blocks.filter((block) => block.label.toLowerCase().includes(needle)) : [];
    found.textContent = needle ? `${hits.length} prefixes` : "";
  });
  search.addEventListener("keydown", (event) => {
    const needle = search.value.trim().toLowerCase();
    if (event.key === "Escape") moves.all();
    if (event.key !== "Enter" || !needle) return;
    // The whole tree has every request's name below it: what is meant is the smallest block.
    const hits = blocks.filter((block) => block.label.toLowerCase().includes(needle));
    hits.sort((a, b) => a.x2 - a.x - (b.x2 - b.x));
    if (hits.length) show(hits[0].x, hits[0].x2);
  });
}
