"""The account of the user who asks: profile, password, tokens, API keys, presets, deletion; and forgotten passwords."""

import os
from typing import Any, Final

import functions_framework
from flask import Request, Response

from functions import security_log
from functions.account import api
from functions.account.dependencies import Dependencies, dependencies
from functions.auth.accounts import WrongCredentials, normalize_username
from functions.auth.authentication import authenticate
from functions.auth.keys import ApiKey
from functions.auth.limits import CONTROLS
from functions.auth.links import BadLink, Reset
from functions.auth.passwords import password_fault
from functions.auth.profiles import Profile
from functions.auth.sessions import Session, cookie
from functions.auth.tokens import Identity, NotAllowed, NotAuthenticated
from functions.email_address import is_public
from functions.http_endpoint import (
    JSON_LIMIT,
    Routes,
    Unprocessable,
    client_address,
    identify,
    iso_time,
    json_response,
    prepare_to_identify,
    read_json,
    read_query,
)
from functions.pages import KEYS_FIELD, PASSWORD_FIELD, for_people, page
from functions.presets import checked
from functions.state.database import Conflict
from functions.state.outbox import REQUEST_BUDGET
from functions.state.presets import Preset
from functions.state.quota import usage
from functions.warm_up import before_first_request

#: What keys may be used for as long as their owner is an administrator.
_OF_ADMINISTRATORS: Final = ("admin", "metrics")


class WrongPassword(NotAllowed):
    """The user is logged in, but the password that the call needs is wrong."""

    security_event = "password.refused"


@functions_framework.http
def account(request: Request) -> Response:
    """Handles /me, /session, /sessions, /logins, /password-reset, /keys and /presets."""
    return _ROUTES.answer(request)


def _identify(request: Request) -> Identity:
    """Returns who asks, by what the database says now: what was withdrawn can change no account."""
    return identify(request, os.environ, is_cached=False)


