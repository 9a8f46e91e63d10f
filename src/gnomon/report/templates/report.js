(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

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
    // dragging must scroll the page on a phone; elsewhere it zooms
    result.dragmode = touch ? false : "zoom";
    return result;
  }

  function draw() {
    for (const element of document.querySelectorAll("[data-figure]")) {
      const figure = figures[element.dataset.figure];
      Plotly.react(element, figure.data, themed(figure.layout, element.clientWidth), config);
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
