"""Profiles as files, and what becomes of them: `profiles/valid` with what they mean, `profiles/invalid` with the one
sentence that says why; then the attacks that are too big to be files."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench import fuzz
from oscar_steps.errors import InvalidProfile, ProfileError
from oscar_steps.v2m.describe import Profiles, sentence
from oscar_steps.v3m.profiles import xmlfile
from oscar_steps.v3m.profiles.cluster import ClusterProfile, cluster_to_xml, parse_any
from oscar_steps.v3m.profiles.vm import profiles_to_xml
from oscar_steps.v3m.profiles.xmlfile import MAX_BYTES

CORPUS = Path(__file__).parent / "corpus"
VALID = sorted(CORPUS.glob("valid/*.xml"))
INVALID = sorted(CORPUS.glob("invalid/*.xml"))
SECONDS = 3.0
"""Of the processor; each takes a quarter of one."""
BODY = "<profile><name>a</name><image>b</image></profile>"
NAME = "<name>a</name>"


def load(path: Path) -> Profiles:
    return parse_any(xmlfile.read(path), path.name)


def expected(path: Path) -> str:
    return path.with_suffix(".expected").read_text(encoding="utf-8").strip()


def meaning(profiles: Profiles) -> str:
    if isinstance(profiles, ClusterProfile):
        return "\n".join([f"cluster {profiles.name}, nodes from {profiles.boot}", *map(sentence, profiles.machines)])
    return "\n".join(map(sentence, profiles))


def test_the_corpus_is_all_there() -> None:
    assert [path.stem for path in VALID if path.stem.startswith("mission-")] == [
        "mission-1-no-type",
        "mission-2-headnode",
        "mission-3-node",
    ]
    assert len(VALID) + len(INVALID) >= 43
    assert {path.with_suffix(".expected") for path in VALID + INVALID} == set(CORPUS.glob("*/*.expected"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_profile_means_what_is_written_beside_it(path: Path) -> None:
    assert meaning(load(path)) == expected(path)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_profile_survives_being_written_and_read(path: Path) -> None:
    profiles = load(path)
    text = cluster_to_xml(profiles) if isinstance(profiles, ClusterProfile) else profiles_to_xml(profiles)
    assert parse_any(text, "again.xml") == profiles


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_profile_is_refused_with_the_sentence_beside_it(path: Path) -> None:
    with pytest.raises(InvalidProfile) as error:
        load(path)
    assert str(error.value) == expected(path)
    assert str(error.value).isprintable()


ATTACKS = {
    "deep": ("<a>" * 300_000, "elements deep"),
    "wide": ("<profiles>" + "<a/>" * 300_000, "more than 20000 elements"),
    "wide and valid but for its end": (f"<profiles>{BODY * 6_600}<profile/></profiles>", "<profile> lacks <name>"),
    "more elements than may be": (f"<profiles>{BODY * 6_700}</profiles>", "more than 20000 elements"),
    "too large": (f"<profile>{' ' * MAX_BYTES}</profile>", "larger than 2 MiB"),
    "attributes": ("<profile " + " ".join(f"a{n}=''" for n in range(150_000)) + "/>", "more than 16 attributes"),
    "a long name": (f"<{'a' * 1_900_000}/>", "the root is <aaaa"),
    "a long text": (f"<profile><name>{'a' * 1_900_000}</name><image>b</image></profile>", "cannot name files"),
    "a text in many pieces": (f"<profile>{'a<!---->' * 250_000}</profile>", "bare text"),
    "a long number": (f"<profile>{NAME}<memory>{'9' * 1_900_000}</memory><image>b</image></profile>", "memory is"),
    "a DOCTYPE of attributes": (
        "<!DOCTYPE profile [<!ATTLIST a " + " ".join(f"a{n} CDATA ''" for n in range(110_000)) + f">]>{BODY}",
        "the DOCTYPE does not end",
    ),
    "a DOCTYPE of groups": (f"<!DOCTYPE profile [<!ELEMENT a {'(' * 900_000}b", "the DOCTYPE does not end"),
    "quadratic blow-up": (
        f'<!DOCTYPE profile [<!ENTITY a "{"a" * 20_000}">]><profile><name>{"&a;" * 400_000}</name></profile>',
        "declares entities",
    ),
    "character references": (
        f"<profile><name>{'&#97;' * 300_000}</name><image>b</image></profile>",
        "cannot name files",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_at_once(name: str) -> None:
    text, sentence = ATTACKS[name]
    before = time.process_time()
    with pytest.raises(InvalidProfile) as error:
        parse_any(text, "evil.xml")
    assert time.process_time() - before < SECONDS
    assert sentence in str(error.value)
    assert len(str(error.value)) < 400


def test_nothing_that_a_profile_names_is_read_or_fetched(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # whoever opened it would wait for ever
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v3m_profile.dtd"
        for where in (f"file://{fifo}", str(fifo), url):
            assert parse_any(f'<!DOCTYPE profile PUBLIC "" "{where}">{BODY}', "a.xml")
            for declared in (f'<!ENTITY a SYSTEM "{where}">', f'<!ENTITY % a SYSTEM "{where}"> %a;'):
                with pytest.raises(ProfileError, match="declares entities"):
                    parse_any(f"<!DOCTYPE profile [{declared}]>{BODY.replace('>a<', '>&a;<')}", "a.xml")
            include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{where}" parse="text"/>'
            with pytest.raises(ProfileError, match="no namespaces"):
                parse_any(BODY.replace(">a<", f">{include}<"), "a.xml")
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("path", ["/dev/zero", "fifo", "."])
def test_what_is_no_file_is_not_read(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ProfileError, match=r"the profile cannot be read: it is (a directory|not a regular file)"):
        xmlfile.read(tmp_path / path)


def test_a_file_beyond_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "sparse.xml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ProfileError, match="larger than 2 MiB"):
        load(path)


@settings(max_examples=150)
@given(st.one_of(fuzz.misspelt(), fuzz.spoiled()))
@example(b"\x7f<profile/>")
@example(b"<profile><name>a</name><image>b</image><nic1><mac>\xc2\x85</mac></nic1></profile>")
def test_a_spoiled_profile_loads_or_is_refused_with_one_sentence(data: bytes) -> None:
    assert fuzz.judge(data) in ("valid", "invalid", "malformed")


def test_the_fuzz_run_finds_what_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str | bytes, source: str) -> Profiles:
        if isinstance(text, bytes) and b"Kvm" in text:
            raise ValueError("a bug")
        return parse_any(text, source)

    monkeypatch.setattr(fuzz, "parse_any", broken)
    with pytest.raises(ValueError, match="a bug"):
        fuzz.run(30, first_seed=1)
