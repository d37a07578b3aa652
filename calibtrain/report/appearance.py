"""How the page looks and draws: style sheet, palettes for light and dark, and the drawing script.

The sequential colours sample the plasma map over the part of it that stands out from each scheme's
background; the categorical ones are those of Okabe and Ito, adjusted for contrast.
"""

_PLASMA = [
    "0d0887",
    "2f0596",
    "4903a0",
    "6100a7",
    "7801a8",
    "8e0ca4",
    "a21d9a",
    "b42e8d",
    "c43e7f",
    "d24f71",
    "de6164",
    "e97257",
    "f3854b",
    "f99a3e",
    "fdaf31",
    "fdc627",
    "f8df25",
    "f0f921",
]
_SPAN = {"light": (0.04, 0.68), "dark": (0.38, 0.95)}
_CATEGORIES = {
    "light": ("#0072b2", "#d55e00", "#008f68", "#b5558a", "#8a5a00", "#2a93d5", "#6b7280"),
    "dark": ("#56b4e9", "#f0803c", "#2fc79a", "#e08fbb", "#e6b422", "#8ac7f2", "#9aa3af"),
}
_ROLES = {
    "light": {
        "page": "#f7f7f5",
        "raised": "#ffffff",
        "ink": "#1a1c20",
        "ink-soft": "#565c66",
        "line": "#d9dbdf",
        "grid": "#e9eaec",
        "link": "#0b5cad",
        "over": "#a8420f",
        "under": "#0b5cad",
        "good": "#0b6b4b",
        "warn": "#8a5a00",
        "bad": "#a61b1b",
        "bad-wash": "#fdf0ef",
    },
    "dark": {
        "page": "#121418",
        "raised": "#1a1d23",
        "ink": "#eceef1",
        "ink-soft": "#a7aeb9",
        "line": "#363b45",
        "grid": "#2a2e36",
        "link": "#7db8f0",
        "over": "#f0956a",
        "under": "#7db8f0",
        "good": "#4fd1a1",
        "warn": "#e6b422",
        "bad": "#ff8f85",
        "bad-wash": "#2d1a1b",
    },
}


def sequential(shades: int, scheme: str) -> list[str]:
    """Colours for ordered groups, in even steps of lightness."""
    low, high = _SPAN[scheme]
    places = [low + (high - low) * i / max(shades - 1, 1) for i in range(shades)]
    return [_plasma(place) for place in places]


def _plasma(place: float) -> str:
    scaled = place * (len(_PLASMA) - 1)
    index = min(int(scaled), len(_PLASMA) - 2)
    part = scaled - index
    ends = [[int(_PLASMA[i][j : j + 2], 16) for j in (0, 2, 4)] for i in (index, index + 1)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(*ends, strict=True))


def _variables(scheme: str, shades: int) -> str:
    named = dict(_ROLES[scheme])
    named |= {f"seq-{i}": colour for i, colour in enumerate(sequential(shades, scheme))}
    named |= {f"cat-{i}": colour for i, colour in enumerate(_CATEGORIES[scheme])}
    return ":root{" + "".join(f"--{name}:{value};" for name, value in named.items()) + "}"


def style_sheet(shades: int) -> str:
    """The page's style, with `shades` sequential colours."""
    return (
        _variables("light", shades)
        + "@media screen and (prefers-color-scheme:dark){"
        + _variables("dark", shades)
        + "}"
        + _RULES
    )


_RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1230px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;margin:.1em 0 .5em;letter-spacing:-.015em;
  overflow-wrap:anywhere}
h2{font-size:1.22rem;line-height:1.3;margin:0 0 .6em;letter-spacing:-.005em;overflow-wrap:anywhere}
h3{font-size:.9rem;font-weight:600;margin:0 0 2px;overflow-wrap:anywhere}
a{color:var(--link)}
.kicker{color:var(--ink-soft);font-size:.8rem;letter-spacing:.07em;text-transform:uppercase;margin:0}
.lead{font-size:1.06rem;max-width:84ch;margin:0 0 12px;text-wrap:pretty;overflow-wrap:anywhere}
.limits{color:var(--ink-soft);font-size:.92rem;max-width:96ch;margin:0 0 28px;text-wrap:pretty}
section,figure{margin:0 0 28px;padding:22px 24px;background:var(--raised);
  border:1px solid var(--line);border-radius:10px;min-width:0}
