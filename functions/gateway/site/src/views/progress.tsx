import { useSignal } from "@preact/signals";
import type { ComponentChildren, FunctionComponent } from "preact";
import type { Job } from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as jobs from "../jobs";
import { announce, askPermission, permission } from "../notices";
import { session } from "../session";
import * as uploads from "../uploads";
import { Cross, Pause, Play, Retry, Sliders } from "./icons";

/** What is on its way: uploads, conversions, and those that failed. */
export function Progress() {
  const s = strings.value;
  const sending = uploads.uploads.value;
  const working = jobs.working.value;
  const failed = jobs.failed.value;
  const hasProgress = sending.length > 0 || working.length > 0;
  if (!hasProgress && !failed.length) return null;
  return (
    <section aria-labelledby="progress-title">
      {hasProgress && (
        <div class="title">
          <h2 id="progress-title">{s.inProgress}</h2>
          <PauseAll />
          {permission.value === "default" && session.value.state === "in" && (
            <button class="quiet" onClick={() => void askPermission()}>
              {s.notify}
            </button>
          )}
        </div>
      )}
      {hasProgress && (
        <ul class="items">
          {working.map((job) => (
            <Working key={job.job} job={job} />
          ))}
          {sending.map((upload) => (
            <Sending key={upload.key} upload={upload} />
          ))}
        </ul>
      )}
      {failed.length > 0 && (
        <>
          <h2 id={hasProgress ? "failed-title" : "progress-title"}>{s.failures}</h2>
          <ul class="items">
            {failed.map((job) => (
              <Failed key={job.job} job={job} />
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function PauseAll() {
  const s = strings.value;
  const held = uploads.uploads.value.filter((each) => each.state === "held");
  if (held.length > 1) {
    return (
      <button class="quiet" onClick={() => held.forEach((each) => uploads.start(each.key))}>
        {s.startAll}
      </button>
    );
  }
  const pausable = uploads.uploads.value.filter((each) => uploads.PAUSABLE.has(each.state));
  const paused = uploads.uploads.value.filter((each) => each.state === "paused");
  if (session.value.state !== "in" || pausable.length + paused.length < 2) return null;
  return pausable.length ? (
    <button class="quiet" onClick={uploads.pauseAll}>
      {s.pauseAll}
    </button>
  ) : (
    <button class="quiet" onClick={() => paused.forEach((each) => uploads.resume(each.key))}>
      {s.resumeAll}
    </button>
  );
}

function Sending({ upload }: { upload: uploads.Upload }) {
  const s = strings.value;
  const part = upload.state === "held" ? undefined : upload.size ? upload.sent / upload.size : 1;
  return (
    <Item name={upload.name} status={describe(upload)} part={part} tone={toneOf(upload.state)}>
      {isEditable(upload) && <Edit upload={upload} />}
      {upload.state === "held" && <button onClick={() => uploads.start(upload.key)}>{s.start}</button>}
      {uploads.PAUSABLE.has(upload.state) && session.value.state === "in" && (
        <Action label={s.pause} name={upload.name} act={() => uploads.pause(upload.key)}>
          <Pause />
        </Action>
      )}
      {upload.state === "paused" && (
        <Action label={s.resume} name={upload.name} act={() => uploads.resume(upload.key)}>
          <Play />
        </Action>
      )}
      {upload.state === "failed" && (
        <Action label={s.retry} name={upload.name} act={() => uploads.resume(upload.key)}>
          <Retry />
        </Action>
      )}
      {upload.state === "detached" &&
        (upload.hasHandle ? (
          <button onClick={() => void uploads.reopen(upload.key)}>{s.continueUpload}</button>
        ) : (
          <label class="button">
            <input
              type="file"
              onChange={(event) => {
                const input = event.currentTarget;
                uploads.add([...(input.files ?? [])].map((file) => ({ file, handle: null })));
                input.value = "";
              }}
            />
            {s.choose}
          </label>
        ))}
      <Action label={s.cancel} name={upload.name} act={() => uploads.cancel(upload.key)}>
        <Cross />
      </Action>
    </Item>
  );
}

/** Returns whether the options of an upload can still be changed. */
function isEditable({ state, url }: uploads.Upload): boolean {
  return state === "held" || ((state === "queued" || state === "failed") && !url);
}

/** Opens the editor, which is loaded then. */
function Edit({ upload }: { upload: uploads.Upload }) {
  const s = strings.value;
  const editor = useSignal<FunctionComponent<{ upload: uploads.Upload; onClose: () => void }> | null>(null);
  const open = async () => {
    uploads.hold(upload.key);
    try {
      const { Editor } = await import("./editor");
      editor.value = Editor;
    } catch {
      announce((each) => each.somethingWrong);
    }
  };
  const Editor = editor.value;
  return (
    <>
      <Action label={s.edit} name={upload.name} act={() => void open()}>
        <Sliders />
      </Action>
      {Editor && <Editor upload={upload} onClose={() => (editor.value = null)} />}
    </>
  );
}

function describe(upload: uploads.Upload): string {
  const s = strings.value;
  const size = i18n.size(upload.size);
  switch (upload.state) {
    case "sending": {
      const parts = [s.states.sending, s.ofSize(i18n.size(upload.sent), size)];
      if (upload.size < upload.fileSize) parts.push(s.soundOnly(i18n.percent(1 - upload.size / upload.fileSize)));
      if (upload.rate) {
        parts.push(s.rate(i18n.size(upload.rate)), s.left(i18n.wait((upload.size - upload.sent) / upload.rate)));
      }
      return parts.join(" · ");
    }
    case "preparing":
      return `${s.states.preparing} · ${size}`;
    case "queued":
      return `${session.value.state === "in" ? s.states.queued : s.states.queuedOut} · ${size}`;
    case "held":
      return `${s.states.held} · ${size}`;
    case "waiting":
      return upload.reason ?? s.states.waiting;
    case "failed":
      return upload.reason ?? s.states.failed;
    case "detached":
      return `${upload.hasHandle ? s.states.reopen : s.states.detached} · ${s.ofSize(i18n.size(upload.sent), size)}`;
    default:
      return `${s.states[upload.state]} · ${s.ofSize(i18n.size(upload.sent), size)}`;
  }
}

function toneOf(state: uploads.Upload["state"]): Tone {
  if (state === "failed") return "failed";
  return state === "sending" || state === "sent" ? "active" : "still";
}

function Working({ job }: { job: Job }) {
  const s = strings.value;
  const stage = job.stage === "done" || job.stage === "failed" ? "joining" : job.stage;
  const status = [s.stages[stage]];
  if (job.stage === "encoding" && job.pieces) status.push(s.pieces(job.pieces.done, job.pieces.total));
  if (job.progress > 0) status.push(i18n.percent(job.progress));
  if (job.eta !== null && job.stage === "encoding") status.push(s.left(i18n.wait(job.eta)));
  return (
    <Item
      name={job.filename}
      status={status.join(" · ")}
      part={job.stage === "waiting" ? null : job.progress}
      tone={job.stage === "waiting" ? "still" : "active"}
    >
      <Action label={s.cancel} name={job.filename} act={() => void jobs.cancel(job)}>
        <Cross />
      </Action>
    </Item>
  );
}

function Failed({ job }: { job: Job }) {
  return (
    <Item name={job.filename} status={job.error ?? ""} part={undefined} tone="failed">
      <Action label={strings.value.dismissJob} name={job.filename} act={() => void jobs.cancel(job)}>
        <Cross />
      </Action>
    </Item>
  );
}

type Tone = "active" | "still" | "failed";

interface ItemProps {
  name: string;
  status: string;
  /** From 0 to 1; null if unknown; undefined to show no bar. */
  part: number | null | undefined;
  tone: Tone;
  children: ComponentChildren;
}

function Item({ name, status, part, tone, children }: ItemProps) {
  return (
    <li class={`item ${tone}`}>
      <div class="text">
        <p class="name ellipsis" title={name}>
          {name}
        </p>
        <p class="faint small status">{status}</p>
        {part !== undefined && <progress aria-label={name} max={1} {...(part === null ? {} : { value: part })} />}
      </div>
      <div class="actions">{children}</div>
    </li>
  );
}

interface ActionProps {
  label: string;
  name: string;
  act: () => void;
  children: ComponentChildren;
}

export function Action({ label, name, act, children }: ActionProps) {
  return (
    <button class="icon" title={label} aria-label={strings.value.actionOn(label, name)} onClick={act}>
      {children}
    </button>
  );
}
