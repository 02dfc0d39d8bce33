"""The host's settings: what the file says, and every mistake in it by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.v3m.host import settings
from oscar_steps.v3m.host.settings import DEFAULTS, HostSettings, NetworkSettings, ToHost, VlanKind, load_settings


def test_a_host_without_the_file_has_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SETTINGS_FILE", tmp_path / "host.toml")
    assert load_settings() == DEFAULTS
    assert DEFAULTS.network == NetworkSettings(vlan=VlanKind.STAR, to_host=None, bridges=())


@pytest.mark.parametrize(
    ("said", "v2m", "runs"),
    [
        (None, None, ToHost.CUT_OFF),
        (ToHost.OPEN, ToHost.OPEN, ToHost.OPEN),
        (ToHost.CUT_OFF, ToHost.CUT_OFF, ToHost.CUT_OFF),
    ],
)
def test_the_guests_of_runs_are_cut_off_unless_the_settings_open_them(
    said: ToHost | None, v2m: ToHost | None, runs: ToHost
) -> None:
    both = HostSettings(network=NetworkSettings(to_host=said))
    assert (both.switched.network.to_host, both.of_runs.network.to_host) == (v2m, runs)


def test_everything_that_can_be_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "host.toml"
    path.write_text('[network]\nvlan = "bridge"\nto_host = "cut-off"\nbridges = ["br0", "lab.7"]\n')
    expected = NetworkSettings(vlan=VlanKind.BRIDGE, to_host=ToHost.CUT_OFF, bridges=("br0", "lab.7"))
    assert load_settings(path).network == expected
    monkeypatch.setattr(settings, "SETTINGS_FILE", path)
    assert load_settings().network == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[network]\n\nvlan = "Bridge"\n', "host.toml:3: network.vlan: Input should be 'star' or 'bridge'"),
        ('[network]\nto_host = "no"\n', "host.toml:2: network.to_host: Input should be 'open' or 'cut-off'"),
        ('[network]\nbridge = "br0"\n', "host.toml:2: network.bridge: there is no such setting"),
        ('vlan = "star"\n', "host.toml:1: vlan: there is no such setting"),
        ('[network]\n# two\nbridges = ["br0", "a/b"]\n', "host.toml:3: network.bridges.1: String should match"),
        ('[network]\nbridges = ["longer-than-15-c"]\n', "host.toml:2: network.bridges.0: String should match"),
        ('[network]\nbridges = "br0"\n', "host.toml:2: network.bridges: give a list, such as"),
        ("[network\n", "host.toml: Expected ']' at the end of a table declaration (at line 1"),
        ("[network]\nvlan = \n", "host.toml: Invalid value (at line 2"),
    ],
)
def test_a_mistake_is_reported_by_file_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "host.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_settings(path)
    assert sentence in error.value.sentence


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_settings(tmp_path / "host.toml")
