(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const mouse = matchMedia("(hover: hover) and (pointer: fine)");
  const hidden = new WeakMap();
  const paint = (value, colours) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? colours.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map(item => paint(item, colours));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, colours)]));
    return value;
  };
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: mouse.matches ? "hover" : false,
    scrollZoom: false,
    modeBarButtonsToRemove: [
      "select2d", "lasso2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d",
    ],
  };
  const draw = plot => {
    const colours = getComputedStyle(document.documentElement);
    const {data, layout} = paint(JSON.parse(plot.nextElementSibling.textContent), colours);
    const off = hidden.get(plot.closest("figure")) || new Set();
    for (const trace of data) if (off.has(trace.legendgroup)) trace.visible = false;
    layout.font = {...layout.font, family: getComputedStyle(document.body).fontFamily};
    layout.autosize = true;
    // On a touch screen a finger on a plot must still scroll the page.
    layout.dragmode = mouse.matches ? "zoom" : false;
    return Plotly.react(plot, data, layout, config);
  };
  const plots = [...document.querySelectorAll(".plot")];
  const drawAll = () => plots.forEach(draw);
  for (const button of document.querySelectorAll(".keys button"))
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      if (!hidden.has(figure)) hidden.set(figure, new Set());
      const off = hidden.get(figure);
      const name = button.dataset.group;
      off.has(name) ? off.delete(name) : off.add(name);
      button.setAttribute("aria-pressed", String(!off.has(name)));
      figure.querySelectorAll(".plot").forEach(draw);
    });
  dark.addEventListener("change", drawAll);
  mouse.addEventListener("change", drawAll);
  drawAll();
})();
