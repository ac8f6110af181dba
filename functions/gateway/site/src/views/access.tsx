import { useSignal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import * as api from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import { announce } from "../notices";
import { isAdministrator } from "../session";
import { Form, sentence } from "./form";
import { Cross } from "./icons";
import { Entry, Listed, Secret, useList } from "./lists";
import { Action } from "./progress";

/** What else uses the account: other browsers, programs, and the addresses that are told of its jobs. */
export function Access() {
  const s = strings.value;
  return (
    <>
      <Folded title={s.sessions}>
        <Sessions />
      </Folded>
      <Folded title={s.externalLogins}>
        <ExternalLogins />
      </Folded>
      <Folded title={s.keys}>
        <Keys />
      </Folded>
      <Folded title={s.webhooks}>
        <Webhooks />
      </Folded>
      <Folded title={s.feed}>
        <Feed />
      </Folded>
    </>
  );
}

/** A part of the account that is fetched once it is opened. */
function Folded({ title, children }: { title: string; children: ComponentChildren }) {
  const isOpen = useSignal(false);
  return (
    <details onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
      <summary>{title}</summary>
      {isOpen.value && children}
    </details>
  );
}

function Sessions() {
  const s = strings.value;
  const list = useList(api.getSessions);
  return (
    <Listed list={list} empty="">
      {(session) => (
        <Entry
          key={session.id}
          name={deviceOf(session.agent) ?? s.unknownDevice}
          facts={[session.network ?? "", s.lastUsed(i18n.day(session.last_used))]}
        >
          {session.current ? (
            <span class="small strong">{s.thisBrowser}</span>
          ) : (
            <button onClick={() => void list.change(() => api.endSession(session.id))}>{s.endSession}</button>
          )}
        </Entry>
      )}
    </Listed>
  );
}

/** Accounts elsewhere that log this user in. One is linked by logging in with it. */
function ExternalLogins() {
  const s = strings.value;
  const list = useList(api.getLogins);
  return (
    <Listed list={list} empty={s.noExternalLogins}>
      {(login) => {
        const name = login.provider === "proxy" ? s.proxyLogin : login.provider.replace(/^https?:\/\//, "");
        return (
          <Entry key={login.id} name={name} facts={[s.linkedOn(i18n.day(login.created))]}>
            <Action label={s.remove} name={name} act={() => void list.change(() => api.deleteLogin(login.id))}>
              <Cross />
            </Action>
          </Entry>
        );
      }}
    </Listed>
  );
}

function Keys() {
  const s = strings.value;
  const list = useList(api.getKeys);
  const name = useSignal("");
  const scopes = useSignal<readonly api.Scope[]>(["upload", "read"]);
  const created = useSignal<string | null>(null);
  const create = async () => {
    created.value = (await api.createKey(name.value, scopes.value)).key;
    name.value = "";
    await list.reload();
  };
  return (
    <>
      <p class="faint small">{s.keysHint}</p>
      {created.value && <Secret label={s.newKeyIs} value={created.value} />}
      <Listed list={list} empty={s.noKeys}>
        {(key) => (
          <Entry
            key={key.id}
            name={key.name}
            facts={[
              key.scopes.map((scope) => s.scopes[scope]).join(", "),
              key.last_used ? s.lastUsed(i18n.day(key.last_used)) : s.neverUsed,
            ]}
          >
            <Action label={s.remove} name={key.name} act={() => void list.change(() => api.deleteKey(key.id))}>
              <Cross />
            </Action>
          </Entry>
        )}
      </Listed>
      <Form action={s.createKey} submit={create}>
        <Field label={s.keyName} value={name} maxLength={100} />
        <fieldset class="row">
          <legend class="small strong">{s.keyMay}</legend>
          {api.SCOPES.filter((scope) => !["admin", "metrics"].includes(scope) || isAdministrator()).map((scope) => (
            <label key={scope} class="check">
              <input
                type="checkbox"
                checked={scopes.value.includes(scope)}
                onChange={(event) => {
                  const others = scopes.value.filter((each) => each !== scope);
                  scopes.value = event.currentTarget.checked ? [...others, scope] : others;
                }}
              />
              <span>{s.scopes[scope]}</span>
            </label>
          ))}
        </fieldset>
      </Form>
    </>
  );
}

function Webhooks() {
  const s = strings.value;
  const list = useList(api.getWebhooks);
  const deliveries = useList(api.getDeliveries);
  const url = useSignal("");
  const create = async () => {
    await api.createWebhook(url.value);
    url.value = "";
    await list.reload();
  };
  const send = async (act: () => Promise<unknown>) => {
    await deliveries.change(act);
    announce((each) => each.onItsWay);
  };
  return (
    <>
      <p class="faint small">{s.webhooksHint}</p>
      <Listed list={list} empty={s.noWebhooks}>
        {(webhook) => (
          <Entry key={webhook.id} name={webhook.url} facts={webhook.state === "gone" ? [s.webhookGone] : []}>
            <button onClick={() => void send(() => api.ping(webhook.id))}>{s.tryWebhook}</button>
            <Action
              label={s.remove}
              name={webhook.url}
              act={() => void list.change(() => api.deleteWebhook(webhook.id)).then(deliveries.reload)}
            >
              <Cross />
            </Action>
            <Secret label={s.webhookSecret} value={webhook.secret} />
          </Entry>
        )}
      </Listed>
      <Form action={s.createWebhook} submit={create}>
        <Field label={s.webhookAddress} value={url} maxLength={2000} />
      </Form>
      {deliveries.items.value?.length ? <h3>{s.deliveries}</h3> : null}
      <Listed list={deliveries} empty="">
        {(delivery) => (
          <Entry
            key={delivery.id}
            name={delivery.url}
            facts={[
              s.deliveryStates[delivery.state],
              delivery.state === "delivered" ? "" : (delivery.error ?? ""),
              i18n.date(delivery.tried ?? delivery.created),
            ]}
          >
            {delivery.state === "failed" && (
              <button onClick={() => void send(() => api.resend(delivery.id))}>{s.retry}</button>
            )}
          </Entry>
        )}
      </Listed>
    </>
  );
}

/** The podcast feed: nobody but who made its address knows whether there is one. */
function Feed() {
  const s = strings.value;
  const url = useSignal<string | null>(null);
  const problem = useSignal("");
  const attempt = async (act: () => Promise<string | null>) => {
    try {
      url.value = await act();
      problem.value = "";
    } catch (error) {
      problem.value = sentence(error);
    }
  };
  const remove = async () => {
    await api.deleteFeed();
    announce((each) => each.feedDeleted);
    return null;
  };
  return (
    <>
      <p class="faint small">{s.feedHint}</p>
      {problem.value && (
        <p class="problem" role="alert">
          {problem.value}
        </p>
      )}
      {url.value && <Secret label={s.feedAddress} value={url.value} />}
      <p class="row">
        <button onClick={() => void attempt(async () => (await api.createFeed()).url)}>{s.createFeed}</button>
        <button onClick={() => void attempt(remove)}>{s.deleteFeed}</button>
      </p>
    </>
  );
}

interface FieldProps {
  label: string;
  value: Signal<string>;
  maxLength: number;
}

function Field({ label, value, maxLength }: FieldProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="text"
        required
        autocomplete="off"
        maxLength={maxLength}
        value={value.value}
        onInput={(event) => (value.value = event.currentTarget.value)}
      />
    </label>
  );
}

/** Returns the browser and the system that a User-Agent names, or the beginning of what it says; null for nothing. */
function deviceOf(agent: string | null): string | null {
  if (!agent) return null;
  const browser = ["Edg", "OPR", "Firefox", "Chrome", "Safari"].find((name) => agent.includes(`${name}/`));
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((name) => agent.includes(name));
  const names: Record<string, string> = { Edg: "Edge", OPR: "Opera", "Mac OS": "macOS" };
  const known = [browser, system].flatMap((name) => (name ? [names[name] ?? name] : []));
  return known.join(", ") || agent.slice(0, 60);
}
