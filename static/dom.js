// dom.js owns how the elements make their own insides: nodes one by one, never from text that is parsed as markup.
//
// Invariant: nothing here is a sink of Trusted Types, and no `style` attribute is set, so that the strictest content policy
// of an embedding page (and of our own) holds.

const SVG = 'http://www.w3.org/2000/svg';
const BELL = [
  ['path', { d: 'M6 10a6 6 0 0 1 12 0v3.5l1.7 2.8a.8.8 0 0 1-.7 1.2H5a.8.8 0 0 1-.7-1.2L6 13.5V10Z' }],
  ['path', { d: 'M10 20.5a2.2 2.2 0 0 0 4 0' }],
];
/** Line drawings on a field of 24 by 24. */
const ICONS = {
  bell: BELL,
  read: [['path', { d: 'm5 12.5 4.5 4.5L19 7.5' }]],
  unread: [['rect', { x: 3.5, y: 6, width: 17, height: 12.5, rx: 2 }], ['path', { d: 'm4 8 8 5.5L20 8' }]],
  archived: [
    ['rect', { x: 3.5, y: 5, width: 17, height: 4.5, rx: 1 }],
    ['path', { d: 'M5 9.5V18a1.5 1.5 0 0 0 1.5 1.5h11A1.5 1.5 0 0 0 19 18V9.5M10 13h4' }],
  ],
  unarchived: [['path', { d: 'M9 7 4.5 11.5 9 16M5 11.5h9.5a5 5 0 0 1 0 7H12' }]],
};

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  return node;
}

/** An element with these attributes (null and false are left out, true is empty) and these children (text or nodes). */
export function make(name, attributes = {}, ...children) {
  const node = setAttributes(document.createElement(name), attributes);
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** One of the drawings, hidden from those who listen: what it means must be said in words. */
export function icon(name, attributes = {}) {
  const svg = setAttributes(document.createElementNS(SVG, 'svg'), { viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true', ...attributes });
  for (const [shape, drawing] of ICONS[name]) svg.append(setAttributes(document.createElementNS(SVG, shape), drawing));
  return svg;
}

/** The focused element, looked for through the open shadow roots it may be in. */
export function focused(root = document) {
  const inner = root.activeElement;
  return inner?.shadowRoot?.activeElement ? focused(inner.shadowRoot) : inner;
}
