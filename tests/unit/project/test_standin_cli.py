"""The stand-in's command line, run for real in a throw-away root (see standin_root)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from demo.ports import LOOPBACK, accepts, free_port
from oscar_steps.oscar.answers.answers import AnswerKind, NodeAddress, render_answers
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.verdict import Stage
from oscar_steps.words import NodeBoot
from tests.unit.standin_root import COMMAND, FAULTS, STANDIN, TREE, Install, apply_fault

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay: root only")

GOOD = """\
== Running OSCAR install_cluster script    ...
--> Checking if this is a supported platform
--> Running: "cd /opt/oscar/scripts && ./wizard_prep"
== Running OSCAR wizard_prep script
--> Successfully ran OSCAR wizard_prep script
--> Successfully ran wizard_prep
== Prerequisites installed
--> OSCAR version: 5.1a1...
--> Command line invocation: ./install_cluster eth1
--> Hostname: headnode
--> DNS domain name: oscardomain
--> Network interface: eth1
--> Linux distribution: debian 12
--> Kernel version: ...
--> Architecture: x86_64
--> Running in directory: /opt/oscar
--> PATH: ...
--> Running: "./main_cli --opkgselector /root/farm/selector.txt ... eth1"
== Running OSCAR CLI Installer
--> Running command: ./selector_cli --file /root/farm/selector.txt
== Beginning the OSCAR Package Selector
--> Populating list of packages
--> List of packages
Package name no-such-thing not recognized
== Installing OSCAR Server Packages
--> Running command: /opt/oscar/scripts/install_server eth1
--> Finished server_prep script
== Packages Successfully Installed
--> Running command: ./build_oscar_image_cli --file /root/farm/build.txt eth1
== Build OSCAR Client Image
--> Identified distro of clients: debian 12
--> Distro repo: /tftpboot/distro/debian-12-x86_64
--> OSCAR repo: /tftpboot/oscar/common-debs,/tftpboot/oscar/debian-12-x86_64
--> Using RPM list: /opt/oscar/oscarsamples/debian-12-x86_64.rpmlist
--> Get configuration choices from user
--> Running in automated mode from /root/farm/build.txt
--> Image name: oscarimage
--> Disk Partition File: /opt/oscar/oscarsamples/scsi.disk
--> IP Assignment Method: bogus
--> Post Install Action: shutdown
--> Building Image...
Executing command: mksiimage -A --name oscarimage --location ... --filename=/tmp/oscar-install-rpmlist...
100 % [==========]Image build finished
Added Disk Table for oscarimage based on /opt/oscar/oscarsamples/scsi.disk
Ran si_mkautoinstallscript
--> Running: /opt/oscar/scripts/post_rpm_install oscarimage eth1
--> Successfully ran: /opt/oscar/scripts/post_rpm_install oscarimage eth1
--> Image build successfully
--> Successfully created image "oscarimage"
--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1
== Define OSCAR Clients
--> Running in automated mode from /root/farm/define.txt
--> Image Name: oscarimage
--> Gateway: 10.0.0.1
--> Running: ./post_clients
--> Successfully ran: ./post_clients
--> Completed successfully
== Running step 6 of the OSCAR wizard: Setup networking
Current client assignments:
--> Install mode: systemimager-rsync
--> Step 6: Successfully enabled installation mode: systemimager-rsync
--> Assigning MAC: 52:54:00:00:00:11 to client: oscarnode1
--> Assigning MAC: 52:54:00:00:00:12 to client: oscarnode2
--> Step 6: cleaning hostfile
About to run setup_dhcpd...
--> Step 6: Running command: mkdhcpconf -o /etc/dhcpd.conf --interface=eth1 --gateway=10.0.0.1
--> Step 6: Successfully ran command
--> Step 6: Restarting dhcpd service
--> Step 6: Successfully restarted dhcpd service
--> Step 6: Building AutoInstall CD: si_mkautoinstallcd --append "MONITOR_SERVER=10.0.0.1 MONITOR_CONSOLE=yes" ...
--> Step 6: Successfully built AutoInstall CD
--> Step 6: Setup network boot: ...
--> Step 6: Successfully setup network boot
--> Step 6: Completed successfully
--> Running script "/root/farm/barrier"
barrier in /opt/oscar/scripts
--> Script successful.  Continuing...
== Complete Cluster Setup
Gathering processor count from oscarnode1.
Updating database for machine oscarnode2 cpus=...
Cluster setup complete!
--> Successfully completed the cluster install
== Test Cluster Setup
Performing root tests...
--> Step 8 - Successfully tested the cluster setup
--> Successfully ran oscar_wizard
--> Successfully ran OSCAR install_cluster script
"""


def assert_in_order(wanted: str, text: str) -> None:
    """Each line of `wanted` stands in `text`, in this order; '...' stands for anything."""
    lines = iter(re.sub(r"\x08+", "", text).splitlines())
    for want in wanted.splitlines():
        pattern = re.compile(re.escape(want).replace(r"\.\.\.", ".*"))
        assert any(pattern.fullmatch(line) for line in lines), f"missing, or out of order: {want}\n\n{text}"


def verdicts(log: str) -> dict[str, str]:
    """Test lines as they are to be parsed: what follows the last return to column 1, without colours, cut to 21."""
    found = {}
    for line in log.splitlines():
        plain = re.sub(r"\x1b\[\d+m", "", line.rpartition("\x1b[1G")[2])
        if match := re.fullmatch(r"(.{21}) (.{21})\[(PASSED|FAILED|SKIPPED)\]", plain):
            found[match[1].strip()] = match[3]
    return found


def test_good_run_follows_the_reference_transcript(install: Install) -> None:
    ended = install()
    assert_in_order(GOOD, ended.log)
    assert ended.status == 0
    assert ended.log.rstrip().endswith("--> Successfully ran OSCAR install_cluster script")
    assert verdicts(ended.log) == dict.fromkeys(
        ("Cluster node check", "SSH ping test", "SSH server->node", "Parallel job (ssh)"), "PASSED"
    )
    assert "--> Setting env variable OSCAR_UI to cli" in ended.terminal
    assert "Checking your system..." not in ended.log


def test_good_run_leaves_what_the_nodes_need(install: Install) -> None:
    ended = install()
    clients = [line.split("\t") for line in (ended.out / "var/lib/sis/clients.tsv").read_text().splitlines()]
    assert [(c[0], c[2], c[6]) for c in clients] == [
        ("oscarnode1", "127.0.0.2", "52:54:00:00:00:11"),
        ("oscarnode2", "127.0.0.3", "52:54:00:00:00:12"),
    ]
    scripts = ended.out / "var/lib/systemimager/scripts"
    assert (scripts / "hosts").read_text() == "127.0.0.2 oscarnode1\n127.0.0.3 oscarnode2\n"
    hosts = (ended.out / "etc/hosts").read_text()
    assert "10.0.0.1\theadnode.oscardomain headnode oscar_server nfs_oscar pbs_oscar\n" in hosts
    assert "127.0.0.3\toscarnode2.oscardomain oscarnode2\n" in hosts
    assert (ended.out / "nodes/oscarnode2.hosts").read_text() == hosts
    image = ended.out / "var/lib/systemimager/images/oscarimage"
    assert (image / "etc/hosts").read_text() == hosts
    assert (image / "root/.ssh/authorized_keys").read_text() == (ended.out / "root/.ssh/id_ed25519.pub").read_text()
    assert "torque\t2" in (ended.out / "var/lib/oscar/selected").read_text()
    assert (ended.out / "etc/dhcp/dhcpd.conf").readlink() == Path("/etc/dhcpd.conf")


def test_second_run_keeps_the_first_log_under_a_number(install: Install) -> None:
    ended = install(f"{COMMAND} >/dev/null; {COMMAND}")
    assert_in_order(GOOD, (ended.home / "oscarinstall.log_1").read_text(encoding="utf-8"))
    assert "Machine exists: oscarnode1" in ended.log
    assert "Failed on Step 5 - Define OSCAR Clients at ./main_cli line" in ended.log
    assert ended.status != 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cd scripts; ../install_cluster --cli eth1", "Can't locate OSCAR/Logger.pm in @INC"),
        ("/opt/oscar/install_cluster --cli eth1", "Undefined subroutine &OSCAR::Env::carp called"),
        ("./install_cluster --cli eth9", "You tried to use: eth9."),
        ("./install_cluster --cli", "You tried to use: <None>."),
        ("USER=nobody ./install_cluster --cli eth1", "USER=(nobody) should be 'root'"),
        ("rm VERSION; ./install_cluster --cli eth1", "ERROR: OSCAR VERSION file missing at ./install_cluster line"),
        ("echo OSCAR_HOME=/else >/etc/profile.d/oscar_home.sh; ./install_cluster eth1", "different OSCAR install"),
    ],
)
def test_refusal_before_the_log_is_on_the_terminal_only(install: Install, command: str, said: str) -> None:
    ended = install(command)
    assert said in ended.terminal
    assert ended.status != 0
    assert not (ended.home / "oscarinstall.log").exists()


@pytest.mark.parametrize(
    ("prelude", "said"),
    [
        ("echo 9.13 >/etc/debian_version;", "ERROR: This is an unsupported system.\nCannot continue at ./install"),
        ("rm -rf /tftpboot;", "\nError: '/tftpboot' is gone! at ./install_cluster line"),
        ("rm /tftpboot/distro/*/*;", "looks empty!\nOscar Wizard preparation script failed to complete at"),
    ],
)
def test_head_node_that_cannot_be_used_is_refused_in_the_log(install: Install, prelude: str, said: str) -> None:
    ended = install(prelude=prelude)
    assert said in ended.log
    assert ended.status != 0


@pytest.mark.parametrize(
    ("release", "machine", "pool"),
    [
        ("11.7", "x86_64", "debian-11-x86_64"),
        ("12.11", "i386", "debian-12-i386"),
        ("forky/sid", "x86_64", "debian-14-x86_64"),
    ],
)
def test_each_debian_that_has_lists_is_installed_from_its_own_pool(
    install: Install, release: str, machine: str, pool: str
) -> None:
    distro = "/tftpboot/distro"
    move = f"[ {pool} = debian-12-x86_64 ] || mv {distro}/debian-12-x86_64 {distro}/{pool};"
    ended = install(f"setarch {machine} {COMMAND}", prelude=f"echo {release} >/etc/debian_version; {move}")
    assert f"si_installpkgs /opt/oscar/oscarsamples/{pool}.serverlist" in ended.commands()
    assert f"--> Distro repo: {distro}/{pool}\n" in ended.log
    assert ended.status == 0


def test_debian_without_a_number_and_with_two_pools_is_refused(install: Install) -> None:
    ended = install(prelude="echo forky/sid >/etc/debian_version; mkdir /tftpboot/distro/debian-14-x86_64;")
    assert "Failed Debian version support - (forky/sid)" in ended.log
    assert ended.status != 0


LOOPS = {
    "network file without 10": ({"network_txt": "4\n"}, "Current client assignments:\n"),
    "network file with CRLF": ({"network_txt": "10\r\n"}, "Current client assignments:\n"),
    "unknown install mode": ({"network_txt": "3\nrsync\n10\n"}, "--> Running in automated mode"),
    "unknown assignment method": ({"network_txt": "1\n/root/farm/macs.txt\nauto\n10\n"}, "--> Completed successfully"),
    "unknown image": (
        {"define_txt": "1\nother\n10\n"},
        "--> Running in automated mode from /root/farm/define.txt\nOSC",
    ),
    "no selector file": ({"selector_txt": None}, "File /root/farm/selector.txt not found!\nselector> "),
}


@pytest.mark.parametrize(("answers", "before"), LOOPS.values(), ids=LOOPS.keys())
def test_wrong_answers_loop_for_ever(install: Install, answers: dict[str, str | None], before: str) -> None:
    ended = install(**answers)
    assert before in ended.log
    assert "OSCAR_STANDIN_LOOP_LIMIT reached" in ended.log
    assert ended.status != 0


def test_without_bootscript_the_default_one_asks_for_ever(install: Install) -> None:
    ended = install(COMMAND.replace("--bootscript /root/farm/barrier ", ""))
    assert ended.log.count("* Before continuing, network boot all of your nodes.") == 50
    assert "OSCAR_STANDIN_LOOP_LIMIT reached" in ended.log


def test_missing_mac_file_shifts_the_answers_and_nothing_fails(install: Install) -> None:
    ended = install(macs_txt=None)
    assert_in_order("File /root/farm/macs.txt does not exist\nFile 8 does not exist", ended.log)
    assert "AutoInstall CD" not in ended.log
    assert ended.status == 0


def test_dhcp_before_the_mode_is_enabled_is_refused_and_nothing_fails(install: Install) -> None:
    ended = install(network_txt="6\n10\n")
    assert "Need to Enable Install Mode first" in ended.log
    assert ended.status == 0


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"barrier": "#!/bin/sh\nexit 3\n"}, "--> Script failed.  Exiting\nFailed to confirm client node boot before"),
        ({"build_txt": None}, "Can't open /root/farm/build.txt\nFailed on Step 4 - Build OSCAR Client Image at"),
        ({"define_txt": "4\n0\n10\n"}, "You must add at least one host!\nFailed on Step 5 - Define OSCAR Clients at"),
        ({"build_txt": "9\n8\n"}, "* You must build at least one image!  *"),
        ({"network_txt": None}, "Can't open the input file\nOscar Wizard failed to run successfully at ./"),
        ({"selector_txt": "\\q\n"}, "Force quit\nFailed on Step 1 - Select Packages at ./main_cli line"),
    ],
)
def test_failure_says_the_steps_own_words(install: Install, answers: dict[str, str | None], said: str) -> None:
    ended = install(**answers)
    assert said in ended.log
    assert re.search(r"^Oscar Wizard failed to run successfully at \./install_cluster line \d+\.$", ended.log, re.M)
    assert ended.status != 0


def test_without_term_there_is_no_test_result_and_nothing_fails(install: Install) -> None:
    ended = install(f"unset TERM; {COMMAND}")
    assert verdicts(ended.log) == {}
    assert "TERM not set" in ended.log
    assert ended.status == 0


DOES_NOT_COMPILE = {"main-cli-does-not-compile", "preflight-fails"}


def compiles(path: Path, home: Path) -> bool:
    """Whether Perl, or the shell, can read a script; what is neither cannot be wrong."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    perl = "perl" in first or path.suffix == ".pm"
    if not perl and "sh" not in first and path.parent.name != "installer" and path.suffix != ".template":
        return True
    file = f"./{path.relative_to(home)}"  # install_cluster wants to be called so
    command = ["perl", "-Ilib", "-c", file] if perl else ["sh", "-n", file]
    environment = os.environ | {"OSCAR_HOME": str(home)}
    return subprocess.run(command, cwd=home, env=environment, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_applies_to_the_tree_and_is_no_typing_error_unless_it_is_meant(name: str, tmp_path: Path) -> None:
    home = tmp_path / "tree"
    shutil.copytree(TREE, home)
    apply_fault(name, home)
    patch = (STANDIN / "faults" / f"{name}.patch").read_text(encoding="utf-8")
    touched = [home / file for file in re.findall(r"^\+\+\+ b/(\S+)", patch, re.M)]
    assert touched
    assert all(compiles(path, home) for path in touched) == (name not in DOES_NOT_COMPILE)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.passes])
