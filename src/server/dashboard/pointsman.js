// Applies the updates that the server streams: whole parts of the page, by the id of their element.
"use strict";

(() => {
  const path = document.body.dataset.live;
  const status = document.getElementById("connection");
  const pause = document.getElementById("pause");
  if (!path || !status || !pause || !("EventSource" in window)) {
    return;
  }

  // Parts that came while they could not be applied, by id. Only the latest of each matters.
  const waiting = new Map();
  let source = null;
  let isPaused = false;
  let isPressed = false;

  function say(text) {
    if (status.textContent !== text) {
      status.textContent = text;
    }
  }

  // A part with selected text stays as it is until the selection ends.
  function isSelected(part) {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode);
  }

  // What is the same stays as it is, so that it is not read out again.
  function hasContent(part, html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.innerHTML === part.innerHTML;
  }

  // Replaces a part. What the reader has opened, scrolled, checked and focused stays.
  function replace(part, html) {
    const kept = [];
    for (const element of part.querySelectorAll("[id]")) {
      kept.push({
        id: element.id,
        open: element.tagName === "DETAILS" && element.open,
        checked: element.type === "checkbox" && element.checked,
        left: element.scrollLeft,
        top: element.scrollTop,
      });
    }
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = html;
    for (const before of kept) {
      const element = document.getElementById(before.id);
      if (!element) {
        continue;
      }
      if (before.open) {
        element.open = true;
      }
      if (before.checked) {
        element.checked = true;
      }
      if (before.left) {
        element.scrollLeft = before.left;
      }
      if (before.top) {
        element.scrollTop = before.top;
      }
    }
    if (focused) {
      const element = document.getElementById(focused);
      if (element) {
        element.focus({ preventScroll: true });
      }
    }
  }

  function applyWaiting() {
    // A press must end on the element on which it began.
    if (isPressed || isPaused) {
      return;
    }
    for (const [id, html] of waiting) {
      const part = document.getElementById(id);
      if (part && isSelected(part)) {
        continue;
      }
      waiting.delete(id);
      if (part && !hasContent(part, html)) {
        replace(part, html);
      }
    }
  }

  function connect() {
    if (source || isPaused || document.hidden) {
      return;
    }
    source = new EventSource(path);
    source.addEventListener("open", () => say("Live"));
    source.addEventListener("fragment", (event) => {
      const fragment = JSON.parse(event.data);
      waiting.set(fragment.id, fragment.html);
      applyWaiting();
    });
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) {
        disconnect();
        say("Updates stopped. Reload the page to continue.");
      } else {
        say("Connecting again");
      }
    });
  }

  function disconnect() {
    if (source) {
      source.close();
      source = null;
    }
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Continue updates" : "Pause updates";
    if (isPaused) {
      disconnect();
      say("Paused");
    } else {
      applyWaiting();
      connect();
    }
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  document.addEventListener("selectionchange", applyWaiting);
  document.addEventListener("pointerdown", () => (isPressed = true), true);
  for (const end of ["pointerup", "pointercancel"]) {
    // After the click that follows it.
    document.addEventListener(end, () => setTimeout(() => { isPressed = false; applyWaiting(); }, 0), true);
  }
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", connect);
  connect();
})();
