// The values of a chart under the pointer, and by arrow keys where it has the focus. Without this script
// browsers show them as titles.
const tip = document.body.appendChild(document.createElement('output'));
tip.className = 'tip';
tip.hidden = true;
for (const chart of document.querySelectorAll('svg.chart')) {
  const marks = [...chart.querySelectorAll('title')].map(title => {
    const mark = title.parentNode;
    mark.dataset.says = title.textContent;
    title.remove();
    return mark;
  });
  if (!marks.length) continue;
  const middle = mark => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  let at = marks.length - 1;
  const hide = () => {
    marks[at].classList.remove('at');
    tip.hidden = true;
  };
  const show = nth => {
    hide();
    at = Math.max(0, Math.min(marks.length - 1, nth));
    marks[at].classList.add('at');
    tip.textContent = marks[at].dataset.says;
    tip.hidden = false;
    // Above the chart, which it would hide.
    const left = middle(marks[at])[0] - tip.offsetWidth / 2;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(left, room)) + scrollX}px`;
    tip.style.top = `${Math.max(0, chart.getBoundingClientRect().y - tip.offsetHeight - 4 + scrollY)}px`;
  };
  chart.tabIndex = 0;
  chart.addEventListener('pointermove', event => {
    const far = mark => {
      const [x, y] = middle(mark);
      return Math.hypot(x - event.clientX, (y - event.clientY) / 4);
    };
    const near = marks.map(far);
    show(near.indexOf(Math.min(...near)));
  });
  chart.addEventListener('pointerleave', hide);
  chart.addEventListener('focus', () => chart.matches(':focus-visible') && show(at));
  chart.addEventListener('blur', hide);
  chart.addEventListener('keydown', event => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: marks.length - 1 }[event.key];
    if (event.key === 'Escape') hide();
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}
