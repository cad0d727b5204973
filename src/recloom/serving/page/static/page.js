// Without this, the page reloads itself as a whole; with it, the place and the focus stay.
const SECONDS = 10;
setInterval(async () => {
  const focused = document.activeElement && document.activeElement.closest("#live");
  if (document.hidden || focused) return;
  try {
    const answer = await fetch("/live");
    if (answer.redirected) return location.reload();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    if (fresh) document.getElementById("main").replaceChildren(...fresh.childNodes);
  } catch { /* the service is away; the next look will tell */ }
}, SECONDS * 1000);
