(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  // without a pointer that hovers the buttons would always lie over the figure
  const config = { displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false };

  function themed(layout, width) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const result = JSON.parse(JSON.stringify(layout));
    result.font = Object.assign({}, result.font, { color: colour("--ink") });
    for (const key of Object.keys(result).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(result[key], { gridcolor: colour("--grid"), linecolor: colour("--grid") });
    }
    result.hoverlabel = Object.assign({}, result.hoverlabel, {
      bgcolor: colour("--paper"), bordercolor: colour("--soft"),
    });
    result.hoverlabel.font = Object.assign({}, result.hoverlabel.font, { color: colour("--ink") });
    if (result.xaxis.nticks) result.xaxis.nticks = width < 520 ? 4 : result.xaxis.nticks;
    if (result.xaxis.tickvals && width < 520) {
      const axis = result.xaxis;
      while (axis.tickvals.length > 6) {
        for (const key of ["tickvals", "ticktext"]) axis[key] = axis[key].filter((_, i) => i % 2 === 0);
      }
    }
    // dragging must scroll the page on a phone; elsewhere it zooms
    result.dragmode = touch ? false : "zoom";
    return result;
  }

  const drawn = new Map();

  function draw(element) {
    const figure = figures[element.dataset.figure];
    const width = element.clientWidth;
    drawn.set(element, width);
    Plotly.react(element, figure.data, Object.assign(themed(figure.layout, width), { width }), config);
  }

  const elements = Array.from(document.querySelectorAll("[data-figure]"));
  elements.forEach(draw);
  dark.addEventListener("change", () => elements.forEach(draw));
  // drawn again at once, because Plotly's own answer to a new width comes too late for a print or a picture of the page
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) if (drawn.get(target) !== target.clientWidth) draw(target);
  });
  elements.forEach((element) => observer.observe(element));
})();