def _show(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    return json_response(shown(deps.profiles.get(identity.user), deps))


def _change(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    wanted = read_json(request, api.AccountChange)
    version = None
    if wanted.email is not None:
        version = _require_password(request, identity, wanted.password or "", deps).token_version
    changed = change(identity, wanted, deps, version)
    if wanted.email is not None:
        _record(request, identity, "address.changed")
    return json_response(changed)


def change(
    identity: Identity, wanted: api.AccountChange, deps: Dependencies, version: int | None = None
) -> api.Account:
    """Changes the name, the address, or both; ``version`` is as in ``Profiles.change``.

    Raises:
        Unprocessable: one of them is invalid.
        Conflict: the password was changed, or the tokens were withdrawn, at the same time.
    """
    name = None if wanted.name is None else wanted.name.strip()
    email = None if wanted.email is None else wanted.email.strip()
    faults = {}
    if name is not None and (not name or CONTROLS.search(name)):
        faults["name"] = "must have a visible character, and no control characters"
    if email is not None and not is_public(email):
        faults["email"] = "must be an email address"
    if faults:
        raise Unprocessable.naming(faults)
    profile, event = deps.profiles.change(identity.user, name, email, version=version, confirms=deps.confirms)
    if event is not None:
        deps.outbox.emit(event, REQUEST_BUDGET)
    return shown(profile, deps)


def _change_password(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    wanted = read_json(request, api.PasswordChange)
    profile = _require_password(request, identity, wanted.old, deps)
    change_password(profile, wanted.new, deps)
    _record(request, identity, "password.changed")
    return Response(status=204)


def change_password(
    profile: Profile, password: str, deps: Dependencies, field: str = "new", *, revokes_access: bool = False
) -> None:
    """Sets the password and withdraws all tokens.

    Args:
        profile: the account as it was when the user's right to change it was checked.
        password: the new one.
        deps: the dependencies.
        field: the name of the field that has it, for the error.
        revokes_access: whether API keys, external logins, the feed, shared links and webhooks are deleted, too.

    Raises:
        Unprocessable: the password is one that nobody may choose.
        Conflict: the account was changed since the profile was read.
    """
    if fault := password_fault(password, (profile.username, profile.name, profile.email)):
        raise Unprocessable.naming({field: fault})
    password_hash = deps.accounts.hash(password)
    deps.profiles.set_password(profile.id, profile.token_version, password_hash, revokes_access=revokes_access)


def _offer_reset(request: Request) -> Response:
    username = read_json(request, api.ResetRequest).username
    deps = dependencies()
    address = client_address(request, os.environ)
    event = deps.resets.offer(username, address)
    deps.outbox.emit(event, REQUEST_BUDGET)
    security_log.record("reset.requested", user=normalize_username(username) or None, address=address)
    return Response(status=202)


def _show_reset(request: Request) -> Response:
    dependencies().links.verify_reset(read_query(request, api.ResetLink).token)
    text = (
        "Choose a new password. You will be logged out everywhere. Your API keys, webhooks, feed and shared links are "
        "deleted, and logins with an identity provider ask for the new password once, unless you keep them."
    )
    return page("Reset your password", text, button="Set password", fields=PASSWORD_FIELD + KEYS_FIELD)


def _reset(request: Request) -> Response:
    deps = dependencies()
    reset = deps.links.verify_reset(read_query(request, api.ResetLink).token)
    request.max_content_length = JSON_LIMIT
    keeps_keys = request.form.get("keep_keys") == "true"
    try:
        username = reset_password(reset, request.form.get("password", ""), deps, revokes_access=not keeps_keys)
    except Unprocessable as error:
        text = f"Your new password {error.fields['password']}."
        title = "Choose another password"
        return page(title, text, button="Set password", fields=PASSWORD_FIELD + KEYS_FIELD, status=error.status)
    security_log.record(
        "password.changed",
        user=username,
        address=client_address(request, os.environ),
        method="reset",
        keys="kept" if keeps_keys else "deleted",
    )
    text = (
        "Log in with it." if keeps_keys else "Log in with it. You have no API keys, webhooks, feed or shared links now."
    )
    return page("Your password is changed", text)


def reset_password(reset: Reset, password: str, deps: Dependencies, *, revokes_access: bool) -> str:
    """Sets the password of a link's user, and revokes other access to the account if asked to; returns the username.

    Raises:
        BadLink: since the link was made it was used, or the user's tokens were withdrawn; or the user has another
            address, or was deleted.
        Unprocessable: the password is one that nobody may choose.
    """
    used = BadLink("This link was used already, or is no longer valid: ask for a new one with POST /password-reset.")
    try:
        profile = deps.profiles.get(reset.user)
    except NotAuthenticated as error:
        raise used from error
    if not reset.is_for(profile.token_version, profile.email):
        raise used
    try:
        change_password(profile, password, deps, "password", revokes_access=revokes_access)
    except Conflict as error:
        raise used from error
    return profile.username


def _end_session(request: Request) -> Response:
    identity = _identify(request)
    if identity.scopes is not None:
        raise NotAllowed("An API key is no session: delete it with DELETE /keys/KEY.")
    deps = dependencies()
    if not deps.ended.end(identity):
        deps.profiles.withdraw_tokens(identity.user)
    _record(request, identity, "session.ended")
    return Response(status=204, headers={"Set-Cookie": cookie("", 0, os.environ)})


def _list_sessions(request: Request) -> Response:
    identity = _identify(request)
    current = identity.claims.get("jti")
    found = dependencies().sessions.of(identity.user)
    return json_response(api.SessionList([_session(session, current) for session in found]))


def _session(session: Session, current: str | None) -> api.Session:
    return api.Session(
        id=session.id,
        created=iso_time(session.created_at) or "",
        expires=iso_time(session.expires_at) or "",
        last_used=(iso_time(session.used_at) or "")[:10],
        agent=session.agent or None,
        network=session.network or None,
        current=session.id == current,
    )


def _delete_session(request: Request, session: str) -> Response:
    identity = _identify(request)
    dependencies().sessions.end(session, identity.user)
    _record(request, identity, "session.ended", session=session)
    return Response(status=204)


def _list_logins(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    found = [
        api.ExternalLogin(id=login.id, provider=login.provider, created=iso_time(login.created_at) or "")
        for login in deps.logins.of(identity.user)
    ]
    return json_response(api.LoginList(found, deps.accounts.has_password(identity.user)))


def _delete_login(request: Request, login: str) -> Response:
    identity = _identify(request)
    dependencies().logins.remove(login, identity.user)
    _record(request, identity, "login.unlinked", login=login)
    return Response(status=204)


def _withdraw_tokens(request: Request) -> Response:
    identity = _identify(request)
    dependencies().profiles.withdraw_tokens(identity.user)
    _record(request, identity, "sessions.ended")
    return Response(status=204)


def _delete(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    profile = _require_password(request, identity, read_json(request, api.Deletion).password, deps)
    deps.deleted.delete(identity.user, profile.token_version)
    _record(request, identity, "account.deleted")
    return Response(status=204)


def _require_password(request: Request, identity: Identity, password: str, deps: Dependencies) -> Profile:
    """Returns the account as it was before the password was checked.

    Raises:
        WrongPassword: the password is wrong.
        TooManyFailures: too many wrong ones were sent; logins count, too.
    """
    profile = deps.profiles.get(identity.user)
    try:
        authenticate(profile.username, password, client_address(request, os.environ), deps.accounts, deps.throttle)
    except WrongCredentials as error:
        raise WrongPassword("Wrong password: check it and try again.") from error
    return profile


def shown(profile: Profile, deps: Dependencies) -> api.Account:
    """Returns the account as its user sees it."""
    used = usage(deps.database, profile.id)
    quota = deps.quota.of(profile)
    size = quota.size or None
    jobs = quota.jobs or None
    return api.Account(
        id=profile.id,
        username=profile.username,
        name=profile.name,
        email=profile.email,
        confirmed=profile.confirmed_at is not None,
        role="admin" if profile.role == "admin" else "user",
        created=iso_time(profile.created_at) or "",
        usage=api.Usage(
            bytes=used.size,
            bytes_limit=size,
            bytes_left=None if size is None else max(size - used.size, 0),
            jobs=used.jobs,
            jobs_limit=jobs,
            jobs_left=None if jobs is None else max(jobs - used.jobs, 0),
        ),
    )


def _create_key(request: Request) -> Response:
    identity = _identify(request)
    if identity.scopes is not None:
        raise NotAllowed("An API key cannot create another one: log in.")
    wanted = read_json(request, api.NewKey)
    reserved = [scope for scope in wanted.scopes if scope in _OF_ADMINISTRATORS]
    if reserved and identity.role != "admin":
        raise NotAllowed(f"Only administrators may create a key with the scope {reserved[0]}: choose other scopes.")
    created = create_key(wanted, identity, dependencies())
    _record(request, identity, "key.created", key=created.id, scopes="+".join(created.scopes))
    return json_response(created, 201, {"Location": f"/keys/{created.id}"})


def _list_keys(request: Request) -> Response:
    identity = _identify(request)
    return json_response(api.KeyList([api.ApiKey(**_key_fields(key)) for key in dependencies().keys.of(identity.user)]))


def _delete_key(request: Request, key: str) -> Response:
    identity = _identify(request)
    dependencies().keys.delete(key, identity.user)
    _record(request, identity, "key.deleted", key=key)
    return Response(status=204)


def create_key(form: api.NewKey, identity: Identity, deps: Dependencies) -> api.CreatedKey:
    """Creates a key.

    Raises:
        Unprocessable: the name is blank, or has control characters.
        TooManyKeys: the user has as many as a user may have.
        OwnerChanged: the token was withdrawn at the same time.
    """
    name = form.name.strip()
    if not name or not name.isprintable():
        raise Unprocessable.naming({"name": "must have a visible character, and no control characters"})
    key, row = deps.keys.create(identity.user, name, form.scopes, form.expires_in, version=identity.token_version)
    return api.CreatedKey(**_key_fields(row), key=key)


def _key_fields(key: ApiKey) -> dict[str, Any]:
    """Returns the fields of ``api.ApiKey``."""
    used = iso_time(key.used_at)
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": iso_time(key.created_at),
        "expires": iso_time(key.expires_at),
        "last_used": used and used[:10],
    }


def _list_presets(request: Request) -> Response:
    found = dependencies().presets.of(_identify(request).user)
    return json_response(api.PresetList([_preset(preset) for preset in found]))


def _show_preset(request: Request, preset: str) -> Response:
    return json_response(_preset(dependencies().presets.get(preset, _identify(request).user)))


def _put_preset(request: Request, preset: str) -> Response:
    identity = _identify(request)
    options = checked(read_json(request, api.PresetOptions).options)
    saved = dependencies().presets.put(preset, options, identity.user, identity.token_version)
    return json_response(_preset(saved))


def _delete_preset(request: Request, preset: str) -> Response:
    dependencies().presets.delete(preset, _identify(request).user)
    return Response(status=204)


def _preset(preset: Preset) -> api.Preset:
    return api.Preset(name=preset.name, options=dict(preset.options), origin=preset.origin)


def _record(request: Request, identity: Identity, event: str, **details: object) -> None:
    security_log.record(event, user=identity.username, address=client_address(request, os.environ), **details)


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.SHOW_ACCOUNT: _show,
        api.CHANGE_ACCOUNT: _change,
        api.CHANGE_PASSWORD: _change_password,
        api.DELETE_ACCOUNT: _delete,
        api.OFFER_RESET: _offer_reset,
        api.SHOW_RESET: for_people(_show_reset),
        api.RESET: for_people(_reset),
        api.END_SESSION: _end_session,
        api.LIST_SESSIONS: _list_sessions,
        api.DELETE_SESSION: _delete_session,
        api.WITHDRAW_TOKENS: _withdraw_tokens,
        api.LIST_LOGINS: _list_logins,
        api.DELETE_LOGIN: _delete_login,
        api.CREATE_KEY: _create_key,
        api.LIST_KEYS: _list_keys,
        api.DELETE_KEY: _delete_key,
        api.LIST_PRESETS: _list_presets,
        api.SHOW_PRESET: _show_preset,
        api.PUT_PRESET: _put_preset,
        api.DELETE_PRESET: _delete_preset,
    }
)
