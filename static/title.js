// title.js owns the count in the document's title: `(3) ` before whatever the page calls itself.
//
// Invariant: taken away again, it leaves the title exactly as the page has it, also where the page changed it meanwhile.
// Where several elements want to show a count, the one that asked last does.

const wishes = new Map();
let prefix = '';

const watcher = new MutationObserver(() => {
  if (!document.title.startsWith(prefix)) write(document.title);
});

/** Shows `text` for `owner`; empty takes it away. */
export function showInTitle(owner, text) {
  wishes.delete(owner);
  if (text) wishes.set(owner, text);
  const bare = document.title.startsWith(prefix) ? document.title.slice(prefix.length) : document.title;
  const wish = [...wishes.values()].at(-1);
  prefix = wish ? `(${wish}) ` : '';
  write(bare);
  watcher.disconnect();
  if (prefix) watcher.observe(document.head, { subtree: true, childList: true, characterData: true });
}

function write(bare) {
  const title = prefix + bare;
  if (document.title !== title) document.title = title;
}
