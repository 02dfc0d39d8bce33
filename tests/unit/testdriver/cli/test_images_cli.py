"""`oscar-testdriver images`: what is there, why, what changed; a damaged image is found, and too many are removed."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oscar_steps.errors import OutsideUnknown
from oscar_steps.images import build, lease, outside, room
from oscar_steps.images.key import ImageKey, own_digests
from oscar_steps.images.kinds import bootstrap
from oscar_steps.images.kinds.bootstrap import AptSource, Bootstrap
from oscar_steps.images.record import KEY_FILE, describe
from oscar_steps.images.store import ImageStore
from oscar_steps.job import CellPlan, Timeouts
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.matrix.recipes import load_recipe
from oscar_steps.sources.source import Source
from oscar_steps.testdriver.cli.images import images
from oscar_steps.verdict import ImageReport, Outcome, Verdict

NAME = "debian-12-x86_64"
INDEX = "package index of bookworm"


def put(store: Path, index: str, packages: str = "", **changed: object) -> str:
    """An image of the farm's own recipe in the store, built on a day when the mirror's index was `index`."""
    recipe = load_recipe(default_profiles() / "images" / f"{NAME}.toml")
    own = own_digests(build.kind_of(recipe).own_contents(recipe))
    key = ImageKey({**recipe.model_dump(mode="json"), **changed}, own, {INDEX: index})
    folder = store / key.digest
    folder.mkdir(parents=True)
    (folder / "image.qcow2").write_bytes(b"x" * 5000)
    if packages:
        (folder / MANIFEST_FILE).write_text(packages)
    record = describe(folder, key, built=1e9 + len(list(store.iterdir())), seconds=61.0)
    (folder / KEY_FILE).write_text(record.model_dump_json())
    room.mark_used(store, key.digest)
    return key.digest


def call(store: Path, command: str, *words: str) -> Result:
    return CliRunner().invoke(images, [command, *words, "--images", str(store)], catch_exceptions=False)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the mirror has; 'away' in it: it cannot be asked."""
    found = {INDEX: "2"}

    async def outside(_kind: Bootstrap, _recipe: object) -> dict[str, str]:
        if "away" in found:
            raise OutsideUnknown("the mirror http://m cannot be asked for 'bookworm' (refused)")
        return found

    monkeypatch.setattr(Bootstrap, "outside", outside)
    return found


@pytest.mark.parametrize("command", ["list", "verify"])  # without the store's name they change nothing in the real one
def test_the_store_may_be_named_before_the_command_and_a_later_one_counts(tmp_path: Path, command: str) -> None:
    key = put(tmp_path / "one", "1")
    before = ["--images", str(tmp_path / "one"), command]
    assert key[:12] not in CliRunner().invoke(images, [*before, "--images", str(tmp_path / "other")]).output
    assert key[:12] in CliRunner().invoke(images, before).output


def test_the_list_has_name_key_size_and_who_uses_it(tmp_path: Path) -> None:
    key = put(tmp_path, "1")
    (tmp_path / ("0" * 64)).mkdir()
    held = lease.lease(tmp_path / key)
    for words in ([], ["list"]):
        done = CliRunner().invoke(images, [*words, "--images", str(tmp_path)], catch_exceptions=False)
        heading, first, second, sum_ = done.output.splitlines()
        assert heading.split() == ["NAME", "KEY", "AGE", "SIZE", "LAST", "USED", "IN", "USE", "BY"]
        assert first.startswith(f"{NAME}         {key[:12]}  ")
        assert f"({os.getpid()})" in first
        assert second.startswith("(of an earlier version)")
        assert sum_.startswith("2 images, 0.0 GiB of ")
    (fact, _old) = json.loads(call(tmp_path, "list", "--json").output)
    assert (fact["name"], fact["key"], len(fact["in_use_by"])) == (NAME, key, 1)
    assert held


def test_an_empty_store_is_no_error(tmp_path: Path) -> None:
    done = call(tmp_path / "none", "list")
    assert (done.exit_code, done.output.split(",")[0]) == (0, "0 images")
    assert call(tmp_path / "none", "verify").exit_code == 0
    assert call(tmp_path / "none", "prune").exit_code == 0


def test_explain_says_what_differs_from_the_last_one(tmp_path: Path, today: dict[str, str]) -> None:
    old = put(tmp_path, "1", disk_mib=2048)
    done = call(tmp_path, "explain", NAME)
    assert done.exit_code == 0
    assert f"  {INDEX}: 2" in done.output
    assert "it is not in the store: the next run builds it\n" in done.output
    assert f", {old[:12]}, in: the recipe's disk_mib: 2048 -> 4096; {INDEX}\n" in done.output
    key = put(tmp_path, today[INDEX])
    done = call(tmp_path, "explain", str(default_profiles() / "images" / f"{NAME}.toml"))
    assert done.output.startswith(f"the image {NAME} of today has the key {key}\n")
    assert "it is in the store, built" in done.output


