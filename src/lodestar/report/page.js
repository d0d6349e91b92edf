"use strict";
// Draws the figures in the theme's colours, and gives the page its two buttons. No network, no storage.
(() => {
  const root = document.documentElement;
  const darkScheme = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("script[data-figure]")].map((script) => ({
    place: document.getElementById(script.dataset.figure),
    spec: JSON.parse(script.textContent),
  }));

  const fail = (what) => {
    root.dataset.errors = `${root.dataset.errors ?? ""}${what}\n`;
  };
  addEventListener("error", (event) => fail(event.message));
  addEventListener("unhandledrejection", (event) => fail(String(event.reason)));
  addEventListener("securitypolicyviolation", (event) => fail(`blocked: ${event.blockedURI}`));

  // A computed colour is always rgb(), which plotly reads; a variable's own text need not be.
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };

  const isColour = (value) => typeof value === "string" && value.startsWith("--");
  const themed = (value, key = "") => {
    if (isColour(value) && /color/i.test(key)) return colour(value);
    if (Array.isArray(value)) return /color/i.test(key) ? value.map((v) => themed(v, key)) : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k)]));
  };

  const axis = () => ({
    gridcolor: colour("--grid"),
    linecolor: colour("--grid"),
    zerolinecolor: colour("--faint"),
    tickfont: { size: 11 },
  });
  const layout = (own) => ({
    ...own,
    xaxis: { ...axis(), ...own.xaxis },
    yaxis: { ...axis(), ...own.yaxis },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--muted") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 12, r: 12, t: 12, b: 12 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: {
      bgcolor: colour("--surface"),
      bordercolor: colour("--border"),
      font: { color: colour("--text") },
    },
    hovermode: "closest",
    // A finger on a figure scrolls the page; a mouse selects the part to look at.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  });
  const config = { displayModeBar: false, displaylogo: false, responsive: true };
  const draw = () =>
    Promise.all(
      figures.map(({ place, spec }) =>
        Plotly.react(place, structuredClone(spec.data).map((t) => themed(t)), layout(themed(spec.layout)), config),
      ),
    );

  const load = async () => {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };

  const toggle = document.getElementById("theme");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : darkScheme.matches;
    root.dataset.theme = dark ? "light" : "dark";
    draw();
  });

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      getSelection().selectAllChildren(source);
      // A sandboxed frame may have no clipboard: the text is then selected, one key from copied.
      const done = await navigator.clipboard?.writeText(source.textContent).then(() => true, () => false);
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  // Paper is white and unfolds nothing by itself.
  let folded = [];
  const resized = () => Promise.all(figures.map(({ place }) => Plotly.Plots.resize(place)));
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((block) => (block.open = true));
    root.classList.add("printing");
    if (figures.length && root.dataset.figures === "drawn") draw().then(resized);
  });
  addEventListener("afterprint", () => {
    folded.forEach((block) => (block.open = false));
    root.classList.remove("printing");
    if (figures.length && root.dataset.figures === "drawn") draw().then(resized);
  });

  const start = async () => {
    if (figures.length) {
      await load();
      await draw();
      darkScheme.addEventListener("change", draw);
    }
    root.dataset.figures = "drawn";
  };
  start().catch((error) => {
    fail(String(error));
    for (const { place } of figures) {
      place.textContent = `This figure could not be drawn: ${error}. A browser of 2023 or later draws it.`;
    }
  });
})();
