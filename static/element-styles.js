// element-styles.js owns how the elements look: one constructable sheet for each, shared by every element of its kind.
//
// Colours are variables with a light and a dark value; the element takes the one that suits the `color-scheme` it stands in, so
// it is dark only in a page that is. A page sets any of them by its public name, `--tidings-…`. Text has a contrast of at least
// 4.5 on what it stands on, borders of controls and focus rings at least 3. Targets are at least 44 px where a finger points.
// Sizes are in `em` of the element, directions are logical. The values are those of tidings.css, which dresses our own pages.

/** Public name -> light and dark. What they are for stands in tidings-elements.d.ts. */
const COLOURS = {
  surface: ['#ffffff', '#151c1d'],
  raised: ['#e9efef', '#1f292a'],
  lift: ['#ffffff', '#33413f'],
  line: ['#dde5e5', '#283335'],
  edge: ['#76878a', '#71858a'],
  text: ['#132022', '#e8efef'],
  soft: ['#4c5d60', '#a3b3b5'],
  accent: ['#0b6b6a', '#5bd0c6'],
  'accent-strong': ['#085453', '#85e0d8'],
  'on-accent': ['#ffffff', '#04211f'],
  tint: ['#e3f2f1', '#14302f'],
  danger: ['#a92a1f', '#ff9d92'],
};

/** Where `light-dark()` is not known, light. */
const colours = (value) => Object.entries(COLOURS).map(([name, pair]) => `--_${name}: var(--tidings-${name}, ${value(pair)});`).join(' ');

function sheet(text) {
  const made = new CSSStyleSheet();
  made.replaceSync(text);
  return made;
}

export const baseSheet = sheet(`
:host {
  ${colours(([light]) => light)}
  --_radius: var(--tidings-radius, 14px);
  --_shadow: var(--tidings-shadow, 0 1px 2px rgb(16 40 42 / 6%), 0 8px 24px -12px rgb(16 40 42 / 14%));
  font-family: var(--tidings-font, inherit);
  font-size: var(--tidings-font-size, inherit);
  line-height: 1.5;
  text-align: start;
}
@supports (color: light-dark(#000, #fff)) {
  :host { ${colours(([light, dark]) => `light-dark(${light}, ${dark})`)} }
}
:host([hidden]) { display: none !important; }
*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }
h1, h2, h3, h4, h5, h6, p { margin: 0; }
button, select { font: inherit; color: inherit; letter-spacing: inherit; }
button { cursor: pointer; touch-action: manipulation; }
[aria-disabled="true"] { cursor: default; }
:focus-visible { outline: 3px solid var(--_accent); outline-offset: 2px; }
.icon { width: 22px; height: 22px; fill: none; stroke: currentcolor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; flex: none; display: block; }
.visually-hidden { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.tab-count { padding: 0 7px; border-radius: 10px; background: var(--_tint); color: var(--_accent-strong); font-size: 0.8em; line-height: 20px; font-weight: 700; font-variant-numeric: tabular-nums; }
@media (prefers-reduced-motion: reduce) {
  *, *::before, *::after { animation-duration: 0.01ms !important; animation-delay: 0s !important; animation-iteration-count: 1 !important; transition: none !important; }
}
`);

export const counterSheet = sheet(`
:host { display: inline; position: relative; line-height: inherit; }
`);

