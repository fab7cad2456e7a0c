"use strict";
// The navigation's captions are headings of a level, which the theme leaves out.
// What scrolls sideways can be reached by the keyboard, has a name for screen readers, and shows that there is more.
document.addEventListener("DOMContentLoaded", () => {
  const nameOf = (box) => {
    const section = box.closest("section");
    const heading = section ? section.querySelector("h1, h2, h3, h4") : null;
    const kind = box.matches("pre") ? "code" : "table";
    return heading ? `${kind}: ${heading.firstChild.textContent.trim()}` : kind;
  };
  function mark(box) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("scrolls-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    if (!scrolls) return;
    box.tabIndex = 0;
    box.setAttribute("role", "group"); // a region for each of many boxes would crowd the list of landmarks
    box.setAttribute("aria-label", nameOf(box));
  }
  document.querySelectorAll(".caption[role=heading]").forEach((caption) => caption.setAttribute("aria-level", "2"));
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  document.querySelectorAll(".table-wrapper, article pre").forEach((box) => {
    box.addEventListener("scroll", () => mark(box), { passive: true });
    resized.observe(box);
  });
});