def test_every_fault_names_a_stage_of_the_installer_its_words_and_its_line(name: str) -> None:
    fault = FAULTS[name]
    assert fault.words
    if fault.stage == Stage.CHECKOUT:  # seen in the sources, before the installer says a word
        assert not fault.oscar_stage
    else:
        assert InstallStage(fault.oscar_stage) in InstallStage
        assert fault.line


def test_every_patch_is_described() -> None:
    assert {path.stem for path in (STANDIN / "faults").glob("*.patch")} == set(FAULTS)


def test_failed_image_build_ends_its_step_with_0_and_shows_in_step_5(install: Install) -> None:
    ended = install(fault="image-build-fails")
    assert_in_order(
        """\
...Package install failed
100 % [==========]Image build finished
ERROR: Image oscarimage does not exist.
Couldn't run command mksidisk -A --name oscarimage ...
--> Failed building image "oscarimage"
--> Running command: ./define_oscar_clients_cli --file /root/farm/define.txt eth1
* You must build at least one image!  *
Failed on Step 5 - Define OSCAR Clients at ./main_cli line ...
Oscar Wizard failed to run successfully at ./install_cluster line ...""",
        ended.log,
    )
    assert "Failed on Step 4" not in ended.log


def test_failed_cluster_test_is_counted(install: Install) -> None:
    ended = install(fault="cluster-test-fails")
    assert verdicts(ended.log)["Parallel job (ssh)"] == "FAILED"
    assert "--> Failed to properly test the cluster setup\nFailed on Step 8 - Test Cluster Setup at" in ended.log
    assert ended.status != 0


