"use strict";
(() => {
  const FIRST_ROWS = 200;
  const counted = new Intl.NumberFormat("en");

  // Theme. Browsers may refuse storage to files: then the choice holds until the page is left.
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const nameTheme = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  try {
    const kept = localStorage.getItem("siamese-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
    try { localStorage.setItem("siamese-theme", root.dataset.theme); } catch { /* no storage */ }
  });
  prefersDark.addEventListener("change", nameTheme);
  nameTheme();
  button.hidden = false;

  const plain = (text) => text.normalize("NFKC").toLocaleLowerCase();

  for (const box of document.querySelectorAll("[data-live]")) {
    const body = box.querySelector("tbody");
    const headers = [...box.querySelectorAll("thead th")];
    const filter = box.querySelector("input");
    const found = box.querySelector("output");
    const more = box.querySelector(".more");
    let rows = [...body.rows];
    let all = false;
    const names = new Map(rows.map((row) => [row, plain(row.cells[0].textContent)]));

    const show = () => {
      const wanted = plain(filter.value.trim());
      let matching = 0;
      for (const row of rows) {
        const fits = names.get(row).includes(wanted);
        row.classList.toggle("other", !fits);
        row.classList.toggle("late", fits && !all && matching >= FIRST_ROWS);
        matching += fits;
      }
      found.textContent = wanted
        ? `${counted.format(matching)} of ${counted.format(rows.length)}`
        : `${counted.format(rows.length)} in all`;
      more.hidden = all || matching <= FIRST_ROWS;
      more.textContent = `Show all ${counted.format(matching)}`;
    };

    const collator = new Intl.Collator(undefined, { numeric: true });
    const sort = (column, direction) => {
      const numeric = headers[column].classList.contains("number");
      const keyed = rows.map((row) => {
        const cell = row.cells[column];
        const text = numeric ? cell.dataset.key : cell.textContent.trim();
        return { row, missing: text === "", key: numeric ? Number(text) : text };
      });
      const compare = numeric ? (a, b) => a.key - b.key : (a, b) => collator.compare(a.key, b.key);
      keyed.sort((a, b) => a.missing - b.missing || (a.missing ? 0 : direction * compare(a, b)));
      rows = keyed.map(({ row }) => row);
      body.append(...rows);
      headers.forEach((header, number) => {
        const order = direction > 0 ? "ascending" : "descending";
        header.setAttribute("aria-sort", number === column ? order : "none");
      });
      show();
    };

    headers.forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        sort(column, header.getAttribute("aria-sort") === "ascending" ? -1 : 1);
      });
    });
    filter.addEventListener("input", show);
    more.addEventListener("click", () => { all = true; show(); });
    box.classList.add("ready");
    show();
  }
})();
