// Filters and sorting of the book's tables, the theme of record pages, excerpts of search results. No request is made.
"use strict";

// Record pages have no theme script of their own: they take the choice that the book has stored.
if (!document.documentElement.dataset.mode) {
  let stored = null;
  try { stored = localStorage.getItem("theme"); } catch { /* a browser without storage for files */ }
  const dark = stored === "dark" || (stored !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function switchTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); localStorage.setItem("mode", root.dataset.theme); } catch { }
}

function filterRows(form, table) {
  const wanted = [...form.querySelectorAll("[data-filter]")]
    .filter((field) => (field.type === "checkbox" ? field.checked : field.value.trim()))
    .map((field) => [field.dataset.filter, field.value.trim().toLowerCase()]);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !wanted.every(([key, value]) =>
      key === "text" ? row.textContent.toLowerCase().includes(value) : row.dataset[key].toLowerCase() === value);
    shown += !row.hidden;
  }
  form.querySelector("output").textContent = `${shown} of ${table.tBodies[0].rows.length} shown`;
}

function sortKey(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = parseFloat(text);
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const descending = head.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [sortKey(a, column), sortKey(b, column)];
    const order = typeof x === typeof y ? (x < y ? -1 : Number(x > y)) : typeof x === "number" ? -1 : 1;
    return descending ? -order : order;
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    head.append(button);
  });
}

// A link into a folded part unfolds it.
function unfoldTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
}

// Sphinx's search fetches every page for its excerpt, which a browser forbids for files; these come from a script.
function excerpt(text, terms) {
  const lower = text.toLowerCase();
  const places = terms.map((term) => lower.indexOf(term)).filter((place) => place >= 0);
  const start = Math.max(0, (places.length ? Math.min(...places) : 0) - 120);
  return (start ? "… " : "") + text.slice(start, start + 240).trim() + " …";
}

function addExcerpts(results) {
  const query = new URLSearchParams(location.search).get("q") || "";
  const terms = query.toLowerCase().split(/[^\p{L}\p{N}_]+/u).filter(Boolean);
  const add = (item) => {
    const link = item.querySelector && item.querySelector("a[data-score]");
    const page = link && link.getAttribute("href").replace(/\.html.*$/, "");
    if (!link || !(page in bookTexts) || item.querySelector(".context")) return;
    const shown = document.createElement("p");
    shown.className = "context";
    shown.textContent = excerpt(bookTexts[page], terms);
    item.append(shown);
  };
  new MutationObserver(() => results.querySelectorAll("li").forEach(add)).observe(results, {childList: true, subtree: true});
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("form.filters").forEach((form) => {
    const table = document.getElementById(form.dataset.for);
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => filterRows(form, table));
    filterRows(form, table);
  });
  document.querySelectorAll("[data-switch-theme]").forEach((button) => button.addEventListener("click", switchTheme));
  const results = document.getElementById("search-results");
  if (results && typeof bookTexts !== "undefined") addExcerpts(results);
  window.addEventListener("hashchange", unfoldTarget);
  unfoldTarget();
});
