// The list of entries without a browser: pages and events that overlap in any way end in the same state.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { safeLink } from '../../static/entry.js';
import { EntryList } from '../../static/list.js';
import { isCovered, parseCursor } from '../../static/tidings.js';

const NOW = '2026-01-01T00:00:00Z';
const at = (seq) => `e1.${seq}`;
const notification = (seq, more = {}) => ({ id: `n${seq}`, seq, category: 'general', title: `Title ${seq}`, ...more });
const read = { seen_at: NOW, read_at: NOW, archived_at: null };
const ids = (list) => list.visible.map((entry) => entry.id);

function listOf(tab, entries, cursor, next = null) {
  const list = new EntryList({ tab });
  list.addPage({ entries, cursor, next }, { newest: true });
  return list;
}

test('a notification that the page already had is not one more', () => {
  const list = listOf('all', [notification(2), notification(1)], at(2));
  assert.equal(list.addNotification(notification(2), at(2)), false);
  assert.equal(list.addNotification(notification(3), at(3)), true);
  assert.deepEqual(ids(list), ['n3', 'n2', 'n1']);
});

test('an event older than the page changes nothing that the page knew better', () => {
  const list = listOf('all', [notification(1)], at(9)); // Read at 5, unread again at 8.
  list.applyState({ ids: ['n1'], state: 'read' }, at(5), NOW);
  assert.equal(list.find('n1').state.read_at, null);
  list.applyState({ ids: ['n1'], state: 'read' }, at(10), NOW);
  assert.equal(list.find('n1').state.read_at, NOW);
});

test('upto reaches what stands at or before it and only the category named', () => {
  const list = listOf('all', [notification(3), notification(2, { category: 'ops' }), notification(1)], at(3));
  list.applyState({ upto: at(2), category: 'general', state: 'read' }, at(4), NOW);
  assert.deepEqual(list.visible.map((e) => Boolean(e.state.read_at)), [false, false, true]);
});

test('the unread tab keeps in sight what was read singly and is cleared by mark all', () => {
  const list = listOf('unread', [notification(2), notification(1)], at(2));
  list.applyState({ ids: ['n1'], state: 'read' }, at(3), NOW);
  assert.deepEqual(ids(list), ['n2', 'n1']);
  list.applyState({ upto: at(3), state: 'read' }, at(4), NOW);
  assert.deepEqual(ids(list), []);
});

test('what an event brings into the tab but is not loaded is asked for', () => {
  const unread = listOf('unread', [notification(5)], at(5));
  assert.deepEqual(unread.applyState({ ids: ['n5', 'n2'], state: 'unread' }, at(6), NOW), { missing: ['n2'], reload: false });
  assert.deepEqual(unread.applyState({ ids: ['n2'], state: 'read' }, at(7), NOW).missing, []);
  const archived = listOf('archived', [], at(5));
  assert.equal(archived.applyState({ upto: at(5), state: 'archived' }, at(6), NOW).reload, true);
});

test('an entry beyond the oldest page waits for its page', () => {
  const list = listOf('all', [notification(9), notification(8)], at(9), 'older');
  assert.equal(list.addEntry(notification(3)), false);
  assert.equal(list.addEntry(notification(8, { state: read })), true);
});

test('a change that was shown early is taken back unless the server has spoken meanwhile', () => {
  const list = listOf('all', [notification(1)], at(1));
  list.expect({ as: 'archived', ids: ['n1'] }, NOW).takeBack();
  assert.deepEqual(ids(list), ['n1']);
  const { takeBack } = list.expect({ as: 'archived', ids: ['n1'] }, NOW);
  list.applyState({ ids: ['n1'], state: 'archived' }, at(2), NOW);
  takeBack();
  assert.deepEqual(ids(list), []);
});

test('a mark of many that was shown early is taken back, and what was archived or read before stays so', () => {
  const list = listOf('all', [notification(3), notification(2, { state: read }), notification(1)], at(3));
  const isRead = () => list.visible.map((entry) => Boolean(entry.state.read_at));
  const { takeBack } = list.expect({ as: 'read', upto: at(2) }, NOW);
  assert.deepEqual(isRead(), [false, true, true]);
  takeBack();
  assert.deepEqual(isRead(), [false, true, false]);
});

test('what the server says of something else meanwhile neither keeps nor undoes a mark that was shown early', () => {
  const list = listOf('all', [notification(2), notification(1)], at(2));
  const { takeBack } = list.expect({ as: 'read', upto: at(2) }, NOW);
  list.applyState({ upto: at(2), state: 'seen' }, at(3), NOW);
  assert.deepEqual(list.visible.map((entry) => entry.state.read_at), [NOW, NOW]);
  takeBack();
  assert.deepEqual(list.visible.map((entry) => [entry.state.seen_at, entry.state.read_at]), [[NOW, null], [NOW, null]]);
});