figcaption{color:var(--ink-soft);font-size:.92rem;margin-top:14px;max-width:92ch;text-wrap:pretty}
.figure-number{color:var(--ink-soft);font-weight:400}
.note{color:var(--ink-soft);font-size:.88rem;margin:10px 0 0;max-width:92ch}
.notice{border-color:var(--bad);background:var(--bad-wash)}
.notice h2{color:var(--bad)}
.notice ul{margin:0;padding-left:1.2em}
.notice li{overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus-visible,.keys button:focus-visible,summary:focus-visible{
  outline:2px solid var(--link);outline-offset:2px}
.scroll+.caption,.facts+.caption,.facts+.scroll,pre+.facts{margin-top:22px}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
.caption{color:var(--ink-soft);font-size:.86rem;margin:0 0 8px}
th,td{padding:7px 8px;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{padding-left:2px}
thead th{vertical-align:bottom;border-bottom:1.5px solid var(--ink-soft)}
thead small{display:block;font-weight:400;color:var(--ink-soft);font-size:.78rem}
tbody th{font-weight:600;white-space:normal}
.prose{white-space:normal;min-width:11em}
tbody tr:last-child>*{border-bottom:0}
.num{text-align:right}
.half{display:block;color:var(--ink-soft);font-size:.82em;letter-spacing:-.015em}
td{vertical-align:top}tbody th{vertical-align:top}
tbody th:first-child,thead th:first-child{position:sticky;left:0;background:var(--raised)}
.explained{min-width:15em;max-width:34em}
.explained small,.titled small{display:block;font-weight:400;color:var(--ink-soft);font-size:.9em;
  line-height:1.4}
.signature{white-space:normal;min-width:20em;overflow-wrap:anywhere}
.scroll+.note,.note+.scroll,.note+.caption,.scroll+details,details+.caption{margin-top:14px}
figcaption+.note,figcaption+.scroll{margin-top:14px}
.status{font-size:.84rem;font-weight:600;color:var(--ink-soft)}
.status.done{color:var(--good)}.status.failed{color:var(--bad)}.status.stopped{color:var(--warn)}
details{margin-top:18px}
summary{cursor:pointer;color:var(--link);font-size:.92rem;margin-bottom:10px}
code,pre{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{overflow-x:auto;margin:0;padding:10px 12px;border:1px solid var(--line);border-radius:6px;
  background:var(--page)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,130px),1fr));
  gap:14px 24px;margin:0 0 6px}
.facts dt{color:var(--ink-soft);font-size:.8rem}
.facts dd{margin:0;overflow-wrap:anywhere}
.panels{display:grid;gap:26px 28px;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.panels.thirds{grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.panels.quarters{grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr))}
.panel{min-width:0}
.panel.full{grid-column:1/-1}
.plot{width:100%}
.keys{display:flex;flex-wrap:wrap;gap:4px 6px;margin:0 0 14px;padding:0;list-style:none}
.keys button{display:flex;align-items:center;gap:8px;font:inherit;font-size:.88rem;color:var(--ink);
  background:none;border:1px solid transparent;border-radius:6px;padding:3px 8px 3px 4px;
  cursor:pointer;text-align:left}
.keys button:hover{border-color:var(--line)}
.keys button[aria-pressed=false]{opacity:.4;text-decoration:line-through}
.keys svg{flex:none}
footer{color:var(--ink-soft);font-size:.85rem}
@media (max-width:600px){
  main{padding:24px 12px 40px}
  section,figure{padding:16px 14px;margin-bottom:18px}
  .lead{font-size:1rem}
  tbody th:first-child{min-width:7em;overflow-wrap:anywhere}
  tbody th.explained{min-width:10.5em;max-width:12em}
}
@media print{section,figure{break-inside:avoid}}
"""

SCRIPT = """
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const mouse = matchMedia("(hover: hover) and (pointer: fine)");
  const hidden = new WeakMap();
  const paint = (value, colours) => {
    if (typeof value === "string") {
      const name = /^var\\((--[\\w-]+)\\)$/.exec(value);
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
    layout.font.family = getComputedStyle(document.body).fontFamily;
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
"""
