"use strict";
(() => {
  const all = (query, root = document) => Array.from(root.querySelectorAll(query));
  const one = (query) => document.querySelector(query);
  const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "");
  const items = all("[data-verdict]").map((node) => ({
    node,
    verdict: node.dataset.verdict,
    area: node.dataset.area,
    text: plain(node.id + " " + all(".find", node).map((part) => part.textContent).join(" ")),
    cell: one('.shelf a[href="#' + node.id + '"]'),
  }));
  const groups = all("[data-group]");
  const form = one(".filters form");
  const [search, area, verdict] = ["search", "area", "verdict"].map((name) => form.elements[name]);

  function filter() {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const fits =
        (!area.value || item.area === area.value) &&
        (!verdict.value || item.verdict === verdict.value) &&
        words.every((word) => item.text.includes(word));
      item.node.hidden = !fits;
      if (item.cell) item.cell.classList.toggle("off", !fits);
      shown += fits;
    }
    for (const group of groups) group.hidden = !group.querySelector("[data-verdict]:not([hidden])");
    one(".count").textContent = shown + " of " + items.length;
    one(".none").hidden = shown > 0;
  }

  one(".filters").hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  one(".none button").addEventListener("click", () => {
    form.reset();
    filter();
    search.focus();
  });
  filter(); // a browser keeps what was typed when the page is loaded again

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
  });

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      area.style.opacity = "0";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copy(button.previousElementSibling.textContent);
      button.textContent = done ? "Copied" : "Select the text to copy it";
      setTimeout(() => (button.textContent = "Copy BibTeX"), 2000);
    });
  }

  // Paper cannot be clicked: what is folded is printed open.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const node of all("details:not([open])")) {
      node.open = true;
      opened.push(node);
    }
  });
  addEventListener("afterprint", () => {
    for (const node of opened.splice(0)) node.open = false;
  });
})();
