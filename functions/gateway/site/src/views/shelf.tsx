import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { mp3Address, zipAddress, type Job } from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as jobs from "../jobs";
import { announce } from "../notices";
import * as player from "../player";
import { session } from "../session";
import { uploads } from "../uploads";
import { Download, Pause, Pencil, Play, Share, Trash } from "./icons";
import { Action } from "./progress";
import { Sharing } from "./sharing";
import { TagEditor } from "./tags";

type Sort = "newest" | "oldest" | "name" | "longest";

/** The MP3s that are selected, by their jobs; null while none can be. */
type Picked = ReadonlySet<string> | null;

/** MP3s from which on there is something to search and sort. */
const MANY = 5;
/** The most of GET /jobs.zip. */
const ZIP_LIMIT = 200;

const ORDERS: Record<Sort, (a: Job, b: Job) => number> = {
  newest: (a, b) => compare(b.created, a.created),
  oldest: (a, b) => compare(a.created, b.created),
  name: (a, b) => a.filename.localeCompare(b.filename, i18n.language.value, { numeric: true }),
  longest: (a, b) => (b.duration ?? 0) - (a.duration ?? 0),
};
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** The user's MP3s. */
export function Shelf() {
  const s = strings.value;
  const search = useSignal("");
  const picked = useSignal<Picked>(null);
  const sort = useSignal<Sort>("newest");
  const done = jobs.done.value;
  const text = search.value.trim().toLocaleLowerCase();
  const needsAll = text !== "" || sort.value !== "newest" || picked.value !== null;
  useEffect(() => {
    if (needsAll) void jobs.all();
  }, [needsAll, jobs.loading.value]);
  if (session.value.state === "unknown" || (jobs.loading.value === "loading" && !done.length)) return <Skeleton />;
  if (jobs.loading.value === "failed" && !done.length) {
    return (
      <section class="empty" role="alert">
        <p>{s.shelfFailed}</p>
        <button onClick={() => void jobs.more()}>{s.retry}</button>
      </section>
    );
  }
  if (!done.length) {
    return uploads.value.length || jobs.working.value.length ? null : <p class="empty faint">{s.emptyShelf}</p>;
  }
  const isIncomplete = jobs.next.value !== null;
  const found = done.filter((job) => job.filename.toLocaleLowerCase().includes(text)).sort(ORDERS[sort.value]);
  return (
    <section aria-labelledby="shelf-title">
      <div class="title">
        <h2 id="shelf-title">{s.shelf}</h2>
        {(done.length > 1 || picked.value) && <Selection found={found} picked={picked} />}
      </div>
      {done.length >= MANY && (
        <div class="row search">
          <input
            type="search"
            aria-label={s.search}
            placeholder={s.search}
            value={search.value}
            onInput={(event) => (search.value = event.currentTarget.value)}
          />
          <select
            aria-label={s.sort}
            value={sort.value}
            onChange={(event) => (sort.value = event.currentTarget.value as Sort)}
          >
            {(Object.keys(ORDERS) as Sort[]).map((order) => (
              <option key={order} value={order}>
                {s.sorts[order]}
              </option>
            ))}
          </select>
        </div>
      )}
      {needsAll && isIncomplete && <Rest />}
      {found.length > 0 && (
        <ul class="items">
          {found.map((job) => (
            <Mp3 key={job.job} job={job} picked={picked} />
          ))}
        </ul>
      )}
      {!found.length && !isIncomplete && <p class="empty faint">{s.nothingFound(search.value.trim())}</p>}
      {!needsAll && isIncomplete && (
        <button class="more" disabled={jobs.loading.value === "loading"} onClick={() => void jobs.more()}>
          {jobs.loading.value === "failed" ? s.retry : s.more}
        </button>
      )}
    </section>
  );
}

/** Says that further MP3s are on their way, or could not be fetched. */
function Rest() {
  const s = strings.value;
  return jobs.loading.value === "failed" ? (
    <p class="empty" role="alert">
      <span>{s.shelfFailed}</span>
      <button onClick={() => void jobs.more()}>{s.retry}</button>
    </p>
  ) : (
    <p class="faint" aria-busy="true">
      {s.loading}
    </p>
  );
}

