// Draws every picture of the page, and makes the prefix tree one to walk through by mouse and keyboard.
const specs = JSON.parse(document.getElementById("specs").textContent);
const drawn = {};

for (const [id, spec] of Object.entries(specs)) {
  const place = document.getElementById(id);
  // On a telephone names and legends would leave no room for what they name; cut shorter, names would be alike.
  const narrow = place.clientWidth < 480;
  spec.config.axisY.labelLimit = Math.min(spec.config.axisY.labelLimit, (narrow ? 0.45 : 0.32) * place.clientWidth);
  // Beside long names there is no room for two.
  if (narrow) spec.config.legend.columns = id.startsWith("orders") ? 1 : 2;
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
  // From where to where a block lies: by its requests, or by the tokens that sharing it saves.
  const ends = { requests: ["x", "x2"], saved: ["s", "s2"] };
  let by = "requests";
  const begin = (block) => block[ends[by][0]];
  const end = (block) => block[ends[by][1]];
  const widest = () => Math.max(1, ...blocks.map(end));
  let all = widest();
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
    if (item && item.datum && end(item.datum) > begin(item.datum)) show(begin(item.datum), end(item.datum));
  });

  controls.querySelector("select").addEventListener("change", (event) => {
    by = event.target.value;
    all = widest();
    view.signal("by", by);
    moves.all();
  });

  const has = (block, needle) => `${block.label}\n${block.example}`.toLowerCase().includes(needle);
  const search = controls.querySelector("input");
  search.addEventListener("input", () => {
    const needle = search.value.trim().toLowerCase();
    view.signal("needle", needle).runAsync();
    const hits = needle ? blocks.filter((block) => has(block, needle)) : [];
    found.textContent = needle ? `${hits.length} ${hits.length === 1 ? "prefix" : "prefixes"}` : "";
  });
  search.addEventListener("keydown", (event) => {
    const needle = search.value.trim().toLowerCase();
    if (event.key === "Escape") moves.all();
    if (event.key !== "Enter" || !needle) return;
    // The whole tree has every request's name below it: what is meant is the smallest block.
    const hits = blocks.filter((block) => has(block, needle) && end(block) > begin(block));
    hits.sort((a, b) => end(a) - begin(a) - (end(b) - begin(b)));
    if (hits.length) show(begin(hits[0]), end(hits[0]));
  });
}

// A table that is wider than its place says so.
const wide = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const before = target.previousElementSibling;
    const hint = before && before.classList.contains("hint") ? before : null;
    const needed = target.scrollWidth > target.clientWidth + 1;
    if (needed && !hint) {
      const made = document.createElement("p");
      made.className = "hint";
      made.textContent = "Scroll sideways for more columns \u2192";
      target.before(made);
    } else if (!needed && hint) {
      hint.remove();
    }
  }
});
for (const each of document.querySelectorAll(".scroll")) wide.observe(each);
