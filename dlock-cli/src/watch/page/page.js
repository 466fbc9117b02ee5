'use strict';
(() => {
  const timeline = document.querySelector('.timeline');
  if (!timeline) return;
  document.documentElement.classList.add('script');
  const start = Number(timeline.dataset.start), length = Number(timeline.dataset.length);
  const times = timeline.querySelector('.times'), grid = timeline.querySelector('.grid g');
  const pictures = [...timeline.querySelectorAll('.row svg')];
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5,
    18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 6048e5];
  let from = 0, shown = length, due = false;

  const draw = () => {
    due = false;
    for (const picture of pictures) picture.setAttribute('viewBox', `${from} 0 ${shown} 26`);
    grid.ownerSVGElement.setAttribute('viewBox', `${from} 0 ${shown} 1`);
    const most = Math.max(2, Math.min(10, times.clientWidth / 100));
    const step = steps.find(step => shown / step <= most) ?? steps.at(-1);
    times.textContent = '';
    grid.textContent = '';
    for (let at = Math.ceil((start + from) / step) * step - start; at <= from + shown; at += step) {
      const name = document.createElement('span');
      name.textContent = new Date(start + at).toISOString().slice(11, step < 1000 ? 23 : 19);
      name.style.left = (at - from) / shown * 100 + '%';
      if (at < from + shown * 0.94) times.append(name);
      const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
      line.setAttribute('d', `M${at} 0v1`);
      grid.append(line);
    }
  };
  const show = (begin, span) => {
    shown = Math.min(length, Math.max(span, Math.min(length, 20)));
    from = Math.min(length - shown, Math.max(0, begin));
    if (!due) requestAnimationFrame(draw);
    due = true;
  };
  // Which part of the timeline's width this is.
  const part = event => {
    const box = times.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  const zoom = (factor, at) => show(from + shown * at * (1 - factor), shown * factor);

  timeline.addEventListener('wheel', event => {
    const at = part(event);
    if (at < 0 || event.shiftKey) return;
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) show(from + event.deltaX * shown / 1000, shown);
    else zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150), at);
  }, { passive: false });
  timeline.addEventListener('dblclick', () => show(0, length));
  for (const button of document.querySelectorAll('[data-zoom]')) button.addEventListener('click', () => {
    const factor = Number(button.dataset.zoom);
    if (factor) zoom(factor, 0.5); else show(0, length);
  });

  let drag = null;
  timeline.addEventListener('pointerdown', event => {
    const at = part(event);
    if (at < 0 || event.button) return;
    drag = { at, from, box: null };
    if (times.contains(event.target)) {
      drag.box = document.createElement('div');
      drag.box.className = 'part';
      times.append(drag.box);
    }
    timeline.setPointerCapture(event.pointerId);
  });
  timeline.addEventListener('pointermove', event => {
    if (!drag) return;
    const at = part(event);
    if (!drag.box) return show(drag.from + (drag.at - at) * shown, shown);
    drag.box.style.left = Math.min(at, drag.at) * 100 + '%';
    drag.box.style.width = Math.abs(at - drag.at) * 100 + '%';
  });
  const drop = event => {
    if (drag && drag.box) {
      const at = Math.max(0, Math.min(1, part(event))), width = Math.abs(at - drag.at);
      drag.box.remove();
      if (width > 0.005) show(from + shown * Math.min(at, drag.at), shown * width);
    }
    drag = null;
  };
  timeline.addEventListener('pointerup', drop);
  timeline.addEventListener('pointercancel', drop);

  // Tooltips at once, instead of the browser's own.
  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.hidden = true;
  document.body.append(tip);
  const texts = new WeakMap();
  for (const title of timeline.querySelectorAll('title')) {
    texts.set(title.parentNode, title.textContent);
    title.remove();
  }
  timeline.addEventListener('pointermove', event => {
    const under = document.elementFromPoint(event.clientX, event.clientY);
    const text = under && texts.get(under);
    tip.hidden = !text || Boolean(drag);
    if (tip.hidden) return;
    tip.textContent = text;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + 'px';
    const below = event.clientY + 18, above = event.clientY - tip.offsetHeight - 10;
    tip.style.top = (below + tip.offsetHeight > innerHeight ? above : below) + 'px';
  });
  timeline.addEventListener('pointerleave', () => { tip.hidden = true; });

  const search = document.querySelector('input[type=search]');
  const filter = () => {
    const text = search.value.trim().toLowerCase();
    for (const one of document.querySelectorAll('[data-s]')) one.hidden = !one.dataset.s.includes(text);
    for (const one of timeline.querySelectorAll('section')) one.hidden = !one.querySelector('.row:not([hidden])');
  };
  search.addEventListener('input', filter);
  filter();
})();
