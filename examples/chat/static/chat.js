// The page of the chat: takes a seat in a room, shows what is said there, sends what is typed.
//
// One loop per visit asks the server "what is new?" and asks again as soon as it is answered; the server holds the
// answer back until there is some. Whatever interrupts that loop - the server restarts, the network goes, the laptop
// sleeps - is mended in one way: take a seat again and show what is newer than the last message on the page.
//
// What people write reaches the page as text nodes only, never as markup.

const RETRY_MS = 1000;
const RETRY_SPREAD_MS = 500; // so that all windows do not come back in the same instant
const RESEAT_MS = 200;
const ANSWER_MS = 10_000; // how much longer than promised an answer may take before the connection counts as dead
const SHOWN_MAX = 500;
const TOGETHER_MS = 5 * 60_000; // messages of one author within this time stand under one name
const AT_BOTTOM_PX = 40;

const $ = (id) => document.getElementById(id);
const [joinForm, nameField, talk, log, list, composer, textField] =
  ["join", "name", "talk", "log", "messages", "composer", "text"].map($);
const roomLinks = [...document.querySelectorAll("a[data-room]")];
const roomNames = roomLinks.map((link) => link.dataset.room);

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const exactly = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

// The visit of a room: from choosing it until leaving it. `seat` is what the server knows us by, and comes and goes
// with the connection. At most one visit is under way; the loop of an older one ends by itself.
let visit = null;
let line = new AbortController(); // aborted when the network changes: an open question may then wait in vain
let unread = 0;
let pinned = true; // the log shows its end, and shall go on doing so

// Talking to the server

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
  get isFinal() {
    return this.status < 500 || this.status === 501;
  }
}

async function ask(path, { body, signal, patience = ANSWER_MS } = {}) {
  const limit = AbortSignal.timeout(patience);
  const response = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
    cache: "no-store",
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, answer.error ?? `The server answered ${response.status}.`);
  return answer;
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    window.addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}

// Visiting a room

function enter(room, name) {
  const olderToken = visit?.seat?.token ?? visit?.olderToken;
  endVisit();
  visit = { room, name, olderToken, seat: null, epoch: null, lastId: 0, ended: new AbortController() };
  clearLog();
  showRoom(room);
  showTalk();
  setStatus("wait", "connecting…");
  stay(visit);
}

async function stay(current) {
  const { signal } = current.ended;
  while (!signal.aborted) {
    try {
      await (current.seat ? listen(current, signal) : sitDown(current, signal));
    } catch (error) {
      if (!signal.aborted) await recover(current, error, signal);
    }
  }
}

async function sitDown(current, signal) {
  const body = { name: current.name };
  if (current.olderToken) body.token = current.olderToken;
  const seat = await ask(`/rooms/${current.room}/join`, { body, signal });
  if (signal.aborted) return;
  const isFirst = !current.epoch;
  if (!isFirst && current.epoch !== seat.epoch) restarted(current);
  current.epoch = seat.epoch;
  current.seat = seat;
  remember("sessionStorage", "chat.seated", "yes");
  rememberOwn(seat);
  showUpdate(current, seat, { quietly: isFirst });
  setStatus("on", "online");
}

async function listen(current, signal) {
  const { token, cursor, poll_seconds: pollSeconds } = current.seat;
  const query = new URLSearchParams({ token, after: cursor });
  const patience = pollSeconds * 1000 + ANSWER_MS;
  const either = AbortSignal.any([signal, line.signal]);
  const update = await ask(`/rooms/${current.room}/updates?${query}`, { signal: either, patience });
  if (signal.aborted) return;
  current.seat.cursor = update.cursor;
  showUpdate(current, update, { quietly: false });
}

async function recover(current, error, signal) {
  current.olderToken = current.seat?.token ?? current.olderToken;
  current.seat = null;
  if (error instanceof Refusal && error.status === 410) return sleep(RESEAT_MS, signal);
  if (error instanceof Refusal && error.isFinal) return standOutside(error.message);
  setStatus("wait", "reconnecting…");
  await sleep(RETRY_MS + Math.random() * RETRY_SPREAD_MS, signal);
}

function restarted(current) {
  current.lastId = 0;
  if (list.childElementCount) addNote("The chat was restarted. What stands above is from before.");
}