test('a mark that is settled stays, until a later word of the server', () => {
  const list = listOf('all', [notification(1)], at(2));
  const readAt = () => list.find('n1').state.read_at;
  list.expect({ as: 'read', ids: ['n1'] }, NOW).settle(at(4));
  assert.equal(readAt(), NOW);
  list.applyState({ ids: ['n1'], state: 'unread' }, at(5), NOW);
  assert.equal(readAt(), null);
  // The answer may come after the events that followed the mark.
  const late = list.expect({ as: 'read', ids: ['n1'] }, NOW);
  list.applyState({ ids: ['n1'], state: 'read' }, at(6), NOW);
  list.applyState({ ids: ['n1'], state: 'unread' }, at(7), NOW);
  late.settle(at(6));
  assert.equal(readAt(), null);
});

test('what is held back is not on display, and a mark up to the display does not reach it', () => {
  const list = listOf('all', [notification(1)], at(4));
  assert.equal(list.addNotification(notification(5), at(5), { hold: true }), true);
  list.addNotification(notification(6), at(6), { hold: true });
  list.applyState({ ids: ['n1'], state: 'read' }, at(7), NOW);
  assert.deepEqual([ids(list), list.held, list.cursor, list.reached], [['n1'], 2, at(4), at(7)]);
  list.release();
  assert.deepEqual([ids(list), list.held, list.cursor], [['n6', 'n5', 'n1'], 0, at(7)]);
});

test('of very many that are held back the last are only counted, until a page brings them', () => {
  const list = listOf('all', [notification(1)], at(1));
  for (let seq = 2; seq <= 301; seq += 1) list.addNotification(notification(seq), at(seq), { hold: true });
  assert.deepEqual([list.held, list.overflows, list.cursor], [300, true, at(1)]);
  assert.ok(list.size < 300);
  assert.deepEqual(ids(list), ['n1']);
});

test('while the list is scrolled down nothing is kept that its tab would not show', () => {
  const list = listOf('archived', [notification(1, { state: { ...read, archived_at: NOW } })], at(1));
  for (let seq = 2; seq <= 50; seq += 1) list.addNotification(notification(seq), at(seq), { hold: true });
  assert.deepEqual([list.size, list.held, list.reached], [1, 0, at(50)]);
  assert.deepEqual(list.applyState({ ids: ['n9'], state: 'archived' }, at(51), NOW).missing, ['n9']);
});

test('a list that is trimmed keeps the newest', () => {
  const list = listOf('all', [notification(3), notification(2), notification(1)], at(3));
  list.trim(2);
  assert.deepEqual(ids(list), ['n3', 'n2']);
});

test('what was held back and died, or left the tab, is not waited for', () => {
  const list = listOf('unread', [], at(1));
  for (const seq of [2, 3, 4]) list.addNotification(notification(seq), at(seq), { hold: true });
  list.applyState({ ids: ['n2'], state: 'retracted' }, at(5), NOW);
  list.applyState({ ids: ['n3'], state: 'read' }, at(6), NOW);
  assert.deepEqual([list.held, list.cursor], [1, at(1)]);
  list.applyState({ ids: ['n4'], state: 'archived' }, at(7), NOW);
  assert.deepEqual([list.held, list.cursor], [0, at(7)]);
});

test('the dead leave the list', () => {
  const list = listOf('all', [notification(2), notification(1)], at(2));
  list.applyState({ ids: ['n1'], state: 'retracted' }, at(3), NOW);
  assert.deepEqual(ids(list), ['n2']);
});

test('an answer that was on its way when an entry died does not bring it back', () => {
  const list = listOf('unread', [notification(5), notification(4)], at(5), 'older');
  assert.deepEqual(list.applyState({ ids: ['n4', 'n2'], state: 'unread' }, at(6), NOW).missing, ['n2']);
  list.applyState({ ids: ['n2', 'n4'], state: 'expired' }, at(7), NOW);
  assert.equal(list.addEntry(notification(4)), false);
  list.addPage({ entries: [notification(2), notification(1)], cursor: at(6), next: null }, { newest: false });
  assert.deepEqual(ids(list), ['n5', 'n1']);
});

test('of those that died in their thousands the latest are remembered', () => {
  const list = listOf('all', [], at(1));
  list.bury(Array.from({ length: 5_000 }, (_, i) => `n${i}`));
  assert.equal(list.addEntry(notification(4_999)), false);
  assert.equal(list.addEntry(notification(0)), true);
});

test('positions are compared within one log only', () => {
  assert.equal(isCovered('a.5', 'a.5'), true);
  assert.equal(isCovered('a.6', 'a.5'), false);
  assert.equal(isCovered('a.5', 'b.9'), false);
  assert.equal(isCovered('', 'a.5'), false);
  assert.equal(parseCursor('now'), null);
});

test('only addresses that a person may follow become links', () => {
  for (const good of ['https://example.com/', 'http://example.com/', 'mailto:a@example.com']) assert.equal(safeLink(good), good);
  for (const bad of ['javascript:1', 'JAVA\nSCRIPT:1', '\u0001javascript:1', 'data:text/html,x', 'vbscript:x', 'blob:x', '', '  ', null, 7, {}]) assert.equal(safeLink(bad), null);
});
