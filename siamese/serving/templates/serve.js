
(() => {
  const byId = (id) => document.getElementById(id);
  const counted = new Intl.NumberFormat("en");
  const SHOWN = 200;

  // What steers a terminal or turns a line around is spelled out; names are text, never markup.
  const ODD = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  const visible = (text) =>
    text.replace(ODD, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  const element = (name, text = "", kind = "") => {
    const made = document.createElement(name);
    if (text) made.textContent = visible(text);
    if (kind) made.className = kind;
    return made;
  };
  const say = (id, text) => {
    byId(id).textContent = text;
    byId(id).hidden = !text;
  };

  // Requests. The token is asked for when the service demands one.
  let token = null;
  try { token = sessionStorage.getItem("siamese-token"); } catch { /* no storage */ }
  const waiting = [];

  const ask = async (method, address, parts = null) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let body;
    if (parts) {
      body = new FormData();
      for (const [name, file] of parts) body.append(name, file, file.name);
    }
    let response;
    try {
      response = await fetch(address, { method, headers, body });
    } catch {
      throw new Error("The service does not answer.");
    }
    if (response.status === 401) {
      byId("token").hidden = false;
      byId("token-text").focus();
      await new Promise((resolve) => { waiting.push(resolve); });
      return ask(method, address, parts);
    }
    const told = await response.json().catch(() => ({}));
    if (response.ok) return told;
    const seconds = response.headers.get("Retry-After");
    const later = seconds ? ` (in ${seconds} s)` : "";
    throw new Error((told.detail || `The service answers ${response.status}.`) + later);
  };

  byId("token").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token-text").value.trim();
    try { sessionStorage.setItem("siamese-token", token); } catch { /* until it is reloaded */ }
    byId("token-text").value = "";
    byId("token").hidden = true;
    for (const go of waiting.splice(0)) go();
  });

  // Tabs, also by arrow keys.
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    if (chosen.id === "tab-identify") listPeople();
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const next = tabs[(place + 1) % tabs.length];
      choose(next);
      next.focus();
    });
  });

  // Places for pictures: dropped, or chosen.
  const places = {};
  const place = (id, act) => {
    const box = byId(id);
    const input = box.querySelector("input");
    const image = box.querySelector("img");
    const seen = box.querySelector(".seen");
    const one = { files: [] };
    places[id] = one;
    one.show = (data, words) => {
      image.hidden = !data;
      if (data) image.src = data; else image.removeAttribute("src");
      seen.hidden = !words;
      seen.textContent = words;
      box.querySelector(".ask span").hidden = Boolean(data);
    };
    one.clear = () => { one.files = []; input.value = ""; one.show("", ""); };
    one.busy = (is) => box.classList.toggle("busy", is);
    const take = (files) => {
      const pictures = [...files].slice(0, input.multiple ? undefined : 1);
      if (!pictures.length) return;
      one.files = pictures;
      const reader = new FileReader();
      const words = pictures.length > 1 ? `${pictures.length} pictures` : pictures[0].name;
      reader.onload = () => {
        const isPicture = String(reader.result).startsWith("data:image/");
        if (one.files === pictures && !one.answered) one.show(isPicture ? reader.result : "", visible(words));
      };
      one.answered = false;
      reader.readAsDataURL(pictures[0]);
      act();
    };
    input.addEventListener("change", () => take(input.files));
    for (const kind of ["dragenter", "dragover"]) {
      box.addEventListener(kind, (event) => { event.preventDefault(); box.classList.add("over"); });
    }
    for (const kind of ["dragleave", "drop"]) {
      box.addEventListener(kind, () => box.classList.remove("over"));
    }
    box.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
  };
  // A picture that misses its place must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  const asSeen = (one, data) => {
    one.answered = true;
    one.show(data, `${model.photographs ? "the largest face " : ""}as the network sees it, ${model.size} × ${model.size} pixels`);
  };

  // The model, asked for once.
  let model = null;
  let asking = null;
  const known = () => {
    asking ??= ask("GET", "/model").then((told) => { model = told; }).catch((error) => {
      asking = null;
      throw error;
    });
    return asking;
  };

  // Two pictures.
  let last = null;
  let newest = 0;
  const verify = async () => {
    const { a, b } = places;
    if (!a.files.length || !b.files.length) return;
    const number = ++newest;
    say("verify-error", "");
    a.busy(true);
    b.busy(true);
    try {
      await known();
      const prior = byId("prior").valueAsNumber;
      const parts = [["a", a.files[0]], ["b", b.files[0]]];
      const address = `/verify?pictures=true&prior=${prior > 0 && prior < 1 ? prior : 0.5}`;
      const told = await ask("POST", address, parts);
      if (number === newest) answer(told);
    } catch (error) {
      if (number !== newest) return;
      byId("verdict").hidden = true;
      last = null;
      draw();
      say("verify-error", error.message);
    } finally {
      a.busy(false);
      b.busy(false);
    }
  };
  const percent = (p) => {
    const text = (100 * p).toPrecision(3);
    if (p > 0.9999) return "over 99.99 %";
    return p < 0.0001 ? "under 0.01 %" : `${Number(text)} %`;
  };
  const answer = (told) => {
    last = told;
    asSeen(places.a, told.a);
    asSeen(places.b, told.b);
    const words = told.same === null ? "No threshold was chosen"
      : told.same ? "The same person" : "Not the same person";
    byId("same").textContent = words;
    byId("same").className = `verdict ${told.same === null ? "" : told.same ? "yes" : "no"}`;
    byId("score").textContent = told.score.toFixed(4);
    byId("threshold").textContent = told.threshold === null ? "none" : told.threshold.toFixed(4);
    byId("threshold-note").textContent = thresholdNote();
    byId("probability").textContent = told.probability === null ? "unknown" : percent(told.probability);
    byId("verdict").hidden = false;
    draw();
  };
  const thresholdNote = () => {
    if (model.threshold === null) return "siamese-eval threshold chooses one";
    let text = `from it on it is one person; chosen for a false-match rate of ${percent(model.target_fmr)}`;
    if (model.people !== null) text += ` on ${counted.format(model.people)} people`;
    return text;
  };

  // The histogram, drawn in the size that it has.
  const SVG = "http://www.w3.org/2000/svg";
  const shape = (name, attributes, text = "") => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const draw = () => {
    const plot = byId("plot");
    plot.replaceChildren();
    byId("histogram").hidden = last === null;
    if (last === null) return;
    const spread = model.histogram;
    byId("histogram").querySelector(".legend").hidden = spread === null;
    if (spread === null) {
      byId("histogram-note").textContent = "This model holds no histogram of its scores. "
        + "siamese-eval threshold stores one beside the threshold; start the service anew then.";
      return;
    }
    const total = (numbers) => numbers.reduce((sum, n) => sum + n, 0);
    const pairs = { impostor: total(spread.impostor), genuine: total(spread.genuine) };
    byId("histogram-note").textContent = "Scores of all pairs of the people whom the threshold was "
      + `chosen on: ${counted.format(pairs.impostor)} pairs of two people, `
      + `${counted.format(pairs.genuine)} of one; each kind's share in each bin.`;
    const bins = spread.genuine.length;
    const edge = (bin) => -1 + (2 * bin) / bins;
    const used = [...spread.genuine.keys()].filter((i) => spread.genuine[i] + spread.impostor[i]);
    const marks = last.threshold === null ? [last.score] : [last.score, last.threshold];
    const low = Math.max(-1, Math.min(edge(used[0]), ...marks) - 0.04);
    const high = Math.min(1, Math.max(edge(used.at(-1) + 1), ...marks) + 0.04);
    const width = Math.max(240, plot.clientWidth);
    const [height, left, right, top, bottom] = [230, 12, 12, 40, 26];
    const x = (score) => left + ((score - low) / (high - low)) * (width - left - right);
    const share = (kind, bin) => spread[kind][bin] / pairs[kind];
    const most = Math.max(...used.flatMap((i) => [share("genuine", i), share("impostor", i)]));
    const y = (value) => height - bottom - (value / most) * (height - top - bottom);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    for (const kind of ["impostor", "genuine"]) {
      let path = `M${x(edge(used[0]))},${y(0)}`;
      for (let bin = used[0]; bin <= used.at(-1); bin += 1) {
        path += `V${y(share(kind, bin))}H${x(edge(bin + 1))}`;
      }
      svg.append(shape("path", { class: `area ${kind}`, d: `${path}V${y(0)}Z` }));
    }
    svg.append(shape("line", { class: "axis", x1: left, x2: width - right, y1: y(0), y2: y(0) }));
    const step = (high - low) * 80 > width ? 0.5 : (high - low) > 0.5 ? 0.2 : 0.1;
    for (let tick = Math.ceil(low / step); tick * step <= high; tick += 1) {
      const at = x(tick * step);
      svg.append(shape("line", { class: "axis", x1: at, x2: at, y1: y(0), y2: y(0) + 5 }));
      svg.append(shape("text", { x: at, y: height - 6, "text-anchor": "middle" }, (tick * step).toFixed(1)));
    }
    const labels = [];  // over all lines
    const mark = (score, kind, words, level) => {
      const at = x(score);
      svg.append(shape("line", { class: kind, x1: at, x2: at, y1: level + 4, y2: y(0) }));
      const room = words.length * 3.4;
      const middle = Math.min(Math.max(at, left + room), width - right - room);
      labels.push(shape("text", { class: `${kind}-text`, x: middle, y: level, "text-anchor": "middle" }, words));
    };
    if (last.threshold !== null) mark(last.threshold, "threshold", `threshold ${last.threshold.toFixed(3)}`, 32);
    mark(last.score, "score", `this pair ${last.score.toFixed(3)}`, 14);
    plot.setAttribute("aria-label", `Histogram of scores; this pair has ${last.score.toFixed(3)}`
      + (last.threshold === null ? "" : `, the threshold is ${last.threshold.toFixed(3)}`));
    svg.append(...labels);
    plot.append(svg);
  };
  addEventListener("resize", () => { if (last !== null) draw(); });

  // One picture.
  let newestSearch = 0;
  const identify = async () => {
    const { who } = places;
    if (!who.files.length) return;
    const number = ++newestSearch;
    say("identify-error", "");
    who.busy(true);
    try {
      await known();
      const told = await ask("POST", "/identify?pictures=true", [["picture", who.files[0]]]);
      if (number !== newestSearch) return;
      asSeen(who, told.picture);
      byId("name").textContent = told.name === null ? "Nobody known" : visible(told.name);
      byId("name").className = `verdict ${told.name === null ? "no" : "yes"}`;
      let note = "";
      if (!told.candidates.length) note = "Nobody is enrolled yet.";
      else if (told.threshold === null) note = "No threshold was chosen, so nobody counts as known: siamese-eval threshold.";
      else note = `Known from a score of ${told.threshold.toFixed(4)} on, chosen for ${told.chosen_for}.`;
      byId("identity-note").textContent = note;
      byId("candidates").replaceChildren(...told.candidates.map((one) => {
        const row = element("li");
        const name = element("bdi", one.name);
        const sure = one.probability === null ? "" : ` · ${percent(one.probability)}`;
        row.append(name, element("span", one.score.toFixed(4) + sure, "number"));
        return row;
      }));
      byId("identity").hidden = false;
    } catch (error) {
      if (number !== newestSearch) return;
      byId("identity").hidden = true;
      say("identify-error", error.message);
    } finally {
      who.busy(false);
    }
  };

  // Who is known.
  let everybody = [];
  const address = (name) => `/people/${encodeURIComponent(name)}`;
  const plainName = (text) => text.normalize("NFKC").toLocaleLowerCase();
  const showPeople = () => {
    const wanted = plainName(byId("filter").value.trim());
    const found = everybody.filter((one) => plainName(one.name).includes(wanted));
    byId("count").textContent = counted.format(everybody.length);
    byId("find").hidden = everybody.length < 8;
    byId("people").replaceChildren(...found.slice(0, SHOWN).map(row));
    say("more", found.length > SHOWN ? `and ${counted.format(found.length - SHOWN)} more` : "");
  };
  const row = (one) => {
    const made = element("li");
    const who = element("div", "", "who");
    const pictures = one.pictures === 1 ? "1 picture" : `${counted.format(one.pictures)} pictures`;
    who.append(element("bdi", one.name), element("span", `${pictures}, last ${one.last.slice(0, 10)}`, "note"));
    const button = element("button", "Remove");
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${visible(one.name)}`);
    button.addEventListener("click", async () => {
      if (!button.classList.contains("sure")) {
        button.classList.add("sure");
        button.textContent = "Really remove?";
        button.removeAttribute("aria-label");
        setTimeout(() => { button.classList.remove("sure"); button.textContent = "Remove"; }, 4000);
        return;
      }
      button.disabled = true;
      try {
        await ask("DELETE", address(one.name));
        say("people-error", "");
      } catch (error) {
        say("people-error", error.message);
      }
      await listPeople();
    });
    made.append(who, button);
    return made;
  };
  const listPeople = async () => {
    try {
      everybody = await ask("GET", "/people");
      showPeople();
    } catch (error) {
      say("people-error", error.message);
    }
  };
  byId("filter").addEventListener("input", showPeople);

  byId("enrol").addEventListener("submit", async (event) => {
    event.preventDefault();
    const one = places.new;
    const button = byId("enrol").querySelector("button");
    const name = byId("person").value.trim();
    byId("enrol-done").replaceChildren();
    say("enrol-error", "");
    if (!one.files.length) return say("enrol-error", "Choose pictures of the person first.");
    if (name === "." || name === "..") return say("enrol-error", "Browsers cannot send that name.");
    button.disabled = true;
    one.busy(true);
    try {
      const told = await ask("PUT", address(name), one.files.map((file) => ["pictures", file]));
      const pictures = told.added === 1 ? "1 picture" : `${told.added} pictures`;
      const present = told.present ? `, ${told.present} there already` : "";
      byId("enrol-done").replaceChildren(
        element("li", `${told.name}: ${pictures} enrolled${present}.`),
        ...told.notes.map((note) => element("li", note)),
      );
      one.clear();
      byId("person").value = "";
      await listPeople();
    } catch (error) {
      say("enrol-error", error.message);
    } finally {
      button.disabled = false;
      one.busy(false);
    }
    return undefined;
  });

  place("a", verify);
  place("b", verify);
  place("who", identify);
  place("new", () => say("enrol-error", ""));
  byId("prior").addEventListener("change", verify);
})();