function endVisit() {
  visit?.ended.abort();
  visit = null;
}

function giveUpSeat() {
  const token = visit?.seat?.token;
  if (token) navigator.sendBeacon("/leave", new Blob([JSON.stringify({ token })], { type: "application/json" }));
  endVisit();
}

function standOutside(problem = "") {
  endVisit();
  remember("sessionStorage", "chat.seated", "");
  $("join-problem").textContent = problem;
  showJoin();
}

// Sending

let sending = Promise.resolve(); // one after the other, so that two quick messages keep their order

async function send(current, text) {
  try {
    if (!current.seat) throw new TypeError("not connected");
    await ask(`/rooms/${current.room}/messages`, { body: { token: current.seat.token, text } });
    $("problem").textContent = "";
  } catch (error) {
    giveBack(current, text, error instanceof Refusal ? error.message : "The server cannot be reached right now.");
  }
}

function giveBack(current, text, reason) {
  textField.value = textField.value ? `${text}\n${textField.value}` : text;
  fitTextField();
  $("problem").textContent = `Not sent to ${current.room}. ${reason} Your text is still here.`;
}

function submitText() {
  const text = textField.value.trim();
  if (!text || !visit) return;
  const current = visit;
  textField.value = "";
  fitTextField();
  sending = sending.then(() => send(current, text));
}

// Showing what arrived

function showUpdate(current, update, { quietly }) {
  // A screen reader shall read what is said from now on, not the whole history.
  log.setAttribute("aria-live", quietly ? "off" : "polite");
  if (update.forgotten > current.lastId) {
    addNote(current.lastId ? "Some messages are missing here." : "Older messages are no longer kept.");
  }
  const fresh = update.messages.filter((message) => message.id > current.lastId);
  for (const message of fresh) addMessage(message, current);
  current.lastId = Math.max(current.lastId, update.forgotten, ...fresh.map((message) => message.id));
  showMembers(update.members, current.seat);
  forgetOldest();
  followLog(fresh.length > 0 && !quietly);
  if (!quietly) countUnread(fresh.filter((message) => !isOwn(message)).length);
  $("empty").hidden = list.childElementCount > 0;
}

function addMessage(message, current) {
  const when = new Date(message.time);
  const previous = list.lastElementChild;
  const newDay = previous?.dataset.day !== when.toDateString();
  if (newDay) addNote(calendar.format(when), when);
  const own = isOwn(message);
  const row = element("li", own ? "message own" : "message");
  const follows = !newDay && previous.dataset.author === String(message.author_id)
    && message.time - previous.dataset.time < TOGETHER_MS;
  row.classList.toggle("follows", follows);
  Object.assign(row.dataset, { author: message.author_id, time: message.time, day: when.toDateString() });
  if (!own) row.append(face(message.author));
  const bubble = element("div", "bubble");
  bubble.append(byline(message, when, own), paragraph(message, when));
  row.append(bubble);
  list.append(row);
}

function byline(message, when, own) {
  const line = element("p", "byline");
  const author = element("span", "author", own ? "You" : message.author);
  const time = element("time", "", clock.format(when));
  time.dateTime = when.toISOString();
  time.title = exactly.format(when);
  line.append(author, " ", time);
  return line;
}

function paragraph(message, when) {
  const text = element("p", "text", message.text);
  text.dir = "auto";
  text.title = clock.format(when);
  return text;
}

function addNote(text, day) {
  const note = element("li", "note", text);
  if (day) note.dataset.day = day.toDateString();
  list.append(note);
}

function showMembers(members, seat) {
  $("people-count").textContent = members.length;
  $("members").replaceChildren(...members.map((member) => memberItem(member, member.id === seat.id)));
}

function memberItem(member, isMe) {
  const item = element("li");
  const name = element("span", "name", member.name);
  name.dir = "auto";
  item.append(face(member.name), name);
  if (isMe) item.append(element("span", "me", "you"));
  return item;
}

function face(name) {
  const circle = element("span", "face", [...name][0].toLocaleUpperCase());
  circle.setAttribute("aria-hidden", "true");
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) % 360;
  circle.style.setProperty("--hue", hash);
  return circle;
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function clearLog() {
  list.replaceChildren();
  $("members").replaceChildren();
  $("people-count").textContent = "";
  $("empty").hidden = true;
  $("problem").textContent = "";
  pinned = true;
  $("jump").hidden = true;
  resetUnread();
}

