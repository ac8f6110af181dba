/**
 * What uploads continue with after the tab was closed, by the uploads' keys: handles of dropped files (Chromium only), and
 * files that were shared with the page.
 */

const STORE = "handles";

/** Of the File System Access API, what TypeScript's library lacks. */
export type Handle = FileSystemFileHandle & {
  requestPermission(descriptor: { mode: "read" }): Promise<PermissionState>;
};

/** Keeps a file for an upload that begins later. Throws if the browser has no room. */
export async function keep(key: string, file: File): Promise<void> {
  await run("readwrite", (store) => store.put(file, key));
}

export async function put(key: string, handle: Handle): Promise<void> {
  await run("readwrite", (store) => store.put(handle, key)).catch(() => undefined);
}

export async function get(key: string): Promise<Handle | File | null> {
  const found = await run("readonly", (store) => store.get(key)).catch(() => null);
  return (found as Handle | File | undefined) ?? null;
}

/** Returns the keys of all that is kept. */
export async function keys(): Promise<string[]> {
  return (await run("readonly", (store) => store.getAllKeys()).catch(() => [])) as string[];
}

export async function remove(key: string): Promise<void> {
  await run("readwrite", (store) => store.delete(key)).catch(() => undefined);
}

/** Returns the file if the user allows it to be read again. Must be called while a click is handled. */
export async function open(handle: Handle | File): Promise<File | null> {
  if (handle instanceof File) return handle;
  try {
    if ((await handle.requestPermission({ mode: "read" })) !== "granted") return null;
    return await handle.getFile();
  } catch {
    return null; // it was moved or deleted
  }
}

async function run(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  const opening = indexedDB.open("mp3burst", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = (await finished(opening)) as IDBDatabase;
  try {
    return await finished(act(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

function finished(request: IDBRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
