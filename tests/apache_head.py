"""What the settings of each Apache of the tests begin with: all it writes is in one folder, and it runs as nobody."""

from __future__ import annotations

from pathlib import Path

_MODULES = "/usr/lib/apache2/modules"


def apache_head(root: Path, *modules: str) -> str:
    """Settings for an Apache in the folder `root`, with these modules beside those that each one needs."""
    loads = (f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in ("mpm_event", "authz_core", *modules))
    return f"""\
ServerRoot {root}
ServerName localhost
PidFile {root}/apache2.pid
ErrorLog {root}/error.log
DefaultRuntimeDir {root}
Mutex file:{root} default
{chr(10).join(loads)}
<IfModule unixd_module>
User nobody
Group nogroup
</IfModule>
"""