export const bellSheet = sheet(`
:host { display: inline-block; vertical-align: middle; }
.bell {
  position: relative;
  display: grid;
  place-items: center;
  width: var(--tidings-bell-size, 44px);
  height: var(--tidings-bell-size, 44px);
  padding: 0;
  border: 0;
  border-radius: 12px;
  background: none;
  color: inherit;
}
.bell:hover { background: color-mix(in srgb, currentcolor 10%, transparent); }
.bell .icon { width: 24px; height: 24px; transform-origin: 50% 10%; }
.badge {
  position: absolute;
  inset-block-start: 0;
  inset-inline-start: calc(50% + 1px);
  min-width: 20px;
  padding: 0 5px;
  border-radius: 10px;
  background: var(--tidings-badge-background, var(--_accent));
  color: var(--tidings-badge-text, var(--_on-accent));
  font-size: 12px;
  line-height: 20px;
  font-weight: 700;
  font-variant-numeric: tabular-nums;
  text-align: center;
}
.bell-panel {
  position: fixed;
  inset: auto;
  z-index: 1000; /* For browsers without a top layer to stand in. */
  flex-direction: column;
  margin: 0;
  padding: 0;
  border: 1px solid var(--_line);
  border-radius: var(--_radius);
  overflow: hidden;
  background: var(--_surface);
  color: var(--_text);
  box-shadow: 0 16px 48px -12px rgb(0 0 0 / 35%);
}
.bell-panel:not([hidden]) { display: flex; }
.bell-panel:focus { outline: none; }
.bell-panel tidings-inbox { min-height: 0; max-height: var(--tidings-panel-height, 620px); }
.bell-heading { padding: 16px 18px 0; font-size: 1.125em; line-height: 1.3; font-weight: 660; letter-spacing: -0.01em; }
@keyframes ring {
  20% { transform: rotate(14deg); }
  40% { transform: rotate(-11deg); }
  60% { transform: rotate(7deg); }
  80% { transform: rotate(-4deg); }
}
.is-ringing { animation: ring 0.7s ease-in-out; }
@media (forced-colors: active) {
  .badge { border: 2px solid Highlight; line-height: 16px; }
  .bell-panel { border: 2px solid CanvasText; }
}
`);

export const topicsSheet = sheet(`
:host { display: block; color: var(--_text); }
summary {
  display: inline-flex;
  align-items: center;
  gap: 8px;
  min-height: 44px;
  padding-inline: 4px;
  border-radius: 10px;
  color: var(--_soft);
  font-size: 0.9375em;
  cursor: pointer;
  list-style: none;
}
summary::-webkit-details-marker { display: none; }
summary:hover { color: var(--_text); }
summary::after {
  content: "";
  width: 7px;
  height: 7px;
  margin-block-start: -4px;
  border: solid currentcolor;
  border-width: 0 2px 2px 0;
  transform: rotate(45deg);
}
details[open] > summary::after { margin-block-start: 4px; transform: rotate(225deg); }
ul { margin: 4px 0 0; padding: 4px 0; list-style: none; background: var(--_surface); border: 1px solid var(--_line); border-radius: var(--_radius); box-shadow: var(--_shadow); }
.topic { display: flex; align-items: center; gap: 4px; padding-inline: 18px 6px; }
.topic + .topic { border-block-start: 1px solid var(--_line); }
.name { flex: 1; min-width: 0; padding-block: 12px; overflow-wrap: anywhere; }
.topic[data-muted="true"] .name { color: var(--_soft); }
.follow, .switch { display: inline-flex; flex: none; align-items: center; gap: 10px; min-height: 44px; padding: 0 12px; border: 0; border-radius: 10px; background: none; color: var(--_soft); font-size: 0.875em; }
.follow:hover, .switch:hover { background: var(--_raised); color: var(--_text); }
.track { position: relative; width: 36px; height: 22px; border: 2px solid var(--_edge); border-radius: 11px; }
.track::after { content: ""; position: absolute; inset-block-start: 3px; inset-inline-start: 3px; width: 12px; height: 12px; border-radius: 6px; background: var(--_edge); transition: inset-inline-start 0.15s; }
[aria-checked="true"] .track { border-color: var(--_accent); background: var(--_accent); }
[aria-checked="true"] .track::after { inset-inline-start: 17px; background: var(--_on-accent); }
.note { color: var(--_danger); font-size: 0.875em; }
.note:not(:empty) { padding: 8px 4px 0; }
@media (forced-colors: active) {
  .track::after { background: CanvasText; forced-color-adjust: none; }
  [aria-checked="true"] .track { border-color: Highlight; }
}
`);

