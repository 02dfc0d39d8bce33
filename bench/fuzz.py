"""Feeds spoiled profiles to the loader and looks for what it must never do: `python -m bench.fuzz --seconds 60`.

A profile either loads, and then it can be described and survives being written and read, or it is refused with an error
of ours: one printable line with file, line and column. Nothing else, and never more than a second.

The files that are spoiled are the tests' corpus. What is found is printed as the bytes that did it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from xml.sax.saxutils import escape

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from oscar_steps.errors import InvalidProfile, ProfileError
from oscar_steps.v2m import describe
from oscar_steps.v3m.profiles.cluster import ClusterProfile, cluster_to_xml, parse_any
from oscar_steps.v3m.profiles.vm import profiles_to_xml

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "unit" / "v3m" / "profiles" / "corpus"
SEEDS = tuple(path.read_bytes() for path in sorted(CORPUS.glob("*/*.xml")))
_WELL_FORMED = tuple(data for data in SEEDS if data.rstrip().endswith(b">") and b"\0" not in data)
SECONDS = 1.0
"""Of the processor: how long one file may take."""
_ROUND = 500
_TOKENS = (
    b"<", b">", b"/", b"&", b"'", b'"', b"=", b" ", b"\n", b"\t", b"\r", b"\0", b"\x1b", b"\x7f", b"\xff",
    b"\xef\xbb\xbf", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?", b"?>", b"<!DOCTYPE profile", b"[", b"]>",
    b"&amp;", b"&#10;", b"&#x85;", b"&#x2028;", b"&#0;", b"&a;", b"%a;", b"<!ENTITY a 'b'>",
    b"<!ENTITY % a SYSTEM 'file:///dev/zero'>", b"<!ATTLIST image", b"<?xml version='1.0' encoding='", b"utf-16",
    b"utf-7", b"idna", b"unicode_escape", b"rot13", b"N/A", b"file://", b"<profile>", b"</profile>", b"<profiles>",
    b"<cluster name='c'>", b"<head>", b"<nodes>", b"<name>", b"<type>", b"VLAN", b"<boot>disk</boot>",
    b"<firmware>UEFI</firmware>", b"<nic1>", b"<nic32>", b"<mac>", b" vlan='a'", b" option=''", b" size='0'",
    b" size='99999999999999999999'", b" id='hdc'", b" bus='virtio'", b"xi:include", b" xmlns='a'", b"-1",
    b"9" * 5000, b"\xc3\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbf\xbf", b"<a>" * 20,
)  # fmt: skip


_TEXT = re.compile(rb">[^<>]*<|=\"[^\"]*\"")
_VALUES = st.one_of(
    st.sampled_from(
        ("", " ", "N/A", "0", "1", "-1", "256M", "9" * 5000, "2147483648", "VLAN", "TUN/TAP", "VMM-HPC", "Kvm")
    ),
    st.sampled_from(
        ("hdb", "hdc", "virtio", "file://", "file:// /a", "a\nb", "..", "a,b", "01:00:00:00:00:00", "UEFI", "q35")
    ),
    st.sampled_from(
        ("52:54:00:00:00:01", "52-54-0-0-0-2", "disk cdrom", "network,disk", "eth0", "&#10;", "&#x85;", "tête")
    ),
    st.text(st.characters(min_codepoint=32, codec="utf-8"), max_size=70).map(
        lambda text: escape(text, {'"': "&quot;"})
    ),
)


@st.composite
def misspelt(draw: st.DrawFn) -> bytes:
    """A file of the corpus, still well-formed as a rule, with other values and with lines that went astray."""
    data = draw(st.sampled_from(_WELL_FORMED))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_TEXT.finditer(data))
        lines = data.split(b"\n")
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(("value", "value", "value", "value", "delete", "repeat", "move"))):
            case "value" if places:
                place = draw(st.sampled_from(places))
                opening = 1 if place[0].startswith(b">") else 2
                value = draw(_VALUES).encode()
                data = data[: place.start() + opening] + value + data[place.end() - 1 :]
            case "delete":
                data = b"\n".join(lines[:line] + lines[line + 1 :])
            case "repeat":
                data = b"\n".join(lines[:line] + [lines[line]] * draw(st.integers(2, 40)) + lines[line + 1 :])
            case _:
                other = draw(st.integers(0, len(lines) - 1))
                lines[line], lines[other] = lines[other], lines[line]
                data = b"\n".join(lines)
    return data


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A file of the corpus after up to four small accidents to its bytes."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        match draw(st.sampled_from(("token", "delete", "repeat", "byte", "graft", "encode"))):
            case "token":
                data = data[:start] + draw(st.sampled_from(_TOKENS)) + data[end if draw(st.booleans()) else start :]
            case "delete":
                data = data[:start] + data[end:]
            case "repeat":
                data = data[:start] + data[start:end] * draw(st.integers(2, 50)) + data[end:]
            case "byte":
                data = data[:start] + bytes([draw(st.integers(0, 255))]) + data[start + 1 :]
            case "graft":
                other = draw(st.sampled_from(SEEDS))
                there = draw(st.integers(0, len(other)))
                data = data[:start] + other[there : there + 200] + data[end:]
            case _:
                codec = draw(st.sampled_from(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1")))
                data = data.decode("utf-8", "replace").encode(codec, "replace")
    return data


def judge(data: bytes) -> str:
    """'valid', or the kind of sentence that refused it. Raises whatever must never be raised."""
    before = time.process_time()
    try:
        return _load(data)
    except InvalidProfile as error:
        said = str(error)
        assert said.isprintable(), f"not one printable line: {said!r}"
        assert len(said) < 400, f"longer than anybody reads: {said}"
        assert error.line >= 1, said
        assert error.column >= 1, said
        return "malformed" if "not well-formed" in said else "invalid"
    finally:
        seconds = time.process_time() - before
        assert seconds < SECONDS, f"{seconds:.1f} s"


def _load(data: bytes) -> str:
    profiles = parse_any(data, "fuzz.xml")
    for install in (False, True):
        json.dumps(describe.to_json(profiles, describe.describe(profiles, install=install)))
    if isinstance(profiles, ClusterProfile):
        with suppress(ProfileError):  # e.g. its last node has no number
            profiles.resized(len(profiles.nodes) + 1)
    text = cluster_to_xml(profiles) if isinstance(profiles, ClusterProfile) else profiles_to_xml(profiles)
    assert parse_any(text, "again.xml") == profiles, "not the same after being written and read"
    return "valid"


def run(seconds: float, first_seed: int) -> Counter[str]:
    """Rounds until the time is over. Raises what the first bad file raised; hypothesis makes it small before."""
    kinds: Counter[str] = Counter()
    end, number = time.monotonic() + seconds, first_seed
    while time.monotonic() < end:

        @seed(number)
        @settings(
            max_examples=_ROUND,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(misspelt(), misspelt(), spoiled()))
        def one_round(data: bytes) -> None:
            kinds[judge(data)] += 1

        one_round()
        number += 1
    return kinds


def main() -> None:
    """Prints how many files of which kind there were; ends with status 1 at the first that was handled badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first round, to repeat it")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        kinds = run(options.seconds, options.seed)
    except Exception as error:  # whatever it is, it is the finding: hypothesis's notes have the file that did it
        print(f"FOUND: {type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n")
        sys.exit(1)
    print(
        f"{kinds.total()} files: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}; nothing found"
    )


if __name__ == "__main__":
    main()
