// Runs before the first paint, so that a dark page never flashes white. A file of its own because
// the content security policy allows no inline script.
(function () {
  var saved = null;
  try { saved = localStorage.getItem('mysti.theme'); } catch (e) { /* storage is off: follow the system */ }
  var dark = saved === 'dark' || (saved !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
