"""The installation, for its administrators: users, the jobs of all, what waits, and what is stored."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

import functions_framework
from flask import Request, Response

from events.errors import Mp3burstError
from functions import security_log
from functions.admin import api
from functions.auth.administration import Administration, ManagedUser, Search
from functions.auth.tokens import Identity, NotAllowed
from functions.http_endpoint import (
    Routes,
    client_address,
    identify,
    iso_time,
    json_response,
    prepare_to_identify,
    read_json,
    read_query,
)
from functions.state.administrators import ADMIN
from functions.state.database import Database, shared
from functions.state.disks import Disk, Disks
from functions.state.overview import ObservedJob, Overview
from functions.state.quota import Quota, Usage, usages
from functions.warm_up import before_first_request

#: Users in the list of those who have stored most.
_LARGEST: Final = 10


class QueueNotFound(Mp3burstError):
    """There is no such queue."""

    status = 404


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What admin uses.

    Attributes:
        database: what users have stored.
        users: the users.
        overview: jobs, queues and stores.
        quota: what a user may store unless an administrator has set something else.
        disks: what sweep has measured.
    """

    database: Database
    users: Administration
    overview: Overview
    quota: Quota
    disks: Disks


@functions_framework.http
def admin(request: Request) -> Response:
    """Handles /admin."""
    return _ROUTES.answer(request)


def _identify(request: Request) -> Identity:
    """Returns the administrator who asks, by what the database says now.

    Raises:
        NotAllowed: the user is none.
    """
    identity = identify(request, os.environ, is_cached=False)
    if identity.role != ADMIN:
        raise NotAllowed("Only administrators may do this: ask one.")
    return identity


def _list_users(request: Request) -> Response:
    _identify(request)
    query = read_query(request, api.UsersQuery)
    deps = dependencies()
    page = deps.users.page(Search(query.search, query.role, query.locked), query.limit + 1, query.after)
    shown = _shown(page[: query.limit], deps)
    return json_response(api.UserPage(shown, page[query.limit - 1].id if len(page) > query.limit else None))


def _show_user(request: Request, user: str) -> Response:
    _identify(request)
    deps = dependencies()
    return _user(deps.users.get(user), deps)


def _change_user(request: Request, user: str) -> Response:
    identity = _identify(request)
    wanted = read_json(request, api.UserChange)
    deps = dependencies()
    changed = deps.users.change(user, identity.user, role=wanted.role, is_locked=wanted.locked)
    if wanted.role is not None:
        _record(request, identity, "role.changed", changed, role=wanted.role)
    if wanted.locked is not None:
        _record(request, identity, "account.locked" if wanted.locked else "account.unlocked", changed)
    return _user(changed, deps)


def _set_quota(request: Request, user: str) -> Response:
    identity = _identify(request)
    wanted = read_json(request, api.UserQuota)
    deps = dependencies()
    changed = deps.users.set_quota(user, identity.user, wanted.bytes, wanted.jobs)
    _record(request, identity, "quota.changed", changed, bytes=wanted.bytes, jobs=wanted.jobs)
    return _user(changed, deps)


def _end_sessions(request: Request, user: str) -> Response:
    identity = _identify(request)
    changed = dependencies().users.withdraw_tokens(user, identity.user)
    _record(request, identity, "sessions.ended", changed)
    return Response(status=204)


def _delete_user(request: Request, user: str) -> Response:
    identity = _identify(request)
    deleted = dependencies().users.delete(user, identity.user)
    _record(request, identity, "account.deleted", deleted)
    return Response(status=204)


def _list_jobs(request: Request) -> Response:
    _identify(request)
    query = read_query(request, api.ObservedJobsQuery)
    jobs = dependencies().overview.jobs(query.limit + 1, query.after, owner=query.user, state=query.state)
    shown = [_job(job) for job in jobs[: query.limit]]
    return json_response(api.ObservedJobPage(shown, jobs[query.limit - 1].id if len(jobs) > query.limit else None))


