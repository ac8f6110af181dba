/**
 * Receives what a phone's share sheet sends: keeps the files in the browser's storage, and opens the page, which offers
 * them. Its scope is /share/ only, so it never comes between the page and the server.
 */
import * as handles from "./handles";

interface Navigation extends Event {
  request: Request;
  respondWith(response: Promise<Response>): void;
}

addEventListener("install", () => void (globalThis as unknown as { skipWaiting(): Promise<void> }).skipWaiting());
addEventListener("fetch", (event) => {
  const navigation = event as Navigation;
  if (navigation.request.mode === "navigate") navigation.respondWith(receive(navigation.request));
});

async function receive(request: Request): Promise<Response> {
  let page = "/";
  if (request.method === "POST") {
    // What can fail is that the storage is full or not allowed.
    await keep(request).catch(() => (page = "/#not-shared"));
  }
  return Response.redirect(page, 303);
}

async function keep(request: Request): Promise<void> {
  for (const file of (await request.formData()).getAll("files")) {
    if (file instanceof File && file.size > 0) await handles.keep(crypto.randomUUID(), file);
  }
}
