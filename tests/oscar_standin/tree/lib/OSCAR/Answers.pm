package OSCAR::Answers;

# Where a stage's answers come from: a file, or somebody at the terminal, whose lines are then recorded.

use strict;
use warnings;
use OSCAR::Guard;

# A file that cannot be read is the one clean failure of the builder and of the definition of clients.
sub from_file {
    my ($class, $path) = @_;
    open(my $in, '<', $path) or die "Can't open $path\n";
    return bless { in => $in, automated => 1 }, $class;
}

# RECORDING is tmp/STAGE.PID.clilog; KEY is the menu, kept in it as a comment.
sub from_terminal {
    my ($class, $recording, $key) = @_;
    open(my $out, '>', $recording) or die "Can't open $recording\n";
    select((select($out), $| = 1)[0]);
    print $out $key =~ s/^> *\z//mr =~ s/^/#/mgr;    # without the prompt
    return bless { in => \*STDIN, out => $out, automated => 0 }, $class;
}

sub automated { return $_[0]{automated} }

sub _raw {
    my ($self) = @_;
    my $line = readline($self->{in});
    return undef unless defined $line;
    $line =~ s/\n\z//;
    print { $self->{out} } "$line\n" if $self->{out};
    return $line;
}

# The next menu number: comments and empty lines of a file are skipped. undef at the end of a file; at the end of the
# terminal's input the empty string, for ever.
sub choice {
    my ($self, $menu) = @_;
    if (!$self->{automated}) {
        spin();
        print $menu;
        return $self->_raw() // '';
    }
    while (defined(my $line = $self->_raw())) {
        return $line if $line && $line !~ /^#/;
    }
    return undef;
}

# The value after a number: the very next line, whatever it is.
sub value {
    my ($self, $prompt) = @_;
    print $prompt unless $self->{automated};
    return $self->_raw() // '';
}

1;
