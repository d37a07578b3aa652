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
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const quoted = value => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  // Every point that a figure draws, with the exact numbers: one row each.
  const table = figure => {
    const rows = [["panel", "series", "what", "x", "y", "half_width"]];
    for (const panel of figure.querySelectorAll(".panel")) {
      const title = panel.querySelector("h3").textContent;
      const {data} = JSON.parse(panel.querySelector(".plot-data").textContent);
      for (const trace of data) {
        const bars = (trace.error_y || trace.error_x || {}).array || [];
        (trace.x || []).forEach((x, i) => {
          if (trace.y[i] === null) return;
          rows.push([title, trace.legendgroup, trace.name, x, trace.y[i], bars[i]]);
        });
      }
    }
    return rows.map(row => row.map(quoted).join(",") + "\n").join("");
  };
  const picture = async figure => {
    const panels = [...figure.querySelectorAll(".panel")];
    const frame = figure.querySelector(".panels").getBoundingClientRect();
    const colours = getComputedStyle(document.documentElement);
    const family = getComputedStyle(document.body).fontFamily;
    const keys = [...figure.querySelectorAll(".keys button[aria-pressed=true]")];
    const room = keys.length ? 66 : 40, edge = 16, scale = 2;
    const canvas = document.createElement("canvas");
    canvas.width = (frame.width + 2 * edge) * scale;
    canvas.height = (frame.height + room + edge) * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = colours.getPropertyValue("--raised");
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = colours.getPropertyValue("--ink");
    pen.font = `600 17px ${family}`;
    pen.fillText(figure.querySelector("h2").textContent, edge, 26);
    pen.font = `13px ${family}`;
    let along = edge;
    for (const key of keys) {
      const mark = key.querySelector("line, rect");
      const colour = getComputedStyle(mark);
      pen.strokeStyle = mark.tagName === "line" ? colour.stroke : colour.fill;
      pen.lineWidth = mark.tagName === "line" ? 2.5 : 12;
      const dashes = mark.getAttribute("stroke-dasharray") || "";
      pen.setLineDash(dashes.split(" ").filter(Boolean).map(Number));
      pen.beginPath();
      pen.moveTo(along, 46);
      pen.lineTo(along + 26, 46);
      pen.stroke();
      pen.fillStyle = colours.getPropertyValue("--ink");
      pen.fillText(key.textContent.trim(), along + 32, 50);
      along += pen.measureText(key.textContent.trim()).width + 54;
    }
    pen.font = `600 13px ${family}`;
    for (const panel of panels) {
      const place = panel.getBoundingClientRect();
      const plot = panel.querySelector(".plot");
      const {width, height, top} = plot.getBoundingClientRect();
      const image = new Image();
      image.src = await Plotly.toImage(plot, {format: "png", width, height, scale});
      await image.decode();
      const x = place.left - frame.left + edge, y = place.top - frame.top + room;
      pen.fillText(panel.querySelector("h3").textContent, x, y + 14);
      pen.drawImage(image, x, top - frame.top + room, width, height);
    }
    return new Promise(done => canvas.toBlob(done, "image/png"));
  };
  for (const button of document.querySelectorAll("[data-save]"))
    button.addEventListener("click", async () => {
      const figure = button.closest("figure"), kind = button.dataset.save;
      const blob = kind === "png"
        ? await picture(figure)
        : new Blob([table(figure)], {type: "text/csv"});
      save(blob, `${figure.id}.${kind}`);
    });
  dark.addEventListener("change", drawAll);
  mouse.addEventListener("change", drawAll);
  drawAll();
})();
