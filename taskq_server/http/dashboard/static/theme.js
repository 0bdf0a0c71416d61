// Before anything is painted: the theme that was chosen here, if one was.
"use strict";
(() => {
  const chosen = localStorage.getItem("taskq-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
