"""A chat in Django, whole in one file: a question for what is new sleeps until somebody says something.

Run `python django_chat.py [PORT]`, or `meinheld django_chat:app` in this directory; it needs Django.

    GET  /                the page
    POST /messages        text=, name=: says something
    GET  /messages?after= {"messages": [...], "last"} as soon as there are messages after that number

A view is plain synchronous code. `c.suspend()` in it parks the request, with all of Django's frames on its stack, and
`c.resume()` in another view wakes it. Views interleave only there, so the list of messages needs no lock.
"""

import sys
from collections import deque

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        DEBUG=False,
        # For this example alone: it signs nothing that is worth anything.
        SECRET_KEY="not a secret",
        ALLOWED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )
    django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.template import engines
from django.urls import path
from django.views.decorators.http import require_GET, require_http_methods

from meinheld import middleware, server

POLL_SECONDS = 25
MESSAGES_MAX = 200
TEXT_CHARACTERS_MAX = 2000
NAME_CHARACTERS_MAX = 40

messages = deque(maxlen=MESSAGES_MAX)
waiting = []
last = 0

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem; }
  ol { list-style: none; padding: 0; }
  b { margin-right: .5em; }
</style>
<h1>Chat</h1>
<ol></ol>
<form>{% csrf_token %}
  <input name="name" placeholder="Name" required maxlength="40">
  <input name="text" placeholder="Message" required maxlength="2000" autocomplete="off">
  <button>Say</button>
</form>
<script>
  const form = document.querySelector("form");

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await fetch("/messages", { method: "POST", body: new FormData(form) });
    if (response.ok) form.elements.text.value = "";
  });

  function show({ name, text }) {
    const line = document.createElement("li");
    line.append(Object.assign(document.createElement("b"), { textContent: name }), text);
    document.querySelector("ol").append(line);
  }

  (async () => {
    for (let after = 0; ; ) {
      try {
        const news = await (await fetch(`/messages?after=${after}`)).json();
        news.messages.forEach(show);
        after = news.last;
      } catch {
        await new Promise((later) => setTimeout(later, 1000));
      }
    }
  })();
</script>
</html>
"""


@require_GET
def page(request):
    """Answer with the page, and the cookie that a POST must match."""
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


@require_http_methods(["GET", "POST"])
def conversation(request):
    """Say something, or ask for what was said."""
    return say(request) if request.method == "POST" else hear(request)


def say(request):
    """Keep a message, and wake all who wait for one."""
    global last
    name = request.POST.get("name", "").strip()[:NAME_CHARACTERS_MAX]
    text = request.POST.get("text", "").strip()[:TEXT_CHARACTERS_MAX]
    if not name or not text:
        return JsonResponse({"error": "a message has a name and a text"}, status=400)
    last += 1
    messages.append({"number": last, "name": name, "text": text})
    while waiting:
        waiting.pop().resume()
    return JsonResponse({"number": last})


def hear(request):
    """Answer with the messages after a number, and wait for one if there are none."""
    after = request.GET.get("after", "0")
    if not (after.isascii() and after.isdecimal()):
        return JsonResponse({"error": "after is the number of a message"}, status=400)
    # Who counts from an earlier run of the server starts anew.
    after = int(after) if int(after) <= last else 0
    if after == last:
        wait(request.META.get(middleware.CONTINUATION_KEY))
    news = [message for message in messages if message["number"] > after]
    return JsonResponse({"messages": news, "last": last})


def wait(c):
    """Suspend this request until somebody says something; under another server, not at all."""
    if c is None:
        return
    waiting.append(c)
    try:
        c.suspend(POLL_SECONDS)
    except server.timeout:
        pass
    finally:
        # Who is woken has been taken off already.
        if c in waiting:
            waiting.remove(c)


urlpatterns = [path("", page), path("messages", conversation)]
app = middleware.ContinuationMiddleware(get_wsgi_application())

if __name__ == "__main__":
    server.listen(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000))
    print("http://%s:%d" % server.addresses()[0], flush=True)
    server.run(app, silent=True)
