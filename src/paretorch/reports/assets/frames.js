"use strict";
// scrollable tables: a frame knows at which of its edges there is more
(() => {
  function mark(frame) {
    const box = frame.firstElementChild;
    // shadows end at the scrollbars
    frame.style.setProperty("--bar-y", `${box.offsetWidth - box.clientWidth - 1}px`);
    frame.style.setProperty("--bar-x", `${box.offsetHeight - box.clientHeight - 1}px`);
    frame.toggleAttribute("data-left", box.scrollLeft > 1);
    frame.toggleAttribute("data-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    frame.toggleAttribute("data-below", box.scrollTop + box.clientHeight < box.scrollHeight - 1);
  }
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target.closest(".frame"))));
  document.querySelectorAll(".frame").forEach((frame) => {
    const box = frame.firstElementChild;
    box.addEventListener("scroll", () => mark(frame), { passive: true });
    resized.observe(box);
    resized.observe(box.firstElementChild);
  });
})();
