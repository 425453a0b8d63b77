// strings.js owns the words of the elements, in English and Simplified Chinese, and how times, numbers and plurals are said.
//
// A word is a text with `{name}` for what changes, or one text for each plural category of `{n}`, or a function of the values.
// Pages put other words, or another language, over these with the `strings` property.
// It deliberately translates nothing that a publisher wrote and nothing that the server says in a problem.

const ENGLISH = {
  notifications: 'Notifications',
  bellNone: 'Notifications',
  bellUnseen: 'Notifications, {n} new',
  bellUnread: 'Notifications, {n} unread',
  counterUnseen: '{n} new',
  counterUnread: '{n} unread',
  tabs: 'Which notifications',
  all: 'All',
  unread: 'Unread',
  archived: 'Archived',
  category: 'Category',
  allCategories: 'All categories',
  markAll: 'Mark all read',
  loading: 'Loading notifications…',
  older: 'Show older',
  loadingOlder: 'Loading…',
  emptyAll: 'Nothing here yet',
  emptyAllText: 'When something happens, it will appear here by itself.',
  emptyUnread: 'All caught up',
  emptyUnreadText: 'There is nothing you have not read.',
  emptyArchived: 'Nothing archived',
  emptyArchivedText: 'What you archive leaves the inbox and is kept here.',
  failed: 'The notifications could not be loaded',
  unreachable: 'The server could not be reached.',
  tryAgain: 'Try again',
  offline: 'You are offline',
  offlineText: 'The notifications will appear here when you are connected again.',
  offlineBanner: 'You are offline. What arrives meanwhile will appear here by itself.',
  reconnecting: 'Reconnecting… What arrives meanwhile will appear here by itself.',
  connectedAgain: 'Connected again.',
  ended: 'You are not signed in',
  endedText: 'Notifications appear here when you are signed in.',
  endedExpired: 'Your session has ended',
  endedExpiredText: 'Sign in again to see your notifications.',
  endedReplaced: 'Opened elsewhere',
  endedReplacedText: 'Another page took over this connection. Reload this page to come back.',
  endedOther: 'Somebody else signed in',
  endedOtherText: 'Reload this page to see their notifications.',
  sessionEnds: { one: 'Your session ends in {n} second.', other: 'Your session ends in {n} seconds.' },
  untitled: 'Untitled',
  unreadEntry: 'Unread:',
  showMore: 'Show more',
  showLess: 'Show less',
  priority1: 'Lowest',
  priority2: 'Low',
  priority4: 'High',
  priority5: 'Urgent',
  markRead: 'Mark as read',
  markUnread: 'Mark as unread',
  archive: 'Archive',
  unarchive: 'Move back to inbox',
  entryButton: '{action}: {title}',
  pill: '{n} new',
  arrived: { one: '{n} new notification', other: '{n} new notifications' },
  arrivedOne: '{arrived}: {title}',
  wasArchived: 'Archived',
  wasUnarchived: 'Moved back to the inbox',
  undo: 'Undo',
  didNotWork: 'That did not work: {reason}',
  enableDesktop: 'Enable desktop notifications',
  topics: 'Topics',
  muteTopic: 'Mute',
  leaveTopic: 'Leave',
  followTopic: 'Follow',
  justNow: 'just now',
};

