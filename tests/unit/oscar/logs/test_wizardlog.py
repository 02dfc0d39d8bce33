"""The second flavour: what its terminal tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.oscar.failure import Failure
from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.oscar.logs.installlog import EventKind, InstallResult
from oscar_steps.oscar.logs.wizardlog import WizardLog
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.testdriver.record.rejudge import judge
from oscar_steps.testdriver.wanted import Wanted

BEFORE = {
    "preflight": ["@@farm-step preflight", "@@farm-needs dbtool, imager", "make: Entering directory '/opt/oscar'"],
    "platform": ["@@farm-step platform", "[INFO - oscar-config] debian-12-x86_64 successfully set up."],
    "wizard_prep": ["@@farm-step wizard_prep", "[INFO - oscar-config] Checking bootstrap-sanity..."],
    "select": ["[INFO - oscar-config] Successfully bootstrapped OSCAR", "", "@@farm-step select"],
}
FRAME = "=" * 80


def failed(stage: str, *lines: str, status: int = 1, needs: bool = True) -> tuple[Failure, WizardLog]:
    log = WizardLog()
    for name, before in BEFORE.items():
        for line in before:
            if needs or not line.startswith("@@farm-needs"):
                log.feed(line)
        if name == stage:
            break
    for line in lines:
        log.feed(line)
    return log.conclude(status), log


def check_lines(name: str, said: str) -> list[str]:
    return ["", FRAME, f"[FAILED TEST] {name}", "=> Unexpected return code: 1", "=> Unexpected stdout:", said]


NO_DISPLAY = check_lines(
    "display_check.apt",
    "' ------\\n ERROR: Your \"DISPLAY\" environment variable is not set,\\n probably\\n ------\\n'",
)


@pytest.mark.parametrize(
    "lines",
    [
        NO_DISPLAY,
        ['couldn\'t connect to display ":0" at /usr/lib/perl5/Tk/MainWindow.pm line 55.'],
        ["no display name and no $DISPLAY environment variable at /usr/lib/perl5/Tk/MainWindow.pm line 55."],
    ],
)
def test_a_wizard_that_asks_for_a_screen_is_told_as_that_and_is_nobodys_failure(lines: list[str]) -> None:
    failure, log = failed("select", *lines, "------ Please fix error(s) before retrying. ------")
    assert failure.sentence.startswith("from here on this OSCAR needs a screen: `oscar_wizard install` opens a window")
    assert failure.category == "answers"
    assert any("display" in line.lower() for line in failure.lines)
    results = log.results(failure)
    assert [stage for stage, result in results.items() if result is InstallResult.PASSED] == [
        InstallStage.PREFLIGHT, InstallStage.PLATFORM, InstallStage.WIZARD_PREP,
    ]  # fmt: skip
    assert set(list(results.values())[3:]) == {InstallResult.NOT_REACHED}


def test_other_checks_that_fail_beside_the_screen_are_the_reason_and_all_are_named() -> None:
    failure, log = failed(
        "select",
        *check_lines("hostname_check.apt", "' ---\\n ERROR: no IP for the hostname (head) \\n -------\\n'"),
        *check_lines("ssh_config.apt", "\" ---\\n  Option PermitRootLogin in /etc/sshd should be 'yes'\\n\""),
        *NO_DISPLAY,
    )
    assert failure.sentence == (
        "OSCAR's wizard did not start (oscar_wizard install): checks of the head node failed: "
        "hostname_check.apt (no IP for the hostname (head)), "
        "ssh_config.apt (Option PermitRootLogin in /etc/sshd should be 'yes')"
    )
    assert failure.category == "farm"
    assert log.results(failure)[InstallStage.SELECT] is InstallResult.FAILED


def test_a_check_that_crashed_is_oscars_own() -> None:
    crash = ["", FRAME, "[FAILED TEST] hostname_check.apt", "=> Unexpected stderr:", "'syntax error at t.pl line 3'"]
    failure, _ = failed("wizard_prep", *crash)
    assert failure.category == "oscar"
    assert "hostname_check.apt" in failure.sentence


LOCATE = "Can't locate {}.pm in @INC (you may need to install the X module) (@INC contains: /etc/perl) at {} line 35."
BEGIN = "BEGIN failed--compilation aborted at /usr/share/perl5/OSCAR/Package.pm line 35."


@pytest.mark.parametrize(
    ("module", "package"),
    [("OSCAR/Database", "oda"), ("SystemInstaller/Tk/Common", "systeminstaller-oscar"), ("Tk", "perl-tk")],
)
def test_a_module_of_another_package_is_named_with_the_package_that_nobody_brought(module: str, package: str) -> None:
    failure, _ = failed("wizard_prep", LOCATE.format(module, "/usr/share/perl5/OSCAR/Package.pm"), BEGIN, status=2)
    assert failure.sentence == (
        f"OSCAR could not prepare the head node (oscar-config --bootstrap): {module}.pm is missing "
        f"(/usr/share/perl5/OSCAR/Package.pm line 35): the package {package} has it, and no repository was named"
    )
    assert failure.category == "answers"
    assert "dbtool, imager" in failure.hint


def test_with_a_repository_a_missing_module_is_a_missing_dependency_of_oscars_packages() -> None:
    failure, _ = failed("wizard_prep", LOCATE.format("OSCAR/Database", "x.pm"), BEGIN, needs=False)
    assert failure.category == "oscar"
    assert failure.sentence.endswith("the package oda has it, and nothing has installed it")


def test_a_module_of_the_tree_itself_is_oscars_with_or_without_a_repository() -> None:
    for needs in (True, False):
        failure, _ = failed("wizard_prep", LOCATE.format("OSCAR/Gone", "x.pm"), BEGIN, needs=needs)
        assert failure.category == "oscar"
        assert "OSCAR/Gone.pm is missing (x.pm line 35)" in failure.sentence


def test_a_program_that_says_itself_which_module_it_needs_is_understood() -> None:
    said = "ERROR: oscar-config needs perl AppConfig module."
    failure, _ = failed("platform", said, "       Install perl(AppConfig) and retry.")
    assert "AppConfig.pm is missing: the package libappconfig-perl has it" in failure.sentence
    assert failure.category == "answers"


def test_the_first_death_counts_and_neither_warnings_before_it_nor_those_who_died_of_it() -> None:
    failure, _ = failed(
        "wizard_prep",
        "Missing argument in sprintf at /usr/share/perl5/SIS/Image.pm line 28.",
        "Subroutine name redefined at /usr/share/perl5/OSCAR/None.pm line 37.",
        'syntax error at /usr/share/perl5/OSCAR/Opkg.pm line 12, near "}"',
        'Global symbol "$lisst" requires explicit package name at /usr/share/perl5/OSCAR/Opkg.pm line 14.',
        "Compilation failed in require at /usr/share/perl5/OSCAR/Bootstrap.pm line 45.",
        "BEGIN failed--compilation aborted at /usr/share/perl5/OSCAR/Bootstrap.pm line 45.",
        status=255,
    )
    assert failure.sentence == (
        "OSCAR could not prepare the head node (oscar-config --bootstrap): "
        'syntax error, near "}" (/usr/share/perl5/OSCAR/Opkg.pm line 12)'
    )
    assert failure.category == "oscar"


def test_a_death_that_overtakes_what_oscar_said_before_it_is_still_the_reason() -> None:
    failure, _ = failed(
        "wizard_prep",
        "Use of uninitialized value $x in string at /usr/share/perl5/OSCAR/A.pm line 3.",
        "Undefined subroutine &OSCAR::Opkg::instal called at /usr/share/perl5/OSCAR/Bootstrap.pm line 330.",
        "[INFO - oscar-config] Verbosity: 5",
        FRAME,
        "== Bootstrapping OSCAR",
        FRAME,
        "[INFO - oscar-config] Checking bootstrap-sanity...",
        status=255,
    )
    assert failure.sentence.endswith(
        "Undefined subroutine &OSCAR::Opkg::instal called (/usr/share/perl5/OSCAR/Bootstrap.pm line 330)"
    )


def test_of_several_deaths_the_last_counts_for_oscar_survived_the_others() -> None:
    failure, _ = failed(
        "wizard_prep",
        "Failed to save the defaults at /usr/share/perl5/SystemImager/JConfig.pm line 106.",
        "[INFO - oscar-config] Checking bootstrap-sanity...",
        "a list could not be read at /usr/share/perl5/OSCAR/Env.pm line 9.",
        "Undefined subroutine &OSCAR::Opkg::instal called at /usr/share/perl5/OSCAR/Bootstrap.pm line 330.",
        status=255,
    )
    assert "&OSCAR::Opkg::instal called" in failure.sentence


def test_what_the_database_said_goes_before_the_program_that_died_of_it() -> None:
    failure, _ = failed(
        "wizard_prep",
        "ERROR 1133 (28000) at line 1: Can't find any matching row in the user table",
        "====> cannot create the database at /usr/bin/prepare line 139.",
        "ERROR: Impossible to initialize it",
        "[ERROR - oscar-config] Unable to bootstrap OSCAR",
    )
    assert failure.sentence == (
        "OSCAR could not prepare the head node (oscar-config --bootstrap): ERROR 1133 (28000) at line 1: Can't find "
        "any matching row in the user table; OSCAR said: cannot create the database (/usr/bin/prepare line 139)"
    )


def test_the_first_of_the_last_errors_is_the_reason_and_what_oscar_survived_is_not() -> None:
    failure, _ = failed(
        "wizard_prep",
        "[ERROR - oscar-config] a list could not be written",
        "[INFO - oscar-config] Installing rapt",
        "[ERROR - install_prereq] Impossible to install rapt (/usr/bin/install_prereq --dumb rapt).",
        "[ERROR - oscar-config] Failed to complete stage 1 of the bootstrap.",
        "[ERROR - oscar-config] Unable to bootstrap OSCAR",
    )
    assert failure.sentence == (
        "OSCAR could not prepare the head node (oscar-config --bootstrap): "
        "Impossible to install rapt (/usr/bin/install_prereq --dumb rapt)."
    )


def test_what_apt_said_below_an_error_explains_it_and_no_repository_is_no_commits_fault() -> None:
    lines = [
        "[INFO - install_prereq] Installing packman",
        "Err:1 http://deb.debian.org/debian bookworm InRelease",
        "  Temporary failure resolving 'deb.debian.org'",
        "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb'",
        "E: Unable to locate package packman",
        "[ERROR - install_prereq] Impossible to install the prereqs",
        "[ERROR - oscar-config] packman installation failed.",
        "[ERROR - oscar-config] Unable to bootstrap OSCAR",
    ]
    failure, _ = failed("wizard_prep", *lines)
    assert "packman" in failure.sentence.partition("; OSCAR said")[0]
    assert "resolving" not in failure.sentence
    assert failure.sentence.endswith("OSCAR said: packman installation failed.")
    assert failure.category == "answers"
    failure, _ = failed("wizard_prep", *lines, needs=False)
    assert failure.category == "oscar"


def test_an_unsupported_distribution_is_named_with_the_file_that_lists_them() -> None:
    failure, _ = failed(
        "platform", "[ERROR - oscar-config] Unsupported distro (debian-12-x86_64)", "Supported distros:"
    )
    assert failure.sentence == (
        "OSCAR could not set up the distribution (oscar-config --setup-distro): "
        "debian-12-x86_64 is not among the distributions in share/etc/supported_distros.txt"
    )
    assert failure.category == "answers"  # the same for every commit of that time: nobody's fault who commits


def test_where_make_stopped_is_told_with_the_line_before_it() -> None:
    failure, _ = failed(
        "preflight",
        "install: cannot stat 'oscar_gone': No such file or directory",
        "make[1]: *** [Makefile:17: install] Error 1",
        "make: *** [Makefile:110: install] Error 2",
        status=2,
    )
    assert failure.sentence == (
        "OSCAR's own files could not be installed (make install): install: cannot stat 'oscar_gone': "
        "No such file or directory (make[1]: *** [Makefile:17: install] Error 1)"
    )
    assert failure.stage is InstallStage.PREFLIGHT
    assert failure.lines[-1] == "make: *** [Makefile:110: install] Error 2"


@pytest.mark.parametrize(
    ("said", "told", "category"),
    [
        (
            ["W: Failed to fetch http://10.0.2.2/oscar/dists/x/InRelease  Could not connect",
             " satisfy:command-line : Depends: oda but it is not installable"],
            "W: Failed to fetch http://10.0.2.2/oscar/dists/x/InRelease Could not connect", "answers",
        ),
        (
            [" satisfy:command-line : Depends: odda but it is not installable"],
            "debian/control : Depends: odda but it is not installable", "oscar",
        ),
        (
            [" libxml-simple-perl : Depends: libxml-libxml-perl but it is not installable or"],
            "libxml-simple-perl : Depends: libxml-libxml-perl but it is not installable or", "answers",
        ),
        (["E: Could not get lock /var/lib/dpkg/lock-frontend."], "E: Could not get lock", "answers"),
    ],
)  # fmt: skip
def test_packages_that_could_not_be_installed_first_are_oscars_only_where_its_control_file_is_wrong(
    said: list[str], told: str, category: str
) -> None:
    lines = ["@@farm-depends", *said, "E: Unable to correct problems, you have held broken packages."]
    failure, _ = failed("preflight", *lines, status=100, needs=False)
    head = "OSCAR's own files could not be installed (make install): what they depend on could not be installed first: "
    assert failure.sentence.startswith(head + told)
    assert failure.category == category
    failure, _ = failed("preflight", *lines[:1], "@@farm-depends there", "make: *** No rule", status=2, needs=False)
    assert "depend on" not in failure.sentence


def test_an_error_that_make_lost_in_a_loop_is_not_the_one_that_ended_it() -> None:
    failure, _ = failed(
        "preflight",
        "cp: cannot stat 'linux*': No such file or directory",
        "make[4]: *** [Makefile:14: install] Error 1",
        "make[4]: Leaving directory '/opt/oscar/boot'",
        "make[1]: Entering directory '/opt/oscar/rpm'",
        "sed: unterminated `s' command",
        "make[1]: *** [Makefile:41: oscar.list] Error 1",
        "make[1]: Leaving directory '/opt/oscar/rpm'",
        "make: *** [Makefile:119: install] Error 2",
        "make: Leaving directory '/opt/oscar'",
        status=2,
    )
    assert failure.sentence == (
        "OSCAR's own files could not be installed (make install): sed: unterminated `s' command "
        "(make[1]: *** [Makefile:41: oscar.list] Error 1)"
    )


def test_what_make_lost_is_no_context_of_a_failure_that_has_nothing_to_do_with_it() -> None:
    log = WizardLog()
    for line in [
        "@@farm-step preflight",
        "cp: cannot stat 'linux*': No such file or directory",
        "make[4]: *** [Makefile:14: install] Error 1",
        "@@farm-step platform",
        "[ERROR - oscar-config] Unsupported distro (debian-12-x86_64)",
    ]:
        log.feed(line)
    assert "linux*" not in log.conclude(1).sentence


def test_a_file_that_a_loop_of_make_went_on_without_is_told_where_it_is_missed() -> None:
    log = WizardLog()
    for line in [
        "@@farm-step preflight",
        "install: cannot stat 'Prereqs.pm': No such file or directory",
        "make[2]: *** [Makefile:34: install] Error 1",
        "make: Leaving directory '/opt/oscar'",
        "@@farm-step platform",
        LOCATE.format("OSCAR/Prereqs", "/usr/bin/oscar-config"),
    ]:
        log.feed(line)
    assert log.conclude(2).sentence == (
        "OSCAR could not set up the distribution (oscar-config --setup-distro): OSCAR/Prereqs.pm is missing "
        "(/usr/bin/oscar-config line 35): a file of OSCAR's own tree by its name; before that, while installing its "
        "own files (make install): install: cannot stat 'Prereqs.pm': No such file or directory "
        "(make[2]: *** [Makefile:34: install] Error 1)"
    )


@pytest.mark.parametrize("death", ["Prototype not terminated", "Use of bare << is forbidden"])
def test_a_death_that_begins_like_a_warning_is_no_warning(death: str) -> None:
    failure, _ = failed("wizard_prep", f"{death} at /usr/share/perl5/OSCAR/Opkg.pm line 144.", BEGIN, status=255)
    assert failure.sentence.endswith(f"{death} (/usr/share/perl5/OSCAR/Opkg.pm line 144)")


def test_a_program_that_make_did_not_install_is_named() -> None:
    failure, _ = failed("preflight", "/usr/bin/oscar-config", "@@farm-not-there oscar_wizard")
    assert failure.sentence.endswith("it ended with status 0, but did not install the program oscar_wizard")


@pytest.mark.parametrize("status", [0, 1, None])
def test_no_end_of_this_flavour_is_ever_good(status: int | None) -> None:
    log = WizardLog()
    for before in BEFORE.values():
        for line in before:
            log.feed(line)
    failure = log.conclude(status)
    assert failure.sentence.startswith("OSCAR's wizard did not start (oscar_wizard install): it ended")
    assert WizardLog().conclude(status).sentence.endswith("without a message")


def test_a_wizard_that_ends_well_without_a_window_is_told_with_its_status() -> None:
    failure, _ = failed("select", "[INFO - oscar_wizard] nothing to do", status=0)
    assert failure.sentence.endswith("it ended with status 0; it last said '[INFO - oscar_wizard] nothing to do'")


def test_one_that_comes_to_no_end_is_told_by_its_step_and_last_line() -> None:
    log = WizardLog()
    for line in [*BEFORE["preflight"], *BEFORE["platform"], *BEFORE["wizard_prep"], "Do you want to continue? [Y/n]"]:
        log.feed(line)
    failure = log.hung(300)
    assert failure.hung
    assert failure.sentence == (
        "OSCAR's installer has been silent for 300 s while preparing the head node (oscar-config --bootstrap); "
        "it last said 'Do you want to continue? [Y/n]'"
    )
    assert log.results(failure)[InstallStage.WIZARD_PREP] is InstallResult.HUNG


def test_a_loop_is_told_by_the_line_that_it_repeats_and_says_nothing_new() -> None:
    log = WizardLog()
    log.feed("@@farm-step preflight")
    log.feed("waiting for the lock")
    seen = log.news
    for _ in range(5000):
        log.feed("waiting for the lock")
    assert log.news == seen
    assert log.repeating(300).sentence.endswith("it repeats 'waiting for the lock'")
    assert len(log.repeating(300).lines) <= 40


def test_a_question_for_a_password_that_nobody_answers_is_certain_long_before_the_log_is_full() -> None:
    log = WizardLog()
    for line in [*BEFORE["preflight"][:1], *BEFORE["platform"], *BEFORE["wizard_prep"]]:
        log.feed(line)
    log.feed("E: Package 'mysql-client' has no installation candidate")
    log.feed("[ERROR - oda] Impossible to install oda")
    failures = []
    for _ in range(1000):
        events = (
            *log.feed("Enter your root password: "),
            *log.feed("The password is not correct!!! Please try it again."),
        )
        failures += [event.failure for event in events if event.kind is EventKind.CERTAIN_FAILURE]
    assert len(failures) == 1
    assert failures[0] is not None
    assert failures[0] == log.conclude(None)
    assert failures[0].hung
    assert failures[0].sentence.startswith(
        "OSCAR could not prepare the head node (oscar-config --bootstrap): it asks for the root password of the "
        "database although nobody is there to answer; before that it said: "
    )
    assert "mysql-client" in failures[0].sentence
    assert failures[0].lines[0].startswith("@@farm-step wizard_prep") or "Checking" in failures[0].lines[0]


def test_stages_are_events_once_each_and_subsections_tell_how_it_gets_on() -> None:
    log = WizardLog()
    title = " Running bootstrap stage 1 "
    events = [
        event
        for line in ["@@farm-step preflight", "@@farm-step preflight", "@@farm-step nowhere", title.center(80, "-")]
        for event in log.feed(line)
    ]
    assert [(event.kind, event.text) for event in events] == [
        (EventKind.STAGE_STARTED, "installing its own files (make install)"),
        (EventKind.NOTE, "Running bootstrap stage 1"),
    ]


@pytest.mark.parametrize(
    "junk",
    [
        "\x1b[31m",
        "[FAILED TEST] ",
        "=> Unexpected stdout:",
        "@@farm-step \udcff",
        "Can't locate .pm in @INC",
        "x" * 9000,
    ],
)
def test_hostile_lines_make_no_trouble(junk: str) -> None:
    failure, _ = failed("wizard_prep", *[junk] * 50)
    assert failure.sentence.startswith("OSCAR could not prepare the head node")
    assert len(failure.sentence) < 1000


def test_the_terminal_of_an_archived_run_is_judged_by_the_same_reader(tmp_path: Path) -> None:
    terminal = tmp_path / "installer" / "terminal.log"
    terminal.parent.mkdir()
    lines = [line for before in BEFORE.values() for line in before] + NO_DISPLAY + ["", "@@farm-installer-ended 1"]
    terminal.write_text("\n".join(lines) + "\n")
    wanted = Wanted(nodes=2, boot="cdrom", image="oscarimage", flavour=FlavourName.OSCAR_WIZARD)
    judgement = judge(tmp_path, wanted, "/opt/oscar", {})
    assert judgement is not None
    assert judgement.failure is not None
    assert "needs a screen" in judgement.failure.sentence