export const inboxSheet = sheet(`
:host { display: block; color: var(--_text); }
:host([scrolls]) { display: flex; flex-direction: column; min-height: 0; }
.base { container: tidings-inbox / inline-size; display: flex; flex-direction: column; min-height: 0; }
:host([scrolls]) .base { flex: 1 1 auto; }
:host([scrolls]) .scroller { flex: 1 1 auto; min-height: 0; overflow-y: auto; overscroll-behavior: contain; }

.toolbar { display: flex; flex: none; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 12px; margin-block-end: 14px; }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; min-width: 0; }
.tabs { display: flex; padding: 4px; gap: 2px; border-radius: 12px; background: var(--_raised); }
.tabs button {
  display: inline-flex;
  align-items: center;
  gap: 8px;
  min-height: 36px;
  padding: 0 14px;
  border: 0;
  border-radius: 9px;
  background: none;
  color: var(--_soft);
  font-size: 0.9375em;
  font-weight: 560;
  white-space: nowrap;
}
.tabs button:hover { color: var(--_text); }
.tabs button[aria-selected="true"] { background: var(--_lift); color: var(--_text); box-shadow: 0 1px 2px rgb(0 0 0 / 14%); }

.button {
  display: inline-flex;
  align-items: center;
  justify-content: center;
  min-height: 40px;
  padding: 0 16px;
  border: 1px solid var(--_edge);
  border-radius: 10px;
  background: var(--_surface);
  color: var(--_text);
  font-size: 0.9375em;
  font-weight: 560;
  text-decoration: none;
  white-space: nowrap;
}
.button:hover { background: var(--_raised); color: var(--_text); }
.button[aria-disabled="true"] { border-color: var(--_line); background: none; color: var(--_soft); }
.button-small { min-height: 34px; padding: 0 12px; font-size: 0.875em; max-width: 100%; overflow: hidden; text-overflow: ellipsis; }

.select { position: relative; display: block; min-width: 0; }
.select select {
  appearance: none;
  width: 100%;
  min-height: 40px;
  padding-block: 0;
  padding-inline: 14px 36px;
  border: 1px solid var(--_edge);
  border-radius: 10px;
  background: var(--_surface);
  font-size: 0.9375em;
  text-overflow: ellipsis;
}
.select::after {
  content: "";
  position: absolute;
  inset-inline-end: 15px;
  inset-block-start: calc(50% - 5px);
  width: 7px;
  height: 7px;
  border: solid var(--_soft);
  border-width: 0 2px 2px 0;
  transform: rotate(45deg);
  pointer-events: none;
}

.banner { margin-block-end: 14px; padding: 10px 16px; border-radius: 10px; background: var(--_tint); color: var(--_accent-strong); font-size: 0.9375em; }

.pill-rail { position: sticky; inset-block-start: var(--tidings-sticky-top, 12px); z-index: 2; height: 0; display: flex; justify-content: center; }
.pill {
  flex: none;
  height: 44px;
  padding: 0 20px;
  border: 0;
  border-radius: 22px;
  background: var(--_accent);
  color: var(--_on-accent);
  box-shadow: 0 8px 20px -6px rgb(0 0 0 / 35%);
  font-size: 0.9375em;
  font-weight: 620;
}

.panel { position: relative; min-height: var(--tidings-list-min-height, 12em); }
.panel:focus { outline: none; }
.top { position: absolute; inset-block-start: 0; height: 4px; width: 1px; pointer-events: none; }
.list, .skeleton { background: var(--_surface); border: 1px solid var(--_line); border-radius: var(--_radius); box-shadow: var(--_shadow); }

.entry {
  position: relative;
  display: grid;
  grid-template-columns: 40px minmax(0, 1fr) auto;
  gap: 0 14px;
  padding-block: 18px;
  padding-inline: 26px 14px;
  border-block-end: 1px solid var(--_line);
  scroll-margin: calc(var(--tidings-sticky-top, 0px) + 10px) 0 24px;
  cursor: pointer;
}
.entry:hover { background: color-mix(in srgb, var(--_raised) 45%, transparent); }
.entry:first-child { border-start-start-radius: var(--_radius); border-start-end-radius: var(--_radius); }
.entry:last-child { border-block-end: 0; border-end-start-radius: var(--_radius); border-end-end-radius: var(--_radius); }
.entry:focus-visible { outline-offset: -3px; }
.entry[data-unread="true"]::before {
  content: "";
  position: absolute;
  inset-inline-start: 9px;
  inset-block-start: 34px;
  width: 8px;
  height: 8px;
  border-radius: 50%;
  background: var(--_accent);
}
.entry.is-new { animation: arrive 2.4s ease-out; }
.entry-avatar {
  display: grid;
  place-items: center;
  width: 40px;
  height: 40px;
  border-radius: 12px;
  overflow: hidden;
  background: var(--_raised);
  color: var(--_soft);
  font-weight: 660;
  flex: none;
}
.entry[data-unread="true"] .entry-avatar { background: var(--_tint); color: var(--_accent-strong); }
.entry-avatar img { width: 100%; height: 100%; object-fit: cover; }
.entry-main { min-width: 0; overflow-wrap: anywhere; }
.entry-title, .entry-body { text-align: -webkit-match-parent; text-align: match-parent; }
.entry-title { font-size: 1em; line-height: 1.4; font-weight: 480; letter-spacing: normal; color: var(--_soft); }
.entry[data-unread="true"] .entry-title { font-weight: 660; color: var(--_text); }
.entry-link { color: inherit; text-decoration: underline; text-decoration-color: var(--_edge); text-decoration-thickness: 1px; text-underline-offset: 0.18em; }
.entry-link:hover { color: var(--_accent); text-decoration-color: currentcolor; }
.entry-body { margin-block-start: 3px; color: var(--_soft); font-size: 0.9375em; white-space: pre-line; }
.entry-body.is-folded { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
.more { min-height: 32px; padding: 0; border: 0; background: none; color: var(--_accent); font-size: 0.875em; font-weight: 560; }
.more:hover { text-decoration: underline; }
.entry-actions { display: flex; flex-wrap: wrap; gap: 8px; margin-block-start: 10px; }
.entry-meta { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 0; margin-block-start: 6px; color: var(--_soft); font-size: 0.8125em; }
.entry-meta > :not(:last-child)::after { content: "·"; margin: 0 7px; font-weight: 400; color: var(--_soft); }
.priority { font-weight: 660; }
.priority[data-priority="5"] { color: var(--_danger); }
.priority[data-priority="4"] { color: var(--_text); }
.entry-buttons { display: flex; gap: 2px; }
.icon-button { display: grid; place-items: center; width: 40px; height: 40px; padding: 0; border: 0; border-radius: 10px; background: none; color: var(--_soft); }
.icon-button:hover { background: var(--_raised); color: var(--_text); }

.older { display: flex; justify-content: center; padding: 24px 0; }

.notice { display: grid; justify-items: center; gap: 8px; padding: 64px 24px; text-align: center; }
.notice-title { font-size: 1.125em; line-height: 1.4; font-weight: 640; }
.notice p { max-width: 46ch; color: var(--_soft); text-wrap: pretty; }
.notice .button { margin-block-start: 12px; }
.notice-icon { width: 52px; height: 52px; padding: 13px; margin-block-end: 8px; border-radius: 16px; background: var(--_raised); color: var(--_soft); stroke-width: 1.6; }

.skeleton { opacity: 0; animation: appear 0.2s 0.18s forwards; }
.skeleton-row { display: grid; grid-template-columns: 40px 1fr; gap: 8px 14px; padding: 20px 26px; border-block-end: 1px solid var(--_line); }
.skeleton-row:last-child { border-block-end: 0; }
.skeleton-row > * { display: block; height: 12px; border-radius: 6px; background: var(--_raised); animation: breathe 0.9s ease-in-out infinite alternate; }
.skeleton-row i { grid-row: span 2; width: 40px; height: 40px; border-radius: 12px; }
.skeleton-row b { width: 55%; }
.skeleton-row s { width: 80%; }

.toast {
  position: fixed;
  inset-block-end: max(24px, env(safe-area-inset-bottom));
  left: 50%;
  z-index: 15;
  transform: translateX(-50%);
  display: flex;
  align-items: center;
  gap: 12px;
  width: max-content;
  max-width: calc(100vw - 32px);
  min-height: 52px;
  padding-block: 4px;
  padding-inline: 20px 8px;
  border-radius: 14px;
  background: var(--_text);
  color: var(--_surface);
  box-shadow: 0 12px 32px -8px rgb(0 0 0 / 40%);
  font-size: 0.9375em;
}
.toast > span { padding-block: 8px; padding-inline: 0 12px; }
.toast button { min-height: 44px; padding: 0 14px; border: 0; border-radius: 10px; background: none; color: inherit; font-weight: 660; text-decoration: underline; text-underline-offset: 0.2em; }
.toast button:focus-visible { outline-color: currentcolor; outline-offset: -4px; }

/* Inside a bell's panel, the panel is the card. */
:host([inside]) { position: relative; }
:host([inside]) .toolbar { padding: 12px 14px; margin: 0; border-block-end: 1px solid var(--_line); }
:host([inside]) :is(.list, .skeleton) { border: 0; border-radius: 0; box-shadow: none; }
:host([inside]) .entry { border-radius: 0; }
:host([inside]) .banner { margin: 12px 14px; }
:host([inside]) .older { padding: 12px 0 16px; }
:host([inside]) .toast { position: absolute; max-width: calc(100% - 24px); inset-block-end: 14px; }

/* Narrow, as on a phone or in a panel. */
@container tidings-inbox (max-width: 600px) {
  .tabs { flex: 1 1 100%; }
  .tabs button { flex: 1; justify-content: center; min-height: 44px; padding: 0 8px; }
  .tools { flex: 1 1 100%; justify-content: space-between; }
  .tools .select { flex: 0 1 auto; }
  .tools .button { margin-inline-start: auto; }
  .tools #desktop { flex: 1 1 100%; }
  .button, .button-small, .select select, .more { min-height: 44px; }
  .notice { padding: 48px 20px; }

  /* The buttons stand at the end of the last line, beside the time, so that the text has the full width. */
  .entry { grid-template-columns: 40px minmax(0, 1fr); gap: 0 12px; padding-block: 16px 6px; padding-inline: 22px 6px; }
  .entry-main, .entry-buttons { grid-area: 1 / 2; }
  .entry-main > :not(.entry-meta) { margin-inline-end: 10px; }
  .entry[data-unread="true"]::before { inset-inline-start: 7px; inset-block-start: 32px; }
  .entry-meta { min-height: 48px; margin-block-start: 2px; padding-inline-end: 100px; }
  .entry-buttons { align-self: end; justify-self: end; }
  .icon-button { width: 48px; height: 48px; }
}

@keyframes breathe { from { opacity: 1; } to { opacity: 0.45; } }
@keyframes appear { to { opacity: 1; } }
@keyframes arrive { from { background: var(--_tint); } to { background: transparent; } }

@media (forced-colors: active) {
  .tab-count, .tabs button[aria-selected="true"] { border: 2px solid Highlight; }
  .entry[data-unread="true"]::before { background: CanvasText; forced-color-adjust: none; }
  .tabs button[aria-selected="true"] { color: Highlight; }
  .toast, .pill { border: 2px solid CanvasText; }
}
`);
