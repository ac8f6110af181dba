/** Handles of dropped files, with which an upload continues after the tab was closed (Chromium only). */

const STORE = "handles";

/** Of the File System Access API, what TypeScript's library lacks. */
export type Handle = FileSystemFileHandle & {
  requestPermission(descriptor: { mode: "read" }): Promise<PermissionState>;
};

export async function put(key: string, handle: Handle): Promise<void> {
  await run("readwrite", (store) => store.put(handle, key)).catch(() => undefined);
}

export async function get(key: string): Promise<Handle | null> {
  return ((await run("readonly", (store) => store.get(key)).catch(() => null)) as Handle | undefined) ?? null;
}

export async function remove(key: string): Promise<void> {
  await run("readwrite", (store) => store.delete(key)).catch(() => undefined);
}

/** Returns the file if the user allows it to be read again. Must be called while a click is handled. */
export async function open(handle: Handle): Promise<File | null> {
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