/** What can be done with all MP3s that are shown, or with those that are selected. */
function Selection({ found, picked }: { found: readonly Job[]; picked: Signal<Picked> }) {
  const s = strings.value;
  const chosen = picked.value ? found.filter((job) => picked.value?.has(job.job)) : found;
  return (
    <>
      {picked.value && (
        <span class="faint" role="status">
          {s.selected(chosen.length)}
        </span>
      )}
      {chosen.length > 0 && <Zip chosen={chosen} isIncomplete={!picked.value && jobs.next.value !== null} />}
      {picked.value && chosen.length > 0 && (
        <button
          class="quiet"
          onClick={() => {
            remove(chosen);
            picked.value = null;
          }}
        >
          {s.remove}
        </button>
      )}
      <button class="quiet" onClick={() => (picked.value = picked.value ? null : new Set())}>
        {picked.value ? s.endSelection : s.select}
      </button>
    </>
  );
}

/** Links to as many zip files as hold what was chosen. */
function Zip({ chosen, isIncomplete }: { chosen: readonly Job[]; isIncomplete: boolean }) {
  const s = strings.value;
  if (isIncomplete) {
    return (
      <button class="quiet" disabled={jobs.loading.value === "loading"} onClick={() => void jobs.all()}>
        {s.prepareZip}
      </button>
    );
  }
  const count = Math.ceil(chosen.length / ZIP_LIMIT);
  return (
    <>
      {Array.from({ length: count }, (_, n) => (
        <a
          key={n}
          class="button quiet"
          href={zipAddress(chosen.slice(n * ZIP_LIMIT, (n + 1) * ZIP_LIMIT).map((job) => job.job))}
          download
        >
          {count === 1 ? s.downloadAll : s.downloadPart(n + 1, count)}
        </a>
      ))}
    </>
  );
}

function Pick({ job, picked }: { job: Job; picked: Signal<Picked> }) {
  return (
    <label class="pick">
      <input
        type="checkbox"
        aria-label={strings.value.actionOn(strings.value.select, player.title(job))}
        checked={picked.value?.has(job.job) ?? false}
        onChange={(event) => {
          const others = [...(picked.value ?? [])].filter((each) => each !== job.job);
          picked.value = new Set(event.currentTarget.checked ? [...others, job.job] : others);
        }}
      />
    </label>
  );
}

function Mp3({ job, picked }: { job: Job; picked: Signal<Picked> }) {
  const s = strings.value;
  const title = player.title(job);
  const isCurrent = player.current.value?.job === job.job;
  const plays = isCurrent && player.isPlaying.value;
  const isEditing = useSignal(false);
  const isShared = useSignal(false);
  const facts = [
    ...(job.duration === null ? [] : [i18n.clock(job.duration)]),
    ...(job.receipt?.mp3_bytes ? [i18n.size(job.receipt.mp3_bytes)] : []),
  ];
  return (
    <li class={isCurrent ? "item mp3 current" : "item mp3"}>
      {picked.value && <Pick job={job} picked={picked} />}
      <button
        class="icon round"
        aria-label={s.actionOn(plays ? s.pauseSound : s.play, title)}
        onClick={() => player.toggle(job)}
      >
        {plays ? <Pause /> : <Play />}
      </button>
      <div class="text">
        <p class="name ellipsis" title={job.filename}>
          {title}
        </p>
        <p class="faint small">
          {facts.join(" · ")}
          <span class="for-wide"> · {i18n.date(job.finished ?? job.created)}</span>
        </p>
        {job.warning && <p class="small warning">{job.warning}</p>}
      </div>
      <div class="actions">
        <a
          class="button icon"
          title={s.download}
          aria-label={s.actionOn(s.download, title)}
          href={mp3Address(job.mp3 ?? "")}
          download
        >
          <Download />
        </a>
        <Action label={s.share} name={title} act={() => (isShared.value = true)}>
          <Share />
        </Action>
        <Action label={s.editTags} name={title} act={() => (isEditing.value = true)}>
          <Pencil />
        </Action>
        <Action label={s.remove} name={title} act={() => remove([job])}>
          <Trash />
        </Action>
      </div>
      {isEditing.value && <TagEditor job={job} name={title} onClose={() => (isEditing.value = false)} />}
      {isShared.value && <Sharing job={job.job} name={title} onClose={() => (isShared.value = false)} />}
    </li>
  );
}

function remove(chosen: readonly Job[]): void {
  for (const job of chosen) {
    if (player.current.peek()?.job === job.job) player.close();
    jobs.remove(job);
  }
  announce(
    (s) => (chosen.length === 1 && chosen[0] ? s.removed(player.title(chosen[0])) : s.removedMany(chosen.length)),
    () => chosen.forEach((job) => jobs.restore(job.job)),
  );
}

function Skeleton() {
  return (
    <section aria-busy="true" aria-label={strings.value.loading}>
      <ul class="items skeleton" aria-hidden="true">
        <li class="item" />
        <li class="item" />
        <li class="item" />
      </ul>
    </section>
  );
}
