"""A patch that a developer gives by `buildbot try`: a whole virtual cluster is installed with it, for nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.farm import _PASSWORD, CHECKOUT, DOMAIN, USERS, Farm
from demo.mailsink import body_of, read_mail
from oscar_steps.verdict import LINT, Verdict
from tests.farm.support import eventually

SECONDS = 2400
FAULT = "cluster-test-fails"
DEVELOPER = USERS[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture
def farm() -> Iterator[Farm]:
    farm = Farm(CHECKOUT / ".farm" / "patch")
    farm.try_users = (DEVELOPER,)
    with farm:
        yield farm
    assert farm.leftovers == []


def test_a_patch_that_breaks_oscar_is_red_at_its_stage_and_its_developer_alone_is_told(
    farm: Farm, tmp_path: Path
) -> None:
    wanted = [f"--diff={farm.faults.patch(FAULT)}", "--patchlevel=1", "--baserev=1", f"--builder={farm.cell}", "--wait"]
    login = ["--connect=pb", f"--master=127.0.0.1:{farm.try_port}", f"--username={DEVELOPER}", f"--passwd={_PASSWORD}"]
    command = [str(Path(sys.executable).parent / "buildbot"), "try", *login, *wanted]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert f"{LINT}: success (" in done.stdout, done.stdout + done.stderr
    assert f"{farm.cell}: failure (" in done.stdout, done.stdout

    (run,) = farm.runs.glob(f"{farm.cell}-r1.p*")
    verdict = Verdict.model_validate_json((run / "verdict.json").read_bytes())
    assert farm.faults[FAULT].complaints(verdict) == []
    assert json.loads((run / "job.json").read_text())["source"]["patch"]["who"] == DEVELOPER
    (mail,) = eventually(lambda: [read_mail(path) for path in (farm.directory / "mails").glob("*.eml")])
    assert mail["To"] == f"{DEVELOPER}@{DOMAIN}"
    assert "your patch" in " ".join(str(mail["Subject"]).split())
    assert farm.faults[FAULT].missing_words(body_of(mail)) == []
