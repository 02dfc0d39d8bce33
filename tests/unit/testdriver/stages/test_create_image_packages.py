"""The list of an image's packages goes with the run, and the verdict names the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.images.lease import lease
from oscar_steps.images.record import ImageRecord
from oscar_steps.images.store import BaseImage
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.testdriver.record.event_history import read_event_history
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.stages.create_image import _keep_packages
from oscar_steps.verdict import ImageReport


def image(folder: Path, manifest: str) -> BaseImage:
    folder.mkdir()
    record = ImageRecord(
        key="aa", version=1, recipe={}, own={}, outside={}, built=0.0, seconds=1.0, manifest=manifest, files={}
    )
    held = lease(folder)
    assert held
    return BaseImage(folder / "image.qcow2", folder / "vmlinuz", record, held)


def test_the_list_of_packages_is_kept_with_the_run_as_the_image_may_go(tmp_path: Path) -> None:
    one = image(tmp_path / "image", "digest")
    one.packages.write_text("bash 5.2 amd64\n")
    (tmp_path / "run").mkdir()
    assert _keep_packages(one, tmp_path / "run")
    assert (tmp_path / "run" / MANIFEST_FILE).read_text() == "bash 5.2 amd64\n"


def test_an_image_without_a_list_is_no_fault(tmp_path: Path) -> None:
    assert not _keep_packages(image(tmp_path / "image", ""), tmp_path)
    assert not (tmp_path / MANIFEST_FILE).exists()


@pytest.mark.parametrize(
    ("data", "report"),
    [
        ({"digest": "aa", "manifest": "bb"}, ImageReport(key="aa", manifest="bb")),
        ({"digest": "aa"}, ImageReport(key="aa")),  # of an earlier version
        ({}, None),
    ],
)
def test_the_events_of_a_run_name_its_image(tmp_path: Path, data: dict[str, str], report: ImageReport | None) -> None:
    Diary(tmp_path).write("image", "base image", **data)
    history = read_event_history(tmp_path)
    assert history
    assert history.image == report
