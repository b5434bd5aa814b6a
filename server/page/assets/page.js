// Brings the figures of the overview up to date, and moves through a history with the slider. The page can be read
// without it.
"use strict";

const live = document.querySelectorAll("[data-live]");
if (live.length > 0) {
  new EventSource("/page/live").addEventListener("message", (event) => {
    const figures = JSON.parse(event.data);
    for (const element of live) {
      const text = figures[element.dataset.live];
      if (text !== undefined && element.textContent !== text) element.textContent = text;
    }
  });
}

const slider = document.querySelector(".travel input[type=range]");
if (slider !== null) {
  const output = document.querySelector(".travel output");
  slider.addEventListener("input", () => (output.textContent = slider.value));
  slider.addEventListener("change", () => slider.form.requestSubmit());
}
