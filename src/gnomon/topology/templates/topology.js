(function () {
  "use strict";
  const figure = JSON.parse(document.getElementById("figure").textContent);
  const element = document.getElementById("network");
  const kind = document.getElementById("kind");
  const group = document.getElementById("group");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;

  function listGroups() {
    if (!group) return;
    const trails = figure.data.filter((trace) => trace.meta && trace.meta.kind === kind.value);
    group.replaceChildren(new Option("all", ""), ...trails.map((trace) => new Option(trace.meta.label, trace.meta.label)));
    group.disabled = !kind.value;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const data = figure.data.map((trace) => {
      if (!trace.meta) return trace;
      if (trace.meta.link) return Object.assign({}, trace, { line: Object.assign({}, trace.line, { color: colour("--line") }) });
      const shown = kind && trace.meta.kind === kind.value && (!group.value || trace.meta.label === group.value);
      return Object.assign({}, trace, { visible: Boolean(shown) });
    });
    const layout = Object.assign({}, figure.layout, { font: Object.assign({}, figure.layout.font, { color: colour("--ink") }) });
    layout.hoverlabel = Object.assign({}, layout.hoverlabel, { bgcolor: colour("--paper"), bordercolor: colour("--soft") });
    layout.hoverlabel.font = Object.assign({}, layout.hoverlabel.font, { color: colour("--ink") });
    // dragging must scroll the page on a phone; elsewhere it zooms
    layout.dragmode = touch ? false : "pan";
    Plotly.react(element, data, layout);
  }

  listGroups();
  draw();
  // a narrow window shows the first machine of the job, with its switch to the left of it
  const scroll = element.parentElement;
  scroll.scrollLeft = Number(element.dataset.start) - scroll.clientWidth / 2;
  dark.addEventListener("change", draw);
  if (kind) kind.addEventListener("change", () => { listGroups(); draw(); });
  if (group) group.addEventListener("change", draw);
})();
