import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Handle } from "./handles";
import { strings } from "./i18n";
import * as jobs from "./jobs";
import { announce } from "./notices";
import { session, wantsLogin } from "./session";
import * as uploads from "./uploads";
import { isDialogOpen } from "./views/dialog";
import { DropZone } from "./views/drop-zone";
import { Header } from "./views/header";
import { Login } from "./views/login";
import { Player } from "./views/player";
import { Progress } from "./views/progress";
import { Shelf } from "./views/shelf";
import { Toast } from "./views/toast";

export function App() {
  const { state } = session.value;
  return (
    <>
      <Header />
      <main>
        <Banner />
        {session.value.state === "out" && needsLogin(session.value.hasExpired) && <Login />}
        <DropZone />
        <Progress />
        {(state === "in" || state === "unknown") && <Shelf />}
      </main>
      <Player />
      <Toast isElsewhere={isDialogOpen.value} />
      <DropOverlay />
    </>
  );
}

/** Returns whether there is a reason to log in: a newcomer looks around first. */
function needsLogin(hasExpired: boolean): boolean {
  return hasExpired || wantsLogin.value || uploads.uploads.value.length > 0;
}

/** What is in the way of everything: no network, or no server. */
function Banner() {
  const text = !uploads.isOnline.value
    ? strings.value.offline
    : session.value.state === "unreachable" || jobs.isLost.value
      ? strings.value.unreachable
      : null;
  return (
    <p class="banner" role="status" hidden={!text}>
      {text}
    </p>
  );
}

/** Takes files that are dropped or pasted anywhere. */
function DropOverlay() {
  const isOver = useSignal(false);
  useEffect(() => {
    const listeners = new AbortController();
    const { signal } = listeners;
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      isOver.value = true;
    };
    window.addEventListener("dragenter", over, { signal });
    window.addEventListener("dragover", over, { signal });
    window.addEventListener("dragleave", (event) => (isOver.value = event.relatedTarget !== null), { signal });
    window.addEventListener(
      "drop",
      (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        isOver.value = false;
        if (event.dataTransfer) void take(event.dataTransfer.items);
      },
      { signal },
    );
    window.addEventListener(
      "paste",
      (event) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (files.length) uploads.add(files.map((file) => ({ file, handle: null })));
      },
      { signal },
    );
    return () => listeners.abort();
  }, []);
  return (
    <div class="overlay" hidden={!isOver.value} aria-hidden="true">
      <p>{strings.value.dropNow}</p>
    </div>
  );
}

type DroppedItem = DataTransferItem & { getAsFileSystemHandle?: () => Promise<FileSystemHandle | null> };

/** Adds the files that were dropped. All items must be asked before the first wait: browsers empty the list then. */
async function take(items: DataTransferItemList): Promise<void> {
  const dropped = [...items]
    .filter((item) => item.kind === "file")
    .map((item: DroppedItem) => ({
      file: item.getAsFile(),
      isFolder: item.webkitGetAsEntry()?.isDirectory ?? false,
      handle: item.getAsFileSystemHandle?.().catch(() => null),
    }));
  const given = [];
  for (const { file, isFolder, handle } of dropped) {
    const opened = await handle;
    if (file && !isFolder) given.push({ file, handle: opened?.kind === "file" ? (opened as Handle) : null });
  }
  if (dropped.some(({ isFolder }) => isFolder)) announce((s) => s.noFolders);
  uploads.add(given);
}