def _list_queues(request: Request) -> Response:
    _identify(request)
    overview = dependencies().overview
    queues = [
        api.Queue(
            queue=queue.name,
            working=queue.working,
            waiting=queue.waiting,
            deferred=queue.deferred,
            retrying=queue.retrying,
            overdue=queue.overdue,
            oldest=iso_time(queue.oldest),
        )
        for queue in overview.queues()
    ]
    given_up = overview.given_up()
    return json_response(
        api.QueueList(queues, api.GivenUp(jobs=given_up.jobs, mails=given_up.mails, deliveries=given_up.deliveries))
    )


def _retry_queue(request: Request, queue: str) -> Response:
    identity = _identify(request)
    name = next((each for each in get_args(api.QueueName) if each == queue), None)
    if name is None:
        raise QueueNotFound("There is no such queue: GET /admin/queues lists them.")
    rows = dependencies().overview.retry(name)
    address = client_address(request, os.environ)
    security_log.record("queue.retried", user=identity.username, address=address, queue=name, rows=rows)
    return json_response(api.Retried(rows), 202)


def _show_storage(request: Request) -> Response:
    _identify(request)
    overview = dependencies().overview
    stores = [
        api.StoreUse(store=each.store, blobs=each.blobs, bytes=each.size, expired=each.expired)
        for each in overview.storage()
    ]
    largest = [
        api.UserUse(user=each.id, username=each.username, bytes=each.size) for each in overview.largest_users(_LARGEST)
    ]
    disks = [_disk(disk) for disk in dependencies().disks.all()]
    return json_response(api.Storage(disks, stores, largest))


def _user(user: ManagedUser, deps: Dependencies) -> Response:
    return json_response(_shown([user], deps)[0])


def _shown(users: Sequence[ManagedUser], deps: Dependencies) -> list[api.ManagedUser]:
    used = usages(deps.database, [user.id for user in users]) if users else {}
    return [_managed(user, used[user.id], deps.quota.of(user)) for user in users]


def _managed(user: ManagedUser, used: Usage, quota: Quota) -> api.ManagedUser:
    return api.ManagedUser(
        id=user.id,
        username=user.username,
        name=user.name,
        email=user.email,
        confirmed=user.confirmed_at is not None,
        role="admin" if user.role == ADMIN else "user",
        created=iso_time(user.created_at) or "",
        locked=iso_time(user.locked_at),
        bytes=used.size,
        bytes_limit=quota.size or None,
        jobs=used.jobs,
        jobs_limit=quota.jobs or None,
        quota=api.UserQuota(user.quota_bytes, user.quota_jobs),
    )


def _job(job: ObservedJob) -> api.ObservedJob:
    return api.ObservedJob(
        job=job.id,
        user=job.owner,
        username=job.username,
        state=job.state,
        deferred=job.deferred_at is not None,
        attempts=job.attempts,
        error=job.error,
        warning=job.warning,
        duration=job.duration,
        video_bytes=job.size,
        mp3_bytes=job.mp3_size,
        cpu=job.cpu_ms / 1000,
        pods=job.pods,
        created=iso_time(job.created_at) or "",
        started=iso_time(job.started_at),
        finished=iso_time(job.finished_at),
    )


def _disk(disk: Disk) -> api.Disk:
    return api.Disk(
        stores=list(disk.stores),
        level=disk.level,
        free=disk.free,
        total=disk.total,
        used=disk.used,
        floor=disk.floor,
        measured=iso_time(disk.measured_at),
        silent_since=iso_time(disk.silent_since),
    )


def _record(request: Request, identity: Identity, event: str, subject: ManagedUser, **details: object) -> None:
    """Writes who has changed what of whom."""
    target = security_log.pseudonym("user", subject.username)
    address = client_address(request, os.environ)
    security_log.record(event, user=identity.username, address=address, target=target, **details)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or malformed.
    """
    database = shared(os.environ)
    quota = Quota.from_environ(os.environ)
    return Dependencies(database, Administration(database), Overview(database), quota, Disks(database))


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.LIST_USERS: _list_users,
        api.SHOW_USER: _show_user,
        api.CHANGE_USER: _change_user,
        api.SET_QUOTA: _set_quota,
        api.END_SESSIONS: _end_sessions,
        api.DELETE_USER: _delete_user,
        api.LIST_JOBS: _list_jobs,
        api.LIST_QUEUES: _list_queues,
        api.RETRY_QUEUE: _retry_queue,
        api.SHOW_STORAGE: _show_storage,
    }
)