FAULTY_LOGS = {
    "server-package-missing": "== Packages not Installed!",
    "post-clients-fails": "--> Successfully created clients for image oscarimage\nFailed on Step 5",
    "main-cli-does-not-compile": "syntax error at ./main_cli line",
    "installer-floods-its-log": "OSCAR_STANDIN_LOOP_LIMIT reached\nOscar Wizard failed",
    "zero-hosts": "You must add at least one host!\nFailed on Step 5 - Define OSCAR Clients at",
    "define-loops-silently": "--> Running in automated mode from /root/farm/define.txt\nOSCAR_STANDIN_LOOP_LIMIT",
    "hook-not-executable": 'Can\'t exec "/opt/oscar/tmp/bootscript": Permission denied at ./main_cli line',
}


@pytest.mark.parametrize(("fault", "said"), FAULTY_LOGS.items(), ids=FAULTY_LOGS.keys())
def test_fault_ends_the_installation_with_its_own_words(install: Install, fault: str, said: str) -> None:
    ended = install(fault=fault)
    assert said in ended.log
    assert ended.status != 0


def test_failed_system_check_leaves_no_log(install: Install) -> None:
    ended = install(fault="preflight-fails")
    assert "Failure: selinux-check.pl" in ended.terminal
    assert "ERROR: There are basic system configuration issues (see log)." in ended.terminal
    assert not (ended.home / "oscarinstall.log").exists()


