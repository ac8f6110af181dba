/** Lists of what an account or an MP3 has, which are fetched when they are shown. */
import { useSignal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { strings } from "../i18n";
import { announce } from "../notices";
import { sentence } from "./form";

export interface List<T> {
  /** Null until they are here. */
  items: Signal<readonly T[] | null>;
  problem: Signal<string>;
  reload: () => Promise<void>;
  /** Changes something on the server, and fetches the list again. */
  change: (act: () => Promise<unknown>) => Promise<void>;
}

export function useList<T>(load: () => Promise<readonly T[]>): List<T> {
  const items = useSignal<readonly T[] | null>(null);
  const problem = useSignal("");
  const attempt = async (act: () => Promise<unknown>) => {
    try {
      await act();
      items.value = await load();
      problem.value = "";
    } catch (error) {
      problem.value = sentence(error);
    }
  };
  const reload = () => attempt(async () => undefined);
  useEffect(() => void reload(), []);
  return { items, problem, reload, change: attempt };
}

interface ListedProps<T> {
  list: List<T>;
  /** What is said of an empty list. */
  empty: string;
  children: (item: T) => ComponentChildren;
}

export function Listed<T>({ list, empty, children }: ListedProps<T>) {
  const items = list.items.value;
  return (
    <>
      {list.problem.value && (
        <p class="problem" role="alert">
          {list.problem.value}
        </p>
      )}
      {!items && !list.problem.value && <p aria-busy="true">{strings.value.loading}</p>}
      {items?.length === 0 && empty && <p class="faint">{empty}</p>}
      {items && items.length > 0 && <ul class="entries">{items.map(children)}</ul>}
    </>
  );
}

export function Entry({ name, facts, children }: { name: string; facts: string[]; children: ComponentChildren }) {
  return (
    <li class="entry">
      <div class="text">
        <p class="strong ellipsis" title={name}>
          {name}
        </p>
        <p class="faint small">{facts.filter(Boolean).join(" · ")}</p>
      </div>
      {children}
    </li>
  );
}

/** Something to copy, which is selected when it is clicked. */
export function Secret({ label, value }: { label: string; value: string }) {
  const s = strings.value;
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), [value]); // it takes the place of the button that was pressed
  const copy = async () => {
    await navigator.clipboard.writeText(value);
    announce((each) => each.copied);
  };
  return (
    <div class="secret">
      <label class="field">
        <span>{label}</span>
        <input ref={field} type="text" readonly value={value} onFocus={(event) => event.currentTarget.select()} />
      </label>
      {/* Browsers have no clipboard for pages without TLS. */}
      {"clipboard" in navigator && (
        <button type="button" onClick={() => void copy().catch(() => announce((each) => each.somethingWrong))}>
          {s.copy}
        </button>
      )}
    </div>
  );
}
