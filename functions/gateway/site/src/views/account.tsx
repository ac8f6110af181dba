import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { strings } from "../i18n";
import { flushDeletions } from "../jobs";
import { leave } from "../leave";
import { announce } from "../notices";
import { changePassword, deleteAccount, session } from "../session";
import { Access } from "./access";
import { Dialog } from "./dialog";
import { Form } from "./form";

/** The account: everything that it has, what uses it, its password, and its end. */
export function Account({ onClose }: { onClose: () => void }) {
  const s = strings.value;
  if (session.value.state !== "in") return null;
  const { username, name } = session.value.account;
  return (
    <Dialog title={s.account} onClose={onClose}>
      <p class="strong">{name}</p>
      <p class="faint">{username}</p>
      <p class="row">
        <a class="button" href="/export" download>
          {s.exportData}
        </a>
        <button onClick={() => void leave(true)}>{s.logOutEverywhere}</button>
      </p>
      <Access />
      <PasswordForm username={username} />
      <DeletionForm username={username} />
    </Dialog>
  );
}

function PasswordForm({ username }: { username: string }) {
  const s = strings.value;
  const old = useSignal("");
  const fresh = useSignal("");
  return (
    <Guarded
      title={s.changePassword}
      act={async () => {
        await flushDeletions();
        await changePassword(old.value, fresh.value);
        announce((each) => each.passwordChanged);
      }}
    >
      <input type="text" autocomplete="username" value={username} readonly hidden />
      <Password label={s.oldPassword} value={old} autocomplete="current-password" />
      <Password label={s.newPassword} value={fresh} autocomplete="new-password" />
    </Guarded>
  );
}

function DeletionForm({ username }: { username: string }) {
  const s = strings.value;
  const password = useSignal("");
  return (
    <Guarded
      title={s.deleteAccount}
      isDangerous
      act={async () => {
        await deleteAccount(password.value);
        announce((each) => each.accountDeleted);
      }}
    >
      <p class="faint">{s.deleteWarning}</p>
      <input type="text" autocomplete="username" value={username} readonly hidden />
      <Password label={s.password} value={password} autocomplete="current-password" />
    </Guarded>
  );
}

interface GuardedProps {
  title: string;
  act: () => Promise<void>;
  isDangerous?: boolean;
  children: ComponentChildren;
}

/** A form that is folded up. */
function Guarded({ title, act, isDangerous = false, children }: GuardedProps) {
  return (
    <details>
      <summary>{title}</summary>
      <Form action={title} submit={act} isDangerous={isDangerous}>
        {children}
      </Form>
    </details>
  );
}

interface PasswordProps {
  label: string;
  value: { value: string };
  autocomplete: "current-password" | "new-password";
}

function Password({ label, value, autocomplete }: PasswordProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="password"
        required
        autocomplete={autocomplete}
        minLength={autocomplete === "new-password" ? 8 : 1}
        maxLength={128}
        value={value.value}
        onInput={(event) => (value.value = event.currentTarget.value)}
      />
    </label>
  );
}
