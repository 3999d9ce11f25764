// What the page does in the browser, beside what Gradio does there.
(formats) => {
  const announcement = document.createElement("div");
  announcement.className = "unseen";
  announcement.setAttribute("aria-live", "polite");
  document.body.append(announcement);
  let chosen = "", said = "", asksFor = 0;

  const all = (selector) => [...document.querySelectorAll(selector)];
  const mistakes = () => all(".mistakes button[data-name]").map((button) => button.dataset.name);

  // Every picture to choose from says whether it is the one that is shown.
  const markChosen = () => {
    for (const button of all(".choices button"))
      button.setAttribute("aria-pressed", button.dataset.name === chosen);
    for (const button of all("[data-step]"))
      button.disabled = neighbour(Number(button.dataset.step)) === undefined;
  };

  const neighbour = (step) => {
    const listed = mistakes(), place = listed.indexOf(chosen);
    return place < 0 && step < 0 ? undefined : listed[place + step];
  };

  // Screen readers hear what the answer says; whoever went on by a button there can go on by it.
  const announce = () => {
    const told = all(".says p, .maps h2, .maps p, .answer [role=alert]");
    const words = told.map((e) => e.textContent.replace(/\.$/, "")).join(". ");
    if (words === said) return;
    announcement.textContent = said = words;
    all(".notice").forEach((notice) => notice.remove());
    if (document.activeElement === document.body)  // the button went with the answer before
      document.querySelector(`[data-step="${asksFor}"]`)?.focus({preventScroll: true});
  };

  // Gradio refuses by a file's name what a picker offers only under "All files", or what is dropped.
  const inOurWords = (text) => text.replace(/^Invalid file type: (.*)\. Only .* allowed\.$/s,
    (_, name) => `${name} is no picture that this page reads: ${formats.replaceAll(",", ", ")}.`);

  // One place for errors: where the answer stands.
  const moveErrors = () => {
    for (const toast of all("[data-testid=toast-body]")) {
      const text = [...toast.querySelectorAll("[data-testid=toast-text]")].at(-1)?.textContent;
      if (!text || toast.dataset.moved === text) continue;  // it takes a while to go
      toast.dataset.moved = text;
      all(".notice").forEach((notice) => notice.remove());
      const notice = document.createElement("p");
      notice.className = "notice";
      notice.setAttribute("role", "alert");
      notice.textContent = inOurWords(text);
      document.getElementById("answer").prepend(notice);
      toast.querySelector("[data-testid=toast-close]").click();
      page.showAnswer();
    }
  };

  const label = () => {
    all("input[type=file]").forEach((input) => { input.accept = formats; });
    document.querySelector("#link textarea")?.setAttribute("aria-label", "Link to this view");
  };

  const page = window.page = {
    mark(source) { chosen = source ?? ""; markChosen(); },
    // Whoever presses on before the answer comes goes on from there.
    step(step) {
      asksFor = step;
      const next = neighbour(step);
      if (next) page.mark(next);
      return next;
    },
    nearest(value, low, high, step) {
      if (value === null) return null;
      const stepped = low + Math.round((value - low) / step) * step;
      return Number(Math.min(high, Math.max(low, stepped)).toFixed(6));
    },
    setWeight(weight) {
      if (weight === null) return;  // an emptied box, until it is left
      const share = Math.min(1, Math.max(0, weight));
      document.documentElement.style.setProperty("--picture-weight", share);
    },
    // Brings the answer into view where a visitor has chosen far from it.
    showAnswer() {
      const {top, bottom} = document.getElementById("answer").getBoundingClientRect();
      if (top >= 0 && bottom <= window.innerHeight) return;
      const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      document.getElementById("answer").scrollIntoView(
        {behavior: calm ? "auto" : "smooth", block: "start"});
    },
  };

  document.addEventListener("focusin", ({target}) => {
    if (!target.closest("[data-step]")) asksFor = 0;
  });

  // A number box that is left empty gets its lowest number; the view is to follow.
  document.addEventListener("focusout", ({target}) => {
    if (target.type === "number" && target.value === "")
      setTimeout(() => target.dispatchEvent(new Event("input", {bubbles: true})), 50);
  });

  // Gradio opens a list of choices at any key, the one by which it is left among them.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && event.target.getAttribute("role") === "combobox")
      event.stopPropagation();
  }, true);

  // At once, so that no reader meets the words of the picture before.
  new MutationObserver(() => { moveErrors(); label(); markChosen(); announce(); })
    .observe(document.body, {childList: true, subtree: true, characterData: true});
}
