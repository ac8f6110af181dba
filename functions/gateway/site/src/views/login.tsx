import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "../api";
import { strings } from "../i18n";
import { enter, session, wantsLogin } from "../session";
import { hasAccount, save } from "../stored";
import { uploads } from "../uploads";
import { sentence } from "./form";

/** Registers or logs in, in place: what was dropped stays. */
export function Login() {
  const s = strings.value;
  const isNew = useSignal(!hasAccount() && !wantsLogin.peek());
  const username = useSignal("");
  const password = useSignal("");
  const problem = useSignal("");
  const isBusy = useSignal(false);
  const providers = useSignal<api.Provider[]>([]);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    // It appears above the button by which files were chosen. Who is doing something else is left alone.
    const { activeElement } = document;
    const isIdle = activeElement === document.body || activeElement?.matches("input[type=file]");
    const sendsFiles = uploads.peek().some((each) => each.state !== "held");
    if (wantsLogin.peek() || (sendsFiles && isIdle)) form.current?.querySelector("input")?.focus();
    api.getProviders().then(
      (found) => (providers.value = found),
      () => undefined, // the form needs none
    );
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    isBusy.value = true;
    problem.value = "";
    try {
      await enter(username.value.trim(), password.value, isNew.value);
      save("hasAccount", true);
    } catch (error) {
      problem.value = sentence(error);
    }
    isBusy.value = false;
  };
  const forgot = async () => {
    try {
      await api.resetPassword(username.value.trim());
      problem.value = strings.peek().resetSent;
    } catch (error) {
      problem.value = sentence(error);
    }
  };

  const waiting = uploads.value.filter((each) => each.state !== "held").length;
  const hasExpired = session.value.state === "out" && session.value.hasExpired;
  const title = isNew.value ? s.registerTitle : waiting ? s.logInTitle : s.welcomeBack;
  return (
    <section class="card login" aria-labelledby="login-title">
      <h2 id="login-title">{title}</h2>
      <p class="faint">{hasExpired ? s.expired : waiting ? s.keepsFiles(waiting) : s.whyAccount}</p>
      <form ref={form} onSubmit={submit}>
        <label class="field">
          <span>{isNew.value ? s.email : s.emailOrName}</span>
          <input
            type="text"
            inputMode="email"
            name="username"
            required
            autocomplete="username"
            autocapitalize="none"
            spellcheck={false}
            maxLength={254}
            value={username.value}
            onInput={(event) => (username.value = event.currentTarget.value)}
          />
        </label>
        <label class="field">
          <span>{s.password}</span>
          <input
            type="password"
            name="password"
            required
            minLength={isNew.value ? 8 : 1}
            maxLength={128}
            autocomplete={isNew.value ? "new-password" : "current-password"}
            aria-describedby="password-hint"
            value={password.value}
            onInput={(event) => (password.value = event.currentTarget.value)}
          />
        </label>
        <p id="password-hint" class="faint small">
          {isNew.value ? s.passwordHint : ""}
        </p>
        {problem.value && (
          <p class="problem" role="alert">
            {problem.value}
          </p>
        )}
        <button class="primary large" disabled={isBusy.value}>
          {isBusy.value ? s.pleaseWait : isNew.value ? s.register : s.logIn}
        </button>
        <div class="row spread">
          <button type="button" class="quiet" onClick={() => (isNew.value = !isNew.value)}>
            {isNew.value ? s.haveAccount : s.noAccount}
          </button>
          {!isNew.value && (
            <button type="button" class="quiet" disabled={!username.value.trim()} onClick={forgot}>
              {s.forgot}
            </button>
          )}
        </div>
        {providers.value.map(({ path, title }) => (
          <a key={path} class="button large" href={`${path}?to=/`}>
            {title === null ? s.withProvider : s.withNamedProvider(title)}
          </a>
        ))}
      </form>
    </section>
  );
}
