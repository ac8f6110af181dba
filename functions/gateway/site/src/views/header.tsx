import { useSignal, useSignalEffect } from "@preact/signals";
import type { FunctionComponent } from "preact";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import { leave } from "../leave";
import { announce } from "../notices";
import { isAdministrator, session, wantsLogin } from "../session";
import * as themes from "../theme";
import { Account } from "./account";
import { Logo, Menu, Person } from "./icons";

export function Header() {
  const s = strings.value;
  const current = session.value;
  const isAccountOpen = useSignal(false);
  /** What administrators see, which is loaded when it is opened. */
  const administration = useSignal<FunctionComponent<{ onClose: () => void }> | null>(null);
  useSignalEffect(() => {
    if (session.value.state === "out") isAccountOpen.value = false;
    if (!isAdministrator()) administration.value = null;
  });
  const administer = async () => {
    try {
      const { Administration } = await import("./administration");
      administration.value = Administration;
    } catch {
      announce((each) => each.somethingWrong); // the file did not arrive
    }
  };
  const Administration = administration.value;
  const label = current.state === "in" ? s.actionOn(s.account, current.account.username) : s.settings;
  return (
    <header>
      <a class="brand" href="/">
        <Logo />
        <span>mp3burst</span>
      </a>
      {current.state === "out" && !wantsLogin.value && (
        <button class="quiet login-button" onClick={() => (wantsLogin.value = true)}>
          {s.logIn}
        </button>
      )}
      <button class="quiet menu-button" popovertarget="menu" aria-label={label}>
        {current.state === "in" ? (
          <>
            <Person />
            <span class="username">{current.account.username}</span>
          </>
        ) : (
          <Menu />
        )}
      </button>
      <div id="menu" class="menu" popover="auto">
        {current.state === "in" && (
          <section>
            <p class="strong ellipsis">{current.account.username}</p>
            <Usage />
            {!current.account.confirmed && <p class="faint small">{s.unconfirmed}</p>}
            <button popovertarget="menu" popovertargetaction="hide" onClick={() => (isAccountOpen.value = true)}>
              {s.account}
            </button>
            {isAdministrator() && (
              <button popovertarget="menu" popovertargetaction="hide" onClick={() => void administer()}>
                {s.administration.title}
              </button>
            )}
            <button popovertarget="menu" popovertargetaction="hide" onClick={() => void leave(false)}>
              {s.logOut}
            </button>
          </section>
        )}
        <label>
          <span>{s.language}</span>
          <select
            value={i18n.language.value}
            onChange={(event) => void i18n.choose(event.currentTarget.value as i18n.Language)}
          >
            {Object.entries(i18n.LANGUAGES).map(([tag, name]) => (
              <option key={tag} value={tag} lang={tag}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label>
          <span>{s.theme}</span>
          <select
            value={themes.theme.value}
            onChange={(event) => themes.choose(event.currentTarget.value as themes.Theme)}
          >
            {themes.THEMES.map((name) => (
              <option key={name} value={name}>
                {s.themes[name]}
              </option>
            ))}
          </select>
        </label>
        <a href="/docs">{s.api}</a>
      </div>
      {Administration && <Administration onClose={() => (administration.value = null)} />}
      {isAccountOpen.value && <Account onClose={() => (isAccountOpen.value = false)} />}
    </header>
  );
}

function Usage() {
  if (session.value.state !== "in") return null;
  const { bytes, bytes_limit: limit } = session.value.account.usage;
  if (limit === null) return <p class="faint small">{strings.value.used(i18n.size(bytes))}</p>;
  return (
    <div>
      <p class="faint small">{strings.value.usage(i18n.size(bytes), i18n.size(limit))}</p>
      <progress max={limit} value={bytes} aria-label={strings.value.usage(i18n.size(bytes), i18n.size(limit))} />
    </div>
  );
}
