// Plots. Plotly draws; it is loaded when the first plot is shown, after the page itself.

/** Colours that colour-blind readers can tell apart (Okabe and Ito), and grey for the rest. */
export const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8b6fc0", "#f0e442", "#5a8a3a", "#a05a2c"];
export const REST = "#9aa0a6";

let loading = null;

/** Plotly, once it is there. */
export function plotly() {
  loading ||= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/console/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("plotly is missing, so nothing can be drawn: pip install 'ulogd_tw[console]'"));
    };
    document.head.append(script);
  });
  return loading;
}

/** A value of the present theme, by the name of its custom property. */
export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** What all plots have in common. */
export function layout(more = {}) {
  const ink = style("--ink"), line = style("--line");
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: COLOURS,
    font: { family: style("--face"), size: 12, color: ink }, margin: { l: 48, r: 8, t: 8, b: 32 },
    hoverlabel: { bgcolor: style("--paper"), bordercolor: line, font: { color: ink } }, showlegend: false,
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, rangemode: "tozero", ...more.yaxis },
  };
}

const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true, doubleClick: false };

/** Draw, or draw anew what has changed. Names and texts of traces must have gone through `plain`. */
export async function draw(place, traces, more = {}, config = {}) {
  const found = await plotly();
  if (place.isConnected) await found.react(place, traces, layout(more), { ...CONFIG, ...config });
  return found;
}

/** A text from outside, for Plotly: it reads some tags of HTML, which are to be seen as they are. */
export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
