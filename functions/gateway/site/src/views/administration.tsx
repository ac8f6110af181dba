/** What administrators see and change. It is loaded when it is opened. */
import { useSignal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import * as api from "../administration";
import * as calls from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import { announce } from "../notices";
import { session } from "../session";
import { Dialog } from "./dialog";
import { Form, sentence } from "./form";
import { Entry } from "./lists";

/** Bytes in the unit in which quotas are typed. */
const GIGABYTE = 1_000_000_000;
/** Milliseconds without a key after which a search begins. */
const PAUSE = 300;
const PARTS = ["users", "jobs", "queues", "storage"] as const;

export function Administration({ onClose }: { onClose: () => void }) {
  const s = strings.value.administration;
  const part = useSignal<(typeof PARTS)[number]>("users");
  return (
    <Dialog title={s.title} onClose={onClose}>
      <div class="administration">
        <fieldset class="presets">
          <legend class="hidden">{s.title}</legend>
          {PARTS.map((name) => (
            <label key={name} class="preset">
              <input
                type="radio"
                name="part"
                checked={part.value === name}
                onChange={() => (part.value = name)}
              />
              <span>{s.parts[name]}</span>
            </label>
          ))}
        </fieldset>
        {part.value === "users" && <Users />}
        {part.value === "jobs" && <Jobs />}
        {part.value === "queues" && <Queues />}
        {part.value === "storage" && <Storage />}
      </div>
    </Dialog>
  );
}

function Users() {
  const s = strings.value.administration;
  const typed = useSignal("");
  const search = useSignal("");
  useEffect(() => {
    const timer = setTimeout(() => (search.value = typed.value), PAUSE);
    return () => clearTimeout(timer);
  }, [typed.value]);
  const list = usePages((after) => api.getUsers(search.value, after), search.value);
  const replace = (user: api.User) =>
    (list.rows.value = list.rows.value?.map((each) => (each.id === user.id ? user : each)) ?? null);
  const remove = (id: string) => (list.rows.value = list.rows.value?.filter((each) => each.id !== id) ?? null);
  return (
    <section>
      <label class="field">
        <span>{s.search}</span>
        <input
          type="search"
          autocomplete="off"
          maxLength={254}
          value={typed.value}
          onInput={(event) => (typed.value = event.currentTarget.value)}
        />
      </label>
      <Paged list={list} empty={s.noUsers}>
        {(user) => <UserEntry key={user.id} user={user} replace={replace} remove={() => remove(user.id)} />}
      </Paged>
    </section>
  );
}

interface UserProps {
  user: api.User;
  replace: (user: api.User) => void;
  remove: () => void;
}

function UserEntry({ user, replace, remove }: UserProps) {
  const s = strings.value.administration;
  const isMe = session.value.state === "in" && session.value.account.id === user.id;
  const isOpen = useSignal(false);
  const problem = useSignal("");
  const change = async (act: () => Promise<api.User>) => {
    try {
      replace(await act());
      problem.value = "";
      announce((each) => each.administration.changed);
    } catch (error) {
      problem.value = sentence(error);
    }
  };
  const endSessions = async () => {
    await api.endSessions(user.id);
    return user;
  };
  const used =
    user.bytes_limit === null
      ? strings.value.used(i18n.size(user.bytes))
      : strings.value.usage(i18n.size(user.bytes), i18n.size(user.bytes_limit));
  return (
    <li class="person">
      <details onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
        <summary>
          <span class="strong">{user.username}</span>
          {user.role === "admin" && <Badge>{s.administrator}</Badge>}
          {user.locked && <Badge isBad>{s.locked}</Badge>}
          {!user.confirmed && <Badge>{s.unconfirmed}</Badge>}
          <span class="faint small">{[used, s.since(i18n.date(user.created))].join(" · ")}</span>
        </summary>
        {isOpen.value && (
          <>
            {user.email !== user.username && <p class="faint small">{`${user.name} · ${user.email}`}</p>}
            {problem.value && (
              <p class="problem" role="alert">
                {problem.value}
              </p>
            )}
            <p class="row">
              <button
                onClick={() =>
                  void change(() => api.changeUser(user.id, { role: user.role === "admin" ? "user" : "admin" }))
                }
              >
                {user.role === "admin" ? s.makeUser : s.makeAdministrator}
              </button>
              {!isMe && (
                <button onClick={() => void change(() => api.changeUser(user.id, { locked: !user.locked }))}>
                  {user.locked ? s.unlock : s.lock}
                </button>
              )}
              <button onClick={() => void change(endSessions)}>{strings.value.logOutEverywhere}</button>
            </p>
            {user.role !== "admin" && <QuotaForm user={user} replace={replace} />}
            {!isMe && <DeletionForm user={user} remove={remove} />}
          </>
        )}
      </details>
    </li>
  );
}

function Badge({ children, isBad = false }: { children: ComponentChildren; isBad?: boolean }) {
  return <span class={isBad ? "badge bad" : "badge"}>{children}</span>;
}

function QuotaForm({ user, replace }: Omit<UserProps, "remove">) {
  const s = strings.value.administration;
  const { bytes, jobs } = user.quota;
  const size = useSignal(bytes === null ? "" : String(bytes / GIGABYTE));
  const count = useSignal(jobs === null ? "" : String(jobs));
  const save = async () => {
    const quota = {
      bytes: size.value === "" ? null : Math.round(Number(size.value) * GIGABYTE),
      jobs: count.value === "" ? null : Number(count.value),
    };
    replace(await api.setQuota(user.id, quota));
    announce((each) => each.administration.changed);
  };
  return (
    <Form action={s.setQuota} submit={save} isQuiet>
      <div class="row">
        <NumberField label={s.quotaBytes} value={size} step="any" />
        <NumberField label={s.quotaJobs} value={count} step="1" />
      </div>
      <p class="faint small">{s.quotaHint}</p>
    </Form>
  );
}

function NumberField({ label, value, step }: { label: string; value: Signal<string>; step: string }) {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        inputMode="decimal"
        min="0"
        max="1000000"
        step={step}
        placeholder={strings.value.administration.asEverybody}
        value={value.value}
        onInput={(event) => (value.value = event.currentTarget.value)}
      />
    </label>
  );
}

