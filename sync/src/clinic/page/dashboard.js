// Keeps the front page live: takes the parts that the server sends, and lets clocks run between two of them.
'use strict';
(() => {
  const live = document.getElementById('live');
  if (!live || !window.EventSource) return;
  const told = new Map();
  const born = new WeakMap();
  const loaded = performance.now();

  // Only what the server said anew is put in place; what has the focus keeps it.
  function take(html) {
    const fresh = new DOMParser().parseFromString(html, 'text/html');
    for (const part of fresh.querySelectorAll('[data-part]')) {
      const name = part.dataset.part;
      const old = live.querySelector(`[data-part="${name}"]`);
      if (!old || told.get(name) === part.innerHTML) continue;
      told.set(name, part.innerHTML);
      const focused = old.contains(document.activeElement) ? document.activeElement.id : '';
      const scrolled = [...old.querySelectorAll('.scroll[id]')].map((box) => [box.id, box.scrollLeft]);
      old.replaceChildren(...part.childNodes);
      for (const clock of old.querySelectorAll('[data-ago], [data-wait]')) born.set(clock, performance.now());
      for (const [id, left] of scrolled) {
        const box = document.getElementById(id);
        if (box) box.scrollLeft = left;
      }
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
  }

  function ago(s) {
    if (s < 120) return `${s} s ago`;
    return s < 7200 ? `${Math.floor(s / 60)} min ago` : `${Math.floor(s / 3600)} h ago`;
  }

  setInterval(() => {
    for (const clock of live.querySelectorAll('[data-ago], [data-wait]')) {
      const passed = Math.floor((performance.now() - (born.get(clock) ?? loaded)) / 1000);
      clock.textContent = 'ago' in clock.dataset
        ? ago(Number(clock.dataset.ago) + passed)
        : `tries again in ${Math.max(0, Number(clock.dataset.wait) - passed)} s`;
    }
  }, 1000);

  const lost = document.getElementById('lost');
  const stream = new EventSource(live.dataset.events);
  stream.addEventListener('page', (event) => { lost.hidden = true; take(JSON.parse(event.data)); });
  stream.addEventListener('ended', () => { stream.close(); location.reload(); });
  stream.addEventListener('error', () => {
    lost.hidden = false;
    // A browser that was refused does not try again by itself.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 10000);
  });
})();