MISSING_EVIDENCE = {
    "dhcp-fails-silently": "--> Step 6: Successfully ran command",
    "ends-without-evidence": "--> Successfully completed the cluster install",
    "pxe-fails-silently": "--> Step 6: Successfully setup network boot",
    "mac-file-not-found": "--> Assigning MAC: 52:54:00:00:00:11 to client: oscarnode1",
}


@pytest.mark.parametrize(("fault", "missing"), MISSING_EVIDENCE.items(), ids=MISSING_EVIDENCE.keys())
def test_silent_fault_shows_only_in_what_is_not_said(install: Install, fault: str, missing: str) -> None:
    ended = install(fault=fault)
    assert missing in GOOD
    assert missing not in ended.log
    assert "--> Successfully ran OSCAR install_cluster script" in ended.log
    assert ended.status == 0


NOT_COUNTED = {
    "pxe-fails-silently": r"^ at \S+ line \d+\.$",
    "mac-file-not-found": r"^File /opt/oscar//root/farm/macs\.txt does not exist$",
    "package-not-recognized": r"^Package name ganglia not recognized$",
    "term-missing": r"^TERM not set at ",
}


@pytest.mark.parametrize(("fault", "said"), NOT_COUNTED.items(), ids=NOT_COUNTED.keys())
def test_fault_that_is_not_counted_leaves_a_line(install: Install, fault: str, said: str) -> None:
    ended = install(fault=fault)
    assert re.search(said, ended.log, re.M), ended.log
    assert ended.status == 0


