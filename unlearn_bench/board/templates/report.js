"use strict";
// Sorting by a column, each group of rows within itself; a missing value is last either way.
for (const table of document.querySelectorAll("table.board")) {
  const heads = [...table.tHead.querySelectorAll("th:not(.task)")];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) sortRows(body, place, "text" in head.dataset, down);
    });
  });
}
function sortRows(body, place, asText, down) {
  const value = (row) => {
    const cell = row.cells[place];
    if (asText) return cell.querySelector("a").textContent;
    return cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
  };
  const order = (one, other) => {
    const a = value(one), b = value(other);
    if (asText) return a < b ? -1 : a > b ? 1 : 0;
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b) || 0;
    return a < b ? -1 : a > b ? 1 : 0;
  };
  const lost = (row) => !asText && Number.isNaN(value(row));
  const rows = [...body.rows].sort((one, other) =>
    lost(one) || lost(other) ? order(one, other) : down ? order(other, one) : order(one, other));
  body.append(...rows);
}
// A link to a method, or to its samples, opens its fold.
function openFold() {
  const goal = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const fold = goal && goal.closest("details");
  if (fold) { fold.open = true; (goal.matches("h4") ? goal : fold).scrollIntoView(); }
}
addEventListener("hashchange", openFold);
openFold();
