// What is wider than the paper's column after all is made smaller, so that nothing is cut.
"use strict";

function fit() {
  const width = document.querySelector("main").clientWidth;
  for (const element of document.querySelectorAll("table, pre, mjx-container[display], svg")) {
    if (element.parentElement.closest("table, svg, mjx-container")) continue;
    const needed = element.getBoundingClientRect().right - document.querySelector("main").getBoundingClientRect().left;
    if (needed > width + 1) element.style.zoom = width / needed;
  }
}

window.addEventListener("load", () => {
  const typeset = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
  typeset.then(fit);
});