def test_without_term_no_test_tells_its_result(install: Install) -> None:
    assert verdicts(install(fault="term-missing").log) == {}


def test_log_at_the_new_place_is_complete(install: Install) -> None:
    ended = install(fault="log-at-the-new-place")
    assert_in_order(GOOD, (ended.out / "var/log/oscar/oscarinstall.log").read_text(encoding="utf-8"))
    assert "/var/log/oscar does not exist, we create it" in ended.terminal
    assert not (ended.home / "oscarinstall.log").exists()
    assert ended.status == 0


def test_log_in_the_later_format_says_the_same(install: Install) -> None:
    ended = install(fault="log-in-the-later-format")
    assert "-->" not in ended.log
    assert f"\n{'=' * 80}\n== Define OSCAR Clients\n{'=' * 80}\n-" in ended.log
    subsections = re.findall(r"^-+ (.*) -+$", ended.log, re.M)
    expected = [line.removeprefix("--> ") for line in GOOD.splitlines() if line.startswith("--> ")]
    assert_in_order("\n".join(expected), "\n".join(subsections))
    assert ended.status == 0


IP = r"""#!/bin/sh
echo '1: lo    inet 127.0.0.1/8 scope host lo\       valid_lft forever preferred_lft forever'
echo '2: eth0    inet 10.0.2.15/24 scope global eth0\       valid_lft forever preferred_lft forever'
echo '3: eth1    inet 10.0.0.1/24 scope global eth1\       valid_lft forever preferred_lft forever'
"""
OWN, OTHER = ("52:54:00:00:00:11", "10.0.0.2"), ("52:54:00:00:00:12", "10.0.0.3")


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        ("", [OWN, OTHER]),
        ("node-macs-swapped", [(OTHER[0], OWN[1]), (OWN[0], OTHER[1])]),
        ("dhcp-answers-nobody", []),
    ],
)
def test_dhcp_is_configured_for_the_nodes_that_are_known(
    fault: str, known: list[tuple[str, str]], tmp_path: Path
) -> None:
    home = tmp_path / "tree"
    shutil.copytree(TREE, home)
    if fault:
        apply_fault(fault, home)
    table = tmp_path / "clients.tsv"
    table.write_text("".join(
        f"oscarnode{n}\toscarnode{n}.oscardomain\t{address}\t255.255.255.0\t10.0.0.1\toscarimage\t{mac}\n"
        for n, (mac, address) in enumerate((OWN, OTHER), start=1)
    ))  # fmt: skip
    script = home / "sbin/mkdhcpconf"
    script.write_text(script.read_text(encoding="utf-8").replace("/var/lib/sis/clients.tsv", str(table)))
    (tmp_path / "ip").write_text(IP)
    (tmp_path / "ip").chmod(0o755)
    made = tmp_path / "dhcpd.conf"
    subprocess.run(
        ["perl", script, "-o", made, "--interface=eth1", "--gateway=10.0.0.1"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OSCAR_HOME": str(home)}, check=True,
    )  # fmt: skip
    text = made.read_text()
    assert re.findall(r"hardware ethernet (\S+);\n  fixed-address (\S+);", text) == known
    assert "subnet 10.0.0.0 netmask 255.255.255.0 {\n  option routers 10.0.0.1;" in text
    assert 'option domain-name "oscardomain";' in text


def clients_of(file: Path) -> dict[str, tuple[str, str]]:
    """MAC to host and status, as `clients.xml` has them; empty as long as it is not whole."""
    with suppress(FileNotFoundError, ElementTree.ParseError):
        clients = [client.attrib for client in ElementTree.parse(file).iter("client")]
        return {its["name"]: (its["host"], its["status"]) for its in clients}
    return {}


def test_the_monitor_keeps_the_last_word_of_every_node(tmp_path: Path) -> None:
    script, file, port = tmp_path / "si_monitor", tmp_path / "clients.xml", free_port()
    script.write_text((TREE / "sbin/si_monitor").read_text(encoding="utf-8").replace("$PAUSE = 5;", "$PAUSE = 1;"))
    monitor = subprocess.Popen(["perl", script, "--port", str(port), "--file", file])

    def say(text: str) -> None:
        with socket.create_connection((LOOPBACK, port), timeout=5) as node:
            node.sendall(text.encode())

    def wait_for(expected: dict[str, tuple[str, str]]) -> None:
        end = time.monotonic() + 10
        while clients_of(file) != expected and time.monotonic() < end:
            time.sleep(0.05)
        assert clients_of(file) == expected

    try:
        while not accepts(port):
            assert monitor.poll() is None
            time.sleep(0.02)
        silent = socket.create_connection((LOOPBACK, port))  # a node that died in the middle of its line
        silent.sendall(b"mac=52.54")
        say("mac=nonsense:status=3\n")
        say("mac=52.54.00.00.00.11:ip=10.0.0.2:host=:cpu=A & B <C>:status=0:speed=0\n")
        wait_for({"52.54.00.00.00.11": ("", "0")})
        say("mac=52.54.00.00.00.11:ip=10.0.0.2:host=oscarnode1:status=47:speed=9000\n")
        say("mac=52.54.00.00.00.1f:ip=10.0.0.3:host=oscarnode2:status=-1")  # without the line's end
        wait_for({"52.54.00.00.00.11": ("oscarnode1", "47"), "52.54.00.00.00.1F": ("oscarnode2", "-1")})
        silent.close()
    finally:
        monitor.kill()
        monitor.wait()


def test_failed_login_to_the_first_node_is_shown_and_not_counted(install: Install) -> None:
    ended = install(fault="uncounted-test-fails")
    assert verdicts(ended.log)["SSH server->node"] == "FAILED"
    assert ended.status == 0


def test_node_that_does_not_answer_fails_the_counted_tests(install: Install) -> None:
    ended = install(prelude="echo 'exit 255' >/usr/local/sbin/ssh;")
    assert "Improper count (0) returned from machine oscarnode2" in ended.log
    assert "Couldn't push /etc/hosts to all nodes" in ended.log
    assert verdicts(ended.log)["Cluster node check"] == "FAILED"
    assert "Failed on Step 8 - Test Cluster Setup" in ended.log


def test_clilog_of_an_interactive_stage_keeps_the_menu_as_a_comment(install: Install) -> None:
    command = COMMAND.replace("--buildimage /root/farm/build.txt ", "")
    ended = install(f"printf '5\\n/opt/oscar/oscarsamples/scsi.disk\\n6\\nbogus\\n8\\n' | {command}")
    (recording,) = (ended.home / "tmp").glob("build.*.clilog")
    lines = recording.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#1)  Image name:  oscarimage")
    assert [line for line in lines if not line.startswith("#")][:2] == ["5", "/opt/oscar/oscarsamples/scsi.disk"]
    assert '--> Successfully created image "oscarimage"' in ended.log


@pytest.mark.parametrize(("count", "boot"), [(1, "cdrom"), (2, "network"), (16, "cdrom")])
def test_the_answers_that_the_farm_makes_lead_to_a_good_end_with_each_node_in_its_place(
    install: Install, count: int, boot: NodeBoot
) -> None:
    nodes = [NodeAddress(f"oscarnode{n}", f"52:54:00:00:01:{251 - 7 * n:02X}") for n in range(1, count + 1)]
    made = render_answers(
        nodes=nodes, boot=boot, image_name="oscarimage", partition_file="oscarsamples/scsi.disk",
        ip_assignment="static", post_install_action="reboot", install_mode="systemimager-rsync", domain="oscardomain",
        base_name="oscarnode", starting_number=1, padding=0, head_address="127.0.0.1", first_address="127.0.0.2",
        netmask="255.255.255.0", selector=("unselect ganglia",),
    )  # fmt: skip
    answers = {kind.path().rpartition("/")[2].replace(".", "_"): made.files[kind.path()] for kind in AnswerKind}
    words = [word.replace("/hook", "/barrier") for word in made.arguments]
    many = "OSCAR_STANDIN_LOOP_LIMIT=500"  # the table is shown before each of the answers
    ended = install(shlex.join(["./install_cluster", *words]), extra=many, **answers)
    assert ended.status == 0, ended.terminal
    assigned = re.findall(r"Assigning MAC: (\S+) to client: (\S+)", ended.log)
    assert assigned == [(node.mac, node.name) for node in nodes]
    called = [command.split()[0] for command in ended.commands()]
    assert ("si_mkautoinstallcd" in called, "si_setup_pxe" in called) == (boot == "cdrom", boot == "network")
    assert "barrier in /opt/oscar/scripts" in ended.log
