import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Problem } from "../api";
import { strings } from "../i18n";

interface FormProps {
  /** What its button says. */
  action: string;
  submit: () => Promise<void>;
  isDangerous?: boolean;
  /** Whether something else is what people come for. */
  isQuiet?: boolean;
  children?: ComponentChildren;
}

/** A form with one button, which shows what the server says if it refuses. */
export function Form({ action, submit, isDangerous = false, isQuiet = false, children }: FormProps) {
  const problem = useSignal("");
  const isBusy = useSignal(false);
  const send = async (event: Event) => {
    event.preventDefault();
    isBusy.value = true;
    problem.value = "";
    try {
      await submit();
    } catch (error) {
      problem.value = sentence(error);
    }
    isBusy.value = false;
  };
  return (
    <form onSubmit={send}>
      {children}
      {problem.value && (
        <p class="problem" role="alert">
          {problem.value}
        </p>
      )}
      <button class={isDangerous ? "danger" : isQuiet ? "" : "primary"} disabled={isBusy.value}>
        {isBusy.value ? strings.value.pleaseWait : action}
      </button>
    </form>
  );
}

/** Returns what the server says, or one sentence for everything else. */
export function sentence(error: unknown): string {
  return (error instanceof Problem && error.detail) || strings.peek().somethingWrong;
}
