import { computed, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { strings } from "../i18n";
import { Cross } from "./icons";
import { Toast } from "./toast";

const open = signal(0);
export const isDialogOpen = computed(() => open.value > 0);

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

/** A dialog in front of everything, open as long as it is rendered. */
export function Dialog({ title, onClose, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Before the next key is pressed: the dialog gives the focus back to what has it now.
  useLayoutEffect(() => {
    dialog.current?.showModal();
    open.value += 1;
    return () => {
      open.value -= 1;
    };
  }, []);
  return (
    <dialog ref={dialog} class="card" aria-labelledby={id} onClose={onClose}>
      <div class="title">
        <h2 id={id}>{title}</h2>
        <button class="icon" aria-label={strings.value.close} onClick={() => dialog.current?.close()}>
          <Cross />
        </button>
      </div>
      {children}
      <Toast />
    </dialog>
  );
}