const CHINESE = {
  notifications: '通知',
  bellNone: '通知',
  bellUnseen: '通知，{n} 条新通知',
  bellUnread: '通知，{n} 条未读',
  counterUnseen: '{n} 条新通知',
  counterUnread: '{n} 条未读',
  tabs: '显示哪些通知',
  all: '全部',
  unread: '未读',
  archived: '已归档',
  category: '类别',
  allCategories: '全部类别',
  markAll: '全部标为已读',
  loading: '正在加载通知…',
  older: '显示更早的通知',
  loadingOlder: '正在加载…',
  emptyAll: '还没有通知',
  emptyAllText: '有新消息时，会自动显示在这里。',
  emptyUnread: '全部已读',
  emptyUnreadText: '没有未读通知。',
  emptyArchived: '没有已归档的通知',
  emptyArchivedText: '归档的通知会离开收件箱，保存在这里。',
  failed: '无法加载通知',
  unreachable: '无法连接到服务器。',
  tryAgain: '重试',
  offline: '你已离线',
  offlineText: '恢复连接后，通知会显示在这里。',
  offlineBanner: '你已离线。期间收到的通知稍后会自动显示。',
  reconnecting: '正在重新连接… 期间收到的通知稍后会自动显示。',
  connectedAgain: '已重新连接。',
  ended: '你尚未登录',
  endedText: '登录后，通知会显示在这里。',
  endedExpired: '登录已过期',
  endedExpiredText: '请重新登录以查看通知。',
  endedReplaced: '已在别处打开',
  endedReplacedText: '另一个页面接管了此连接。重新加载本页即可恢复。',
  endedOther: '已有其他用户登录',
  endedOtherText: '重新加载本页以查看其通知。',
  sessionEnds: '登录将在 {n} 秒后过期。',
  untitled: '无标题',
  unreadEntry: '未读：',
  showMore: '展开',
  showLess: '收起',
  priority1: '最低',
  priority2: '低',
  priority4: '高',
  priority5: '紧急',
  markRead: '标为已读',
  markUnread: '标为未读',
  archive: '归档',
  unarchive: '移回收件箱',
  entryButton: '{action}：{title}',
  pill: '{n} 条新通知',
  arrived: '{n} 条新通知',
  arrivedOne: '{arrived}：{title}',
  wasArchived: '已归档',
  wasUnarchived: '已移回收件箱',
  undo: '撤销',
  didNotWork: '操作失败：{reason}',
  enableDesktop: '开启桌面通知',
  topics: '话题',
  muteTopic: '免打扰',
  leaveTopic: '取消关注',
  followTopic: '关注',
  justNow: '刚刚',
};

/** Languages whose words are here. */
export const BUILT_IN = { en: ENGLISH, zh: CHINESE };
const STEPS = [[60, 'second', 1], [3600, 'minute', 60], [86400, 'hour', 3600], [604800, 'day', 86400]];
const JUST_NOW_S = 45;

/** The language that an element stands in: its own `lang`, the closest one around it, also outside of shadow roots, or the browser's. */
export function languageOf(element) {
  for (let node = element; node; node = node.getRootNode().host) {
    const near = node.closest('[lang]')?.lang;
    if (near) return near;
  }
  return navigator.language;
}

/** A tag that Intl understands, or English. */
function checked(language) {
  try {
    return Intl.getCanonicalLocales(language)[0] ?? 'en';
  } catch {
    return 'en';
  }
}

export class Words {
  #texts;
  #plurals;
  #relative;
  #dates;

  /** `overrides` are laid over the built-in words of the language, or over the English ones where it has none. */
  constructor(language, overrides = null) {
    const tag = checked(language);
    const known = BUILT_IN[tag.split('-')[0]];
    // Times in the language of the words: half a sentence in each of two helps nobody.
    this.locale = known || overrides ? tag : 'en';
    this.#texts = { ...(known ?? ENGLISH), ...overrides };
    this.#plurals = new Intl.PluralRules(this.locale);
    this.#relative = new Intl.RelativeTimeFormat(this.locale, { numeric: 'auto', style: 'short' });
    this.#dates = {
      thisYear: new Intl.DateTimeFormat(this.locale, { day: 'numeric', month: 'short' }),
      otherYear: new Intl.DateTimeFormat(this.locale, { day: 'numeric', month: 'short', year: 'numeric' }),
      exact: new Intl.DateTimeFormat(this.locale, { dateStyle: 'full', timeStyle: 'short' }),
    };
  }

  /** The words for `key`, with `values` put in. */
  say(key, values = {}) {
    const word = this.#texts[key] ?? ENGLISH[key];
    if (typeof word === 'function') return String(word(values));
    const text = typeof word === 'string' ? word : word[this.#plurals.select(values.n)] ?? word.other;
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
  }

  /** Why something failed. What the server said is more exact than any word of ours, in whatever language it is. */
  reason(error) {
    return error.name === 'Unreachable' ? this.say('unreachable') : error.message;
  }

  /** How long ago, in the words a person would use; a date once it is more than a week. */
  ago(date, now) {
    const seconds = Math.max(0, (now - date) / 1000);
    if (seconds < JUST_NOW_S) return this.say('justNow');
    for (const [limit, unit, size] of STEPS) {
      if (seconds < limit) return this.#relative.format(-Math.max(1, Math.floor(seconds / size)), unit);
    }
    return (date.getFullYear() === now.getFullYear() ? this.#dates.thisYear : this.#dates.otherYear).format(date);
  }

  exactly(date) {
    return this.#dates.exact.format(date);
  }
}

/** A count that fits a badge: `99+` above the limit. */
export const short = (count, limit) => (count > limit ? `${limit}+` : String(count));
