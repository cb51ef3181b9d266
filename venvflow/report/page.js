"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("data").textContent);
  const FIRST_ROWS = matchMedia("(max-width: 38rem)").matches ? 5 : 12;

  // ------------------------------------------------------------------ charts

  // Only what is named a color is one of ours: everywhere else the same words may be somebody's name.
  const filled = (value, style, isColor) => {
    if (Array.isArray(value)) return value.map((each) => filled(each, style, isColor));
    if (value !== null && typeof value === "object") {
      const of = (key) => /color/i.test(key);
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, filled(each, style, of(key))]));
    }
    if (isColor && typeof value === "string") return style.getPropertyValue(`--${value}`).trim() || value;
    return value;
  };

  let level = "all";

  const draw = (width) => {
    const style = getComputedStyle(root);
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById(`chart-${name}`);
      if (place === null) continue;
      const { data, layout } = filled(figure, style, false);
      if (name === "treemap") data[0].level = level;
      if (width) layout.width = width;
      Plotly.react(place, data, layout, { displayModeBar: false, responsive: !width });
    }
  };

  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const print = (on) => {
    if (on === printing) return;
    printing = on;
    root.classList.toggle("printing", on);
    draw(on ? 680 : 0);
  };

  if (typeof Plotly !== "undefined") {
    draw(0);
    dark.addEventListener("change", () => draw(0));
    matchMedia("print").addEventListener("change", (event) => print(event.matches));
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
  }

  // The list leads wherever a click does: to what is around the part that is open, and to what is in it.
  const open = document.getElementById("open-part");
  const map = document.getElementById("chart-treemap");
  if (open !== null && map !== null) {
    const { ids, parents, labels } = figures.treemap.data[0];
    const number = new Map(ids.map((id, index) => [id, index]));
    const nested = new Set(parents);
    const nameOf = (id) => new DOMParser().parseFromString(labels[number.get(id)], "text/html").body.textContent;
    const around = (id) => (id === "" ? [] : [...around(parents[number.get(id)]), id]);
    const choices = (of) => of.map((id) => new Option(nameOf(id), id, false, id === level));
    const list = () => {
      const inside = document.createElement("optgroup");
      inside.label = `in ${nameOf(level)}`;
      inside.append(...choices(ids.filter((id, index) => parents[index] === level && nested.has(id))));
      open.replaceChildren(...choices(around(level)), ...(inside.children.length ? [inside] : []));
    };
    list();
    open.disabled = false;
    open.addEventListener("change", () => {
      level = open.value;
      Plotly.restyle(map, { level });
      list();
    });
    map.on("plotly_treemapclick", (event) => {
      const clicked = event.nextLevel || event.points[0].id;
      if (!nested.has(clicked)) return;
      level = clicked;
      list();
    });
  }

  // ------------------------------------------------------------------ tables

  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const make = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = className;
    return made;
  };

  const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;

  const serve = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const caption = table.caption.querySelector("[id]").textContent;
    let all = rows.length <= FIRST_ROWS + 3;

    const tools = make("p", "", "tools");
    const search = make("input", "", "");
    search.type = "search";
    search.placeholder = "Search";
    search.setAttribute("aria-label", `Search: ${caption}`);
    const found = make("span", "", "found");
    found.setAttribute("role", "status");
    const below = make("p", "", "below");
    const more = make("button", "", "more-rows");
    more.type = "button";

    const show = () => {
      const wanted = search.value.trim().toLowerCase();
      let fitting = 0;
      for (const row of body.rows) {
        const fits = wanted === "" || texts.get(row).includes(wanted);
        fitting += fits ? 1 : 0;
        row.classList.toggle("unfit", !fits);
        row.classList.toggle("folded", fits && !all && fitting > FIRST_ROWS);
      }
      found.textContent = wanted === "" ? "" : `${fitting.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
      below.hidden = rows.length <= FIRST_ROWS + 3 || fitting <= FIRST_ROWS;
      more.textContent = all ? "Show fewer rows" : `Show all ${fitting.toLocaleString("en")} rows`;
      more.setAttribute("aria-expanded", String(all));
    };

    const sort = (column, direction) => {
      const numeric = rows.every((row) => row.cells[column].dataset.value !== undefined);
      const compare = numeric
        ? (a, b) => Number(valueOf(a, column)) - Number(valueOf(b, column))
        : (a, b) => words.compare(valueOf(a, column), valueOf(b, column));
      body.append(...[...rows].sort((a, b) => direction * compare(a, b)));
      show();
    };

    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", head.textContent.trim(), "");
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const up = before === null ? !isNumber : before === "descending";
        for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(column, up ? 1 : -1);
      });
    });

    // Where rows are shown as cards, the parts of a table are still what they are.
    const is = (role, ...parts) => parts.forEach((part) => part.setAttribute("role", role));
    is("table", table);
    is("rowgroup", table.tHead, body);
    is("row", ...table.tHead.rows, ...rows);
    is("columnheader", ...table.tHead.rows[0].cells);
    for (const row of rows) {
      const [first, ...rest] = row.cells;
      is("rowheader", first);
      is("cell", ...rest);
    }

    search.addEventListener("input", show);
    more.addEventListener("click", () => {
      all = !all;
      show();
    });
    if (rows.length > 6) {
      tools.append(search, found);
      table.closest(".data").prepend(tools);
    }
    below.append(more);
    table.closest(".data").append(below);
    show();
  };

  document.querySelectorAll("table.sortable").forEach(serve);
})();