function DeletionForm({ user, remove }: Omit<UserProps, "replace">) {
  const s = strings.value.administration;
  const submit = async () => {
    await api.deleteUser(user.id);
    remove();
    announce((each) => each.administration.userDeleted(user.username));
  };
  return (
    <details>
      <summary>{s.deleteUser}</summary>
      <Form action={s.deleteUser} submit={submit} isDangerous>
        <p class="faint">{s.deleteUserWarning(user.username)}</p>
      </Form>
    </details>
  );
}

function Jobs() {
  const s = strings.value.administration;
  const state = useSignal("failed");
  const list = usePages((after) => api.getJobs(state.value, after), state.value);
  return (
    <section>
      <label class="field">
        <span>{s.state}</span>
        <select value={state.value} onChange={(event) => (state.value = event.currentTarget.value)}>
          <option value="">{s.allStates}</option>
          {api.STATES.map((each) => (
            <option key={each} value={each}>
              {s.states[each]}
            </option>
          ))}
        </select>
      </label>
      <p class="faint small">{s.jobsHint}</p>
      <Paged list={list} empty={s.noJobs}>
        {(job) => (
          <li key={job.job} class="entry">
            <div class="text">
              <p class="strong ellipsis">{job.username ?? s.deletedUser}</p>
              <p class="faint small">
                {[
                  job.deferred ? s.deferred : s.states[job.state],
                  i18n.moment(job.created),
                  job.video_bytes === null ? "" : i18n.size(job.video_bytes),
                  job.duration === null ? "" : i18n.clock(job.duration),
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </p>
              {job.error && <p class="problem small">{job.error}</p>}
              <p class="faint small code">{job.job}</p>
            </div>
          </li>
        )}
      </Paged>
    </section>
  );
}

function Queues() {
  const s = strings.value.administration;
  const found = useFound(api.getQueues);
  const retry = async (queue: api.Queue["queue"]) => {
    const { rows } = await api.retryQueue(queue);
    announce((each) => each.administration.retried(rows));
    return api.getQueues();
  };
  const count = i18n.count;
  return (
    <section>
      <p class="faint small">{s.queuesHint}</p>
      <Problem text={found.problem.value} />
      {!found.value.value && !found.problem.value && <p aria-busy="true">{strings.value.loading}</p>}
      {found.value.value && (
        <>
          <ul class="entries">
            {found.value.value.queues.map((queue) => {
              const facts = [
                queue.working > 0 && s.working(count(queue.working)),
                queue.waiting > 0 && s.waiting(count(queue.waiting)),
                queue.deferred > 0 && s.deferredCount(count(queue.deferred)),
                queue.retrying > 0 && s.retrying(count(queue.retrying)),
                queue.overdue > 0 && s.overdue(count(queue.overdue)),
                queue.oldest && s.oldest(i18n.moment(queue.oldest)),
              ].filter((fact): fact is string => typeof fact === "string");
              return (
                <Entry key={queue.queue} name={s.queues[queue.queue]} facts={facts.length ? facts : [s.nothingWaits]}>
                  {queue.waiting + queue.retrying > queue.overdue && (
                    <button
                      aria-label={strings.value.actionOn(s.tryNow, s.queues[queue.queue])}
                      onClick={() => void found.attempt(() => retry(queue.queue))}
                    >
                      {s.tryNow}
                    </button>
                  )}
                </Entry>
              );
            })}
          </ul>
          <h3>{s.givenUp}</h3>
          <p>
            {s.givenUpCounts(
              found.value.value.given_up.jobs,
              found.value.value.given_up.mails,
              found.value.value.given_up.deliveries,
            )}
          </p>
        </>
      )}
    </section>
  );
}

function Storage() {
  const s = strings.value.administration;
  const found = useFound(api.getStorage);
  const storage = found.value.value;
  const most = Math.max(1, ...(storage?.largest.map((each) => each.bytes) ?? []));
  return (
    <section>
      <Problem text={found.problem.value} />
      {!storage && !found.problem.value && <p aria-busy="true">{strings.value.loading}</p>}
      {storage && (
        <>
          <Disks disks={storage.disks ?? []} />
          <h3>{s.stored}</h3>
          <p class="faint small">{s.storageHint}</p>
          <ul class="entries">
            {storage.stores.map((store) => (
              <Entry
                key={store.store}
                name={s.stores[store.store]}
                facts={[s.files(store.blobs), store.expired > 0 ? s.expired(store.expired) : ""]}
              >
                <span class="strong">{i18n.size(store.bytes)}</span>
              </Entry>
            ))}
          </ul>
          {storage.stores.length === 0 && <p class="faint">{s.nothingStored}</p>}
          {storage.largest.length > 0 && <h3>{s.largest}</h3>}
          <ul class="entries">
            {storage.largest.map((user) => (
              <li key={user.user} class="share">
                <span class="ellipsis">{user.username ?? s.deletedUser}</span>
                <span class="strong">{i18n.size(user.bytes)}</span>
                <progress max={most} value={user.bytes} aria-label={user.username ?? s.deletedUser} />
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function Disks({ disks }: { disks: readonly api.Disk[] }) {
  const s = strings.value.administration;
  return (
    <>
      <h3>{s.disks}</h3>
      {disks.length === 0 && <p class="faint">{s.notMeasured}</p>}
      <ul class="entries">
        {disks.map((disk) => {
          const name = i18n.list(disk.stores.map((store) => s.stores[store]));
          const { free, total, used, floor, measured, silent_since } = disk;
          return (
            <li key={name} class={`share disk ${disk.level}`}>
              <span class="ellipsis">{name}</span>
              <span class="strong">
                {free !== null && total !== null
                  ? s.freeOf(i18n.size(free), i18n.size(total))
                  : used !== null && strings.value.used(i18n.size(used))}
              </span>
              {free !== null && total !== null && (
                <progress max={total} value={total - free} aria-label={s.usedOf(name)} />
              )}
              {disk.level === "full" && floor !== null && <p class="problem small">{s.full(i18n.size(floor))}</p>}
              {disk.level === "low" && floor !== null && (
                <p class="problem warning small">{s.nearlyFull(i18n.size(floor))}</p>
              )}
              {silent_since && <p class="problem small">{s.silent(i18n.moment(silent_since))}</p>}
              {measured && (
                <p class="faint small">
                  {[s.measured(i18n.moment(measured)), total === null && s.noTotal].filter(Boolean).join(" · ")}
                </p>
              )}
            </li>
          );
        })}
      </ul>
    </>
  );
}

interface Pages<T> {
  /** Null until they are here. */
  rows: Signal<readonly T[] | null>;
  hasMore: Signal<boolean>;
  problem: Signal<string>;
  more: () => Promise<void>;
}

/** A list that is fetched page by page, and anew whenever `key` changes. */
function usePages<T>(load: (after: string | null) => Promise<api.Page<T>>, key: string): Pages<T> {
  const rows = useSignal<readonly T[] | null>(null);
  const next = useSignal<string | null>(null);
  const hasMore = useSignal(false);
  const problem = useSignal("");
  /** Of two responses, that to the later question counts. */
  const latest = useSignal({});
  const fetch = async (after: string | null) => {
    const asked = {};
    latest.value = asked;
    try {
      const found = await load(after);
      if (latest.peek() !== asked) return;
      rows.value = after ? [...(rows.peek() ?? []), ...found.rows] : found.rows;
      next.value = found.next;
      hasMore.value = found.next !== null;
      problem.value = "";
    } catch (error) {
      if (latest.peek() !== asked) return;
      if (after && error instanceof calls.Problem && error.status === 404) return fetch(null); // the last row was deleted
      problem.value = sentence(error);
    }
  };
  useEffect(() => {
    hasMore.value = false; // of the other list
    void fetch(null);
  }, [key]);
  return { rows, hasMore, problem, more: () => fetch(next.peek()) };
}

interface PagedProps<T> {
  list: Pages<T>;
  empty: string;
  children: (row: T) => ComponentChildren;
}

function Paged<T>({ list, empty, children }: PagedProps<T>) {
  const rows = list.rows.value;
  return (
    <>
      <Problem text={list.problem.value} />
      {!rows && !list.problem.value && <p aria-busy="true">{strings.value.loading}</p>}
      {rows?.length === 0 && <p class="faint">{empty}</p>}
      {rows && rows.length > 0 && <ul class="entries">{rows.map(children)}</ul>}
      {list.hasMore.value && (
        <button class="more" onClick={() => void list.more()}>
          {strings.value.more}
        </button>
      )}
    </>
  );
}

function Problem({ text }: { text: string }) {
  return text ? (
    <p class="problem" role="alert">
      {text}
    </p>
  ) : null;
}

interface Found<T> {
  /** Null until it is here. */
  value: Signal<T | null>;
  problem: Signal<string>;
  attempt: (load: () => Promise<T>) => Promise<void>;
}

function useFound<T>(load: () => Promise<T>): Found<T> {
  const value = useSignal<T | null>(null);
  const problem = useSignal("");
  const attempt = async (act: () => Promise<T>) => {
    try {
      value.value = await act();
      problem.value = "";
    } catch (error) {
      problem.value = sentence(error);
    }
  };
  useEffect(() => void attempt(load), []);
  return { value, problem, attempt };
}
