"use strict";
(() => {
  const found = JSON.parse(document.getElementById("figures").textContent);
  const PHONE = 520;
  const root = document.documentElement;

  // What hangs beside the pointer; texts are texts.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const tooltip = (handler, event, item, value) => {
    if (value === null || value === undefined || value === "") { tip.hidden = true; return; }
    const lines = typeof value === "object"
      ? Object.entries(value).map(([name, said]) => (name.trim() ? name + ": " : "") + String(said).replaceAll("\n", " "))
      : [String(value)];
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const left = Math.min(event.pageX + 14, scrollX + innerWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(scrollX + 4, left) + "px";
    tip.style.top = event.pageY + 14 + "px";
  };

  // Roles of colours become the style sheet's; data stay as they are.
  const coloured = (part, key) => {
    if (key === "values") { return part; }
    if (Array.isArray(part)) { return part.map((each) => coloured(each)); }
    if (part && typeof part === "object") {
      return Object.fromEntries(Object.entries(part).map(([name, each]) => [name, coloured(each, name)]));
    }
    return typeof part === "string" && /^@[a-z]+$/.test(part) ? `var(--${part.slice(1)})` : part;
  };
  const narrowed = (spec, width) => {
    const copy = coloured(spec);
    const own = copy.usermeta || {};
    const narrow = width < PHONE;
    copy.config = coloured(found.config);
    if (narrow) {
      copy.config.axis.labelFontSize = 11;
      copy.config.axis.titleFontSize = 11;
      copy.config.axis.labelLimit = Math.round(width * 0.4);
      // Two names of a legend side by side, where both are short.
      copy.config.legend.columns = own.series > 2 || own.letters > 24 ? 1 : 2;
    }
    copy.width = Math.max(160, Math.min(width, own.widest || 860));
    copy.autosize = { type: "fit-x", contains: "padding" };
    if (own.square) {
      copy.height = Math.min(copy.width * 0.8, own.square);
    }
    return copy;
  };

  const widths = new Map();
  const draw = async (place, width) => {
    widths.set(place, width);
    const name = place.dataset.figure;
    const spec = (width < PHONE && found.narrow[name]) || found.specs[name];
    try {
      // The place itself says in words what it shows; its marks are nothing to read aloud.
      const inner = document.createElement("div");
      inner.setAttribute("aria-hidden", "true");
      place.replaceChildren(inner);
      await vegaEmbed(inner, narrowed(spec, width), {
        mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, tooltip,
        config: {}, loader: { load: () => Promise.reject(new Error("nothing is loaded")) },
      });
      place.dataset.drawn = "yes";
    } catch (error) {
      place.dataset.drawn = "no";
      place.textContent = "This picture could not be drawn; its numbers are below.";
      console.error(error);
    }
  };
  const drawAll = async () => {
    for (const place of document.querySelectorAll(".chart")) {
      const width = place.clientWidth;
      if (width && widths.get(place) !== width) {
        await draw(place, width);
        // Between two pictures the page answers.
        await new Promise((go) => setTimeout(go));
      }
    }
    root.dataset.drawn = "yes";
  };
  // On paper nothing can be opened: what belongs to the first screen is printed open.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll(".first details:not([open])")];
    for (const each of folded) { each.open = true; }
  });
  addEventListener("afterprint", () => { for (const each of folded) { each.open = false; } });
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
  requestAnimationFrame(() => setTimeout(drawAll));

  // Light or dark: as the system has it until it is said here.
  const button = document.getElementById("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const say = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; say(); });
  button.hidden = false;
  say();

  // Answers: search and filters, so many at a time.
  const form = document.querySelector(".filters");
  if (form) {
    const items = [...document.querySelectorAll(".pairs > li")];
    const more = document.getElementById("more");
    let shown = 20;
    const apply = () => {
      const words = form.elements.words.value.trim().toLowerCase();
      const wanted = ["group", "verdict", "category"].filter((key) => form.elements[key] && form.elements[key].value);
      let count = 0;
      for (const item of items) {
        const fits = wanted.every((key) => item.dataset[key] === form.elements[key].value)
          && (!words || item.textContent.toLowerCase().includes(words));
        if (fits) { count += 1; }
        item.hidden = !fits || count > shown;
      }
      form.elements.count.value = count + (count === 1 ? " prompt" : " prompts");
      more.hidden = count <= shown;
    };
    form.addEventListener("input", () => { shown = 20; apply(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { shown += 40; apply(); });
    form.hidden = false;
    apply();
  }
})();
