import { strings } from "../i18n";
import { dismiss, notice } from "../notices";
import { Cross } from "./icons";

/** The latest notice, in front of everything. An open dialog shows it itself: nothing outside of it can be used. */
export function Toast({ isElsewhere = false }: { isElsewhere?: boolean }) {
  const current = isElsewhere ? null : notice.value;
  return (
    <div class="toasts" role="status" aria-live="polite">
      {current && (
        <div class="toast" key={current.id}>
          <span>{current.text}</span>
          {current.undo && (
            <button
              class="quiet"
              onClick={() => {
                current.undo?.();
                dismiss(current.id);
              }}
            >
              {strings.value.undo}
            </button>
          )}
          <button class="icon" aria-label={strings.value.dismiss} onClick={() => dismiss(current.id)}>
            <Cross />
          </button>
        </div>
      )}
    </div>
  );
}
