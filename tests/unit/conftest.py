"""What tests with drawn examples share, and the fixtures that more than one file has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.standin_root import install
from tests.unit.testdriver.head.sshd import server

__all__ = ["install", "server"]

# How long an example takes is no behaviour: machines stand still now and then.
settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """master.cfg, loaded in a test or for the tests of a module, closes what its process makes from then on."""
    os.umask(0o022)
    yield
    os.umask(0o022)  # not what was there before: a module's own fixture may have closed it already
