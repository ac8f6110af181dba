"""The code of the page, in Node.js, in front of a browser and a server that are made up."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.servers import missing, program

_SITE: Final = ROOT / "functions/gateway/site"
#: A browser and a server that notes whose requests it has answered.
_WORLD: Final = """
const stored = new Map();
globalThis.window = globalThis;
globalThis.addEventListener = () => undefined;
globalThis.document = { visibilityState: "visible", documentElement: { dataset: {} } };
globalThis.localStorage = {
  getItem: (name) => stored.get(name) ?? null,
  setItem: (name, text) => stored.set(name, text),
};
Object.defineProperty(globalThis, "navigator", { value: { onLine: true, languages: ["en"], product: "" } });
globalThis.server = { user: "", answers: [], answer: () => ({ status: 500 }) };
server.respond = (method, url) => {
  const answer = server.answer(method, url, server.user);
  server.answers.push(`${method} ${url} of ${server.user || "nobody"}: ${answer.status}`);
  return answer;
};
globalThis.fetch = async (url, { method = "GET" } = {}) => {
  await new Promise((done) => setTimeout(done, 1));
  const { status, body = null } = server.respond(method, url);
  return new Response(body && JSON.stringify(body), { status });
};
globalThis.EventSource = class extends EventTarget {
  static CLOSED = 2;
  constructor() { super(); server.events = this; }
  tell(name, value) { this.dispatchEvent(Object.assign(new Event(name), { data: JSON.stringify(value) })); }
  close() {}
};
globalThis.XMLHttpRequest = class {
  upload = {};
  open(method, url) { Object.assign(this, { method, url }); }
  setRequestHeader() {}
  getResponseHeader(name) { return this.headers[name] ?? null; }
  abort() { clearTimeout(this.timer); }
  send() {
    this.timer = setTimeout(() => {
      const { status, headers = {} } = server.respond(this.method, this.url);
      Object.assign(this, { status, headers, responseText: "", response: "" });
      this.onload();
    }, 1);
  }
};
globalThis.wait = (milliseconds = 300) => new Promise((done) => setTimeout(done, milliseconds));
globalThis.end = () => { console.log(server.answers.join("\\n")); process.exit(0); };
"""


def bundle(code: str, target: Path) -> None:
    """Bundles a module with what it imports from the page's sources, such as ``./src/uploads``."""
    esbuild = _SITE / "node_modules/.bin/esbuild"
    if not esbuild.exists():
        missing("the packages of the page are not installed: run npm ci in functions/gateway/site")
    arguments = ("--bundle", "--format=esm", "--log-level=warning", "--jsx=automatic", "--jsx-import-source=preact")
    subprocess.run([esbuild, *arguments, f"--outfile={target}"], input=code, text=True, cwd=_SITE, check=True)


def answers(code: str, folder: Path) -> list[str]:
    """Runs code that ends with ``end()``, with ``page.mjs`` in the folder; returns what ``server.answers`` has then."""
    (folder / "world.mjs").write_text(_WORLD)
    (folder / "main.mjs").write_text('import "./world.mjs";\n' + code)
    command = [program("node"), str(folder / "main.mjs")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.split("\n")[:-1]
