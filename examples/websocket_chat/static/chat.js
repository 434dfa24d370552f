// The page's side of the chat: joins, shows what is said, and connects again when the line breaks.
"use strict";

const DELAY_MIN = 500;
const DELAY_MAX = 8000;

const part = (id) => document.getElementById(id);
const [state, join, room, say] = ["state", "join", "room", "say"].map(part);
const [name, text, people, messages] = ["name", "text", "people", "messages"].map(part);

let socket = null;
let wanted = "";
let delay = DELAY_MIN;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/chat`);
  socket.onopen = () => socket.send(JSON.stringify({ name: wanted }));
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = (event) => {
    say.querySelector("button").disabled = true;
    state.textContent = `${event.reason || "disconnected"}, trying again …`;
    setTimeout(connect, delay);
    delay = Math.min(delay * 2, DELAY_MAX);
  };
}

function show(message) {
  const shown = { welcome, said, people: tellPeople, error: fault }[message.type];
  shown?.(message);
}

function welcome({ name, history }) {
  delay = DELAY_MIN;
  messages.replaceChildren();
  history.forEach(said);
  state.textContent = `you are ${name}`;
  say.querySelector("button").disabled = false;
  join.hidden = true;
  room.hidden = false;
  text.focus();
}

function said({ name, text, at }) {
  const who = document.createElement("b");
  who.textContent = name;
  const when = document.createElement("time");
  when.textContent = new Date(at * 1000).toLocaleTimeString([], { timeStyle: "short" });
  add([when, who, text]);
}

function fault({ error }) {
  add([error]).className = "fault";
  state.textContent = error;
}

function add(parts) {
  const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  const line = document.createElement("li");
  line.append(...parts);
  messages.append(line);
  if (atEnd) {
    messages.scrollTop = messages.scrollHeight;
  }
  return line;
}

function tellPeople({ people: names }) {
  people.replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    item.textContent = name;
    return item;
  }));
}

join.onsubmit = (event) => {
  event.preventDefault();
  wanted = name.value;
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ name: wanted }));
  } else if (socket === null) {
    connect();
  }
};

say.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ text: text.value }));
    text.value = "";
  }
};

state.textContent = "";
name.focus();
