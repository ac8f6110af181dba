"""What the installed packages require, to compare with what an image installs."""

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from typing import Any

import pytest
from packaging.requirements import Requirement

from infra.extra_requirements import direct, normal
from tests.support.paths import ROOT

#: The table ``project`` of pyproject.toml.
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def installed_closure(requirements: Iterable[str]) -> set[str]:
    """Returns the names of all packages that the requirements lead to, according to the installed packages."""
    todo = {(each, "") for each in requirements}
    done: set[tuple[str, str]] = set()
    names = set()
    while todo:
        done.add(item := todo.pop())
        requirement = Requirement(item[0])
        if requirement.marker and not requirement.marker.evaluate({"extra": item[1]}):
            continue
        names.add(normal(requirement.name))
        try:
            further = requires(requirement.name) or []
        except PackageNotFoundError:
            pytest.fail(f"{requirement.name} is not installed, so it is not in requirements.lock")
        todo |= {(each, extra) for each in further for extra in ("", *requirement.extras)} - done
    return names


def modules_missing_from(extra: str, *, with_project: bool) -> list[str]:
    """Returns the top-level modules that are installed here but not in an image.

    Args:
        extra: the extra that the image installs.
        with_project: whether it also installs the project's own dependencies.
    """
    requirements = [*direct(PROJECT, extra), *(direct(PROJECT, "") if with_project else ())]
    present = installed_closure(requirements)
    return [
        module
        for module, distributions in packages_distributions().items()
        if not present & {normal(distribution) for distribution in distributions}
    ]
