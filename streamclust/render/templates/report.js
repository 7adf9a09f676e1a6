// The picture viewer and the table of contents' marker; the page reads the same without it.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const picture = viewer.querySelector("img");
  const caption = viewer.querySelector("p");
  document.addEventListener("click", (event) => {
    const image = event.target.closest("img.thumb");
    if (image) {
      picture.src = image.src;
      caption.textContent = image.title;
      viewer.showModal();
    } else if (event.target.closest("dialog")) {
      viewer.close();
    }
  });

  const narrow = window.matchMedia("(max-width: 1099px)");
  const menu = document.querySelector("nav.toc details");
  if (narrow.matches) menu.open = false;
  narrow.addEventListener("change", () => { menu.open = !narrow.matches; });

  const links = new Map([...document.querySelectorAll("nav.toc a")].map((a) => [a.hash.slice(1), a]));
  const sections = [...links.keys()].map((id) => document.getElementById(id));
  const mark = () => {
    let current = sections[0];
    for (const section of sections) if (section.getBoundingClientRect().top < 160) current = section;
    for (const [id, link] of links) link.classList.toggle("here", id === current.id);
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
  for (const link of links.values()) {
    link.addEventListener("click", () => {
      if (narrow.matches) menu.open = false;
    });
  }
})();