function forgetOldest() {
  while (list.childElementCount > SHOWN_MAX) list.firstElementChild.remove();
}

// Scrolling: the log follows its end only while the reader is there.

function followLog(hasFresh) {
  if (pinned) log.scrollTop = log.scrollHeight;
  else if (hasFresh) $("jump").hidden = false;
}

function noticeScroll() {
  pinned = log.scrollHeight - log.scrollTop - log.clientHeight < AT_BOTTOM_PX;
  if (pinned) $("jump").hidden = true;
}

function jumpToEnd() {
  pinned = true;
  $("jump").hidden = true;
  followLog(false);
  textField.focus();
}

// Around the conversation

function showRoom(room) {
  for (const link of roomLinks) {
    if (link.dataset.room === room) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("join-room").textContent = room;
  log.setAttribute("aria-label", `Messages in ${room}`);
  showTitle();
}

function showTalk() {
  joinForm.hidden = true;
  talk.hidden = $("people").hidden = false;
  textField.focus({ preventScroll: true });
}

function showJoin() {
  joinForm.hidden = false;
  talk.hidden = $("people").hidden = true;
  setStatus("off", "");
  resetUnread();
  nameField.focus();
}

function setStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;
}

function countUnread(count) {
  if (document.hidden) unread += count;
  showTitle();
}

function resetUnread() {
  unread = 0;
  showTitle();
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}${chosenRoom()} · Chat`;
}

function fitTextField() {
  textField.style.height = "auto";
  textField.style.height = `${textField.scrollHeight + 2}px`;
  const left = textField.maxLength - textField.value.length;
  $("left").textContent = left <= 200 ? `${left} characters left` : "";
}

function chosenRoom() {
  const room = decodeURIComponent(location.hash.slice(1));
  return roomNames.includes(room) ? room : roomNames[0];
}

// What this browser remembers. A browser may forbid storage: then it remembers nothing, and the chat works.

function remember(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch { /* see above */ }
}

function recall(storage, key) {
  try {
    return window[storage].getItem(key) ?? "";
  } catch {
    return "";
  }
}

// Which authors are this window. A new seat brings a new id, and what the older one said is still ours.
let mine = { epoch: "", ids: [] };

function rememberOwn(seat) {
  if (mine.epoch !== seat.epoch) mine = { epoch: seat.epoch, ids: [] };
  mine.ids = [...mine.ids, seat.id].slice(-100);
  remember("sessionStorage", "chat.own", JSON.stringify(mine));
}

function isOwn(message) {
  return mine.ids.includes(message.author_id);
}

function start() {
  try {
    mine = JSON.parse(recall("sessionStorage", "chat.own")) ?? mine;
  } catch { /* nothing remembered yet */ }
  nameField.value = recall("localStorage", "chat.name");
  showRoom(chosenRoom());
  if (recall("sessionStorage", "chat.seated") && nameField.value) enter(chosenRoom(), nameField.value);
  else showJoin();
}

joinForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = nameField.value.trim();
  remember("localStorage", "chat.name", name);
  $("join-problem").textContent = "";
  enter(chosenRoom(), name);
});

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submitText();
  textField.focus();
});

textField.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter belongs to the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submitText();
});

textField.addEventListener("input", fitTextField);
log.addEventListener("scroll", noticeScroll, { passive: true });
new ResizeObserver(() => followLog(false)).observe(log);
$("jump").addEventListener("click", jumpToEnd);

$("leave").addEventListener("click", () => {
  giveUpSeat();
  standOutside();
});

window.addEventListener("hashchange", () => {
  if (visit) enter(chosenRoom(), visit.name);
  else showRoom(chosenRoom());
});

for (const change of ["offline", "online"]) {
  window.addEventListener(change, () => {
    line.abort();
    line = new AbortController();
  });
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) resetUnread();
});

// A page that is only put aside comes back with `pageshow`, and takes a seat again.
window.addEventListener("pagehide", giveUpSeat);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) start();
});

start();
