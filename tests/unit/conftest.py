"""What tests with drawn examples share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes is no behaviour: machines stand still now and then.
settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")