def test_explain_says_that_the_mirror_is_away(tmp_path: Path, today: dict[str, str]) -> None:
    today["away"] = ""
    done = call(tmp_path, "explain", NAME)
    assert (done.exit_code, done.output) == (
        20,
        "the mirror http://m cannot be asked for 'bookworm' (refused); a run uses the newest image of the same recipe "
        "and code, if there is one\n",
    )


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="asks by apt")
def test_the_key_changes_with_the_mirror_s_packages_alone_and_is_that_of_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror is a server on loopback, asked through apt."""
    matrix = load_matrix(default_profiles())
    job = CellPlan.of(matrix, matrix.cell(NAME), Timeouts()).job("run", Source(url="svn://h/oscar/trunk", revision="7"))
    job.save(tmp_path / "job.json")
    release = tmp_path / "dists/bookworm/InRelease"
    release.parent.mkdir(parents=True)
    packages = f" {'a' * 64} 1234 main/binary-amd64/Packages\n"

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

    def key(text: str) -> str:
        release.write_text(text)
        outside.forget(tmp_path / "store")
        done = call(tmp_path / "store", "key", str(tmp_path / "job.json"))
        assert done.exit_code == 0, done.output
        assert re.fullmatch("[0-9a-f]{64}\n", done.output)
        return done.output.strip()

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        mirror = AptSource(f"http://127.0.0.1:{server.server_address[1]}", "bookworm", "bookworm", "Debian")

        async def host_sources() -> tuple[AptSource, ...]:
            return (mirror,)

        monkeypatch.setattr(bootstrap, "host_sources", host_sources)
        (tmp_path / "store").mkdir()
        first = key(f"Date: Sat, 28 Nov 2026\nSHA256:\n{packages}")
        assert key(f"Date: Sun, 29 Nov 2026\nSHA256:\n{packages}") == first
        other = key(f"Date: Mon, 30 Nov 2026\nSHA256:\n{packages.replace('a', 'b', 1)}")
        assert other != first
        assert asyncio.run(ImageStore(tmp_path / "store").key_of(job.image)).digest == other
        server.shutdown()


def test_without_its_mirror_an_image_has_no_key(tmp_path: Path, today: dict[str, str]) -> None:
    key = put(tmp_path, today[INDEX])
    assert call(tmp_path, "key", NAME).output == f"{key}\n"
    today["away"] = ""
    outside.forget(tmp_path)
    done = CliRunner().invoke(images, ["key", NAME, "--images", str(tmp_path)], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (20, "")
    assert "the mirror http://m cannot be asked for 'bookworm' (refused)" in done.stderr


def test_verify_takes_a_damaged_image_out_of_use(tmp_path: Path) -> None:
    good, bad = put(tmp_path, "1"), put(tmp_path, "2")
    (tmp_path / bad / "image.qcow2").write_bytes(b"y" * 5000)
    done = call(tmp_path, "verify")
    assert done.exit_code == 20
    assert f"{NAME} {good[:12]}: ok\n" in done.output
    assert (
        f"{NAME} {bad[:12]}: damaged: image.qcow2 is not what it was when the image was built; it is out" in done.output
    )
    assert ImageStore(tmp_path).find(bad) is None
    assert call(tmp_path, "verify").exit_code == 0
    assert call(tmp_path, "verify", good[:8]).output == f"{NAME} {good[:12]}: ok\n"


def test_prune_leaves_what_is_in_use_and_says_so(tmp_path: Path) -> None:
    used, free = put(tmp_path, "1"), put(tmp_path, "2")
    held = lease.lease(tmp_path / used)
    assert "removed" not in call(tmp_path, "prune").output
    done = call(tmp_path, "prune", "--all")
    assert f"removed {NAME} {free[:12]}\n" in done.output
    assert "those that are left are in use" in done.output
    assert (tmp_path / used).exists()
    assert held


def run_of(folder: Path, key: str, packages: str) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(packages)
    image = ImageReport(key=key)
    verdict = Verdict(
        run_id=folder.name, cell=NAME, source="s", revision="1", outcome=Outcome.PASSED, sentence="", image=image
    )
    verdict.save(folder)
    return folder


def test_diff_says_what_changed_between_two_runs_two_images_or_a_mixture(tmp_path: Path) -> None:
    texts = ("bash 5.2 amd64\nsed 4.9 amd64\n", "bash 5.3 amd64\nsed 4.9 amd64\n")
    store = tmp_path / "store"
    keys = [put(store, str(number), text) for number, text in enumerate(texts)]
    runs = [run_of(tmp_path / "runs" / f"r{n}", keys[n], texts[n]) for n in range(2)]
    said = f"1 package of the distribution changed\n  bash 5.2 -> 5.3\nthe images differ in: {INDEX}\n"
    for old, new in ((str(runs[0]), str(runs[1])), (keys[0][:12], keys[1]), (str(runs[0]), keys[1][:8])):
        assert call(store, "diff", old, new).output == said
    assert call(store, "diff", "r0", "r1", "--runs", str(tmp_path / "runs")).output == said
    assert call(store, "diff", keys[0], keys[0]).output == "no package of the distribution changed\n"


@pytest.mark.parametrize("word", ["nonsense", "", "..", "0", "\x1b[2J"])
def test_diff_of_what_is_not_there_is_one_sentence(tmp_path: Path, word: str) -> None:
    done = call(tmp_path, "diff", word, word)
    assert done.exit_code == 64
    assert "Traceback" not in done.output
    assert "\x1b" not in done.output


def test_a_recipe_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    done = call(tmp_path, "explain", "debian-1")
    assert done.exit_code == 64
    assert NAME in done.output


def test_one_image_that_cannot_be_built_keeps_no_other_from_being_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, today: dict[str, str]
) -> None:
    key = put(tmp_path / "store", today[INDEX])
    monkeypatch.setattr(ImageStore, "_close", lambda _store: None)
    path = str(tmp_path / "store" / key / "image.qcow2")
    done = call(tmp_path / "store", "build", str(tmp_path / "missing.toml"), NAME)
    assert done.exit_code == 64
    assert path in done.output
    assert f"{tmp_path}/missing.toml: there is no such file" in done.output
    recipe = default_profiles() / "images" / f"{NAME}.toml"
    done = call(tmp_path / "store", "build", NAME, str(recipe))
    assert done.exit_code == 0
    assert done.output.split() == [path] * 2


@pytest.mark.parametrize(
    "said",
    [
        {"built": 1e300},
        {"built": "NaN"},
        {"built": "-Infinity"},
        {"seconds": "Infinity"},
        {"files": {"../../../../../../../../dev/zero": {"size": 0, "sha256": "0" * 64}}},
        {"files": {"image.qcow2": {"size": "many", "sha256": 1}}},
        {"recipe": {"name": NAME, "more": "x" * 5_000_000}},
    ],
)
@pytest.mark.usefixtures("today")
def test_a_record_that_cannot_be_true_makes_an_image_of_no_known_kind(tmp_path: Path, said: dict[str, object]) -> None:
    key = put(tmp_path, "1")
    record = json.loads((tmp_path / key / KEY_FILE).read_text()) | said
    text = json.dumps(record)
    for number in ("NaN", "-Infinity", "Infinity"):
        text = text.replace(f'"{number}"', number)
    (tmp_path / key / KEY_FILE).write_text(text)
    assert "(of an earlier version)" in call(tmp_path, "list").stdout
    assert "nothing is known of it" in call(tmp_path, "verify").stdout
    assert "the store has no earlier one" in call(tmp_path, "explain", NAME).stdout


def test_a_file_of_an_image_that_is_a_pipe_or_a_device_is_damaged(tmp_path: Path) -> None:
    key = put(tmp_path, "1")
    disk = tmp_path / key / "image.qcow2"
    record = json.loads((tmp_path / key / KEY_FILE).read_text())
    record["files"]["image.qcow2"]["size"] = 0
    (tmp_path / key / KEY_FILE).write_text(json.dumps(record))
    disk.unlink()
    os.mkfifo(disk)
    result = call(tmp_path, "verify")
    assert result.exit_code == 20
    assert "image.qcow2 cannot be read" in result.stdout


@pytest.mark.usefixtures("today")
def test_a_record_gives_a_terminal_no_orders(tmp_path: Path) -> None:
    key = put(tmp_path, "1", suite="\x1b[2Jx\ny")
    evil = ImageKey({"name": "a\x1b]0;b\x07\nc"}, {}, {})
    (tmp_path / key).rename(tmp_path / evil.digest)
    folder = tmp_path / evil.digest
    (folder / KEY_FILE).write_text(describe(folder, evil, built=1e9, seconds=1).model_dump_json())
    put(tmp_path, "1", suite="\x1b[2Jx\ny")
    for command in (["list"], ["verify"], ["explain", NAME], ["prune", "--all"]):
        assert "\x1b" not in call(tmp_path, *command).stdout
