package OSCAR::SISDB;

# The database of images and clients. In the original a set of database tables, here two text files below /var/lib/sis:
# clients.tsv (NAME FQDN IP NETMASK GATEWAY IMAGE MAC, tab separated, '-' for no MAC) and install_mode.

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(list_images list_clients save_clients get_install_mode set_install_mode);

my $DIR     = '/var/lib/sis';
my $IMAGES  = '/var/lib/systemimager/images';
my @COLUMNS = qw(name fqdn ip netmask gateway image mac);

# Names of the images that are complete enough to have an autoinstall script.
sub list_images {
    my @names = map { m{([^/]+)\.master$} ? $1 : () } glob('/var/lib/systemimager/scripts/*.master');
    return sort grep { -d "$IMAGES/$_" } @names;
}

# Clients in the order in which they were defined.
sub list_clients {
    open(my $in, '<', "$DIR/clients.tsv") or return;
    my @clients;
    while (my $line = <$in>) {
        chomp $line;
        next if $line eq '' || $line =~ /^#/;
        my %client;
        @client{@COLUMNS} = split /\t/, $line;
        push @clients, \%client;
    }
    return @clients;
}

sub _replace {
    my ($file, $text) = @_;
    mkdir $DIR unless -d $DIR;
    open(my $out, '>', "$file.new") or die "Could not write $file.new: $!";
    print $out $text;
    close($out) && rename("$file.new", $file) or die "Could not write $file: $!";
}

sub save_clients {
    my (@clients) = @_;
    _replace("$DIR/clients.tsv", join('', map { my $c = $_; join("\t", map { $c->{$_} // '-' } @COLUMNS) . "\n" } @clients));
}

sub get_install_mode {
    open(my $in, '<', "$DIR/install_mode") or return 'systemimager-rsync';
    my $mode = <$in>;
    chomp $mode;
    return $mode;
}

sub set_install_mode {
    my ($mode) = @_;
    _replace("$DIR/install_mode", "$mode\n");
}

1;
