package OSCAR::OpkgDB;

# Which packages there are (packages/packages.list) and which are selected. In the original a database, here the text
# file /var/lib/oscar/selected: name, tab, status (1 unselected, 2 selected).

use strict;
use warnings;
use base qw(Exporter);
our @EXPORT = qw(all_packages selected_packages package_status set_package_status set_default_package_set);

my $DIR  = '/var/lib/oscar';
my $FILE = "$DIR/selected";

# name => { class, version, requires => [], conflicts => [] }
sub all_packages {
    my %packages;
    open(my $in, '<', "$ENV{OSCAR_HOME}/packages/packages.list") or die 'ERROR: Impossible to read the list of packages';
    while (my $line = <$in>) {
        next if $line =~ /^(#|\s*$)/;
        my ($name, $class, $version, @lists) = split ' ', $line;
        my ($requires, $conflicts) = map { $_ eq '-' ? [] : [ split /,/ ] } @lists;
        $packages{$name} = { class => $class, version => $version, requires => $requires, conflicts => $conflicts };
    }
    return \%packages;
}

sub package_status {
    open(my $in, '<', $FILE) or return {};
    return { map { chomp; split /\t/ } <$in> };
}

sub set_package_status {
    my ($status) = @_;
    mkdir $DIR unless -d $DIR;
    open(my $out, '>', "$FILE.new") or die "Could not write $FILE.new: $!";
    print $out map { "$_\t$status->{$_}\n" } sort keys %$status;
    close($out) && rename("$FILE.new", $FILE) or die "Could not write $FILE: $!";
}

sub selected_packages {
    my $status = package_status();
    return sort grep { $status->{$_} == 2 } keys %$status;
}

# Select the distribution's default set, unless something has been selected already. False where there is no such set.
sub set_default_package_set {
    my ($os) = @_;
    return 1 if -e $FILE;
    my $set = "$ENV{OSCAR_HOME}/share/package_sets/Default/$os->{distro}-$os->{version}-$os->{arch}.xml";
    open(my $in, '<', $set) or do {
        print "ERROR: Impossible to read the package set ($set)\n";
        return 0;
    };
    set_package_status({ map { m{<opkg>(\S+)</opkg>} ? ($1 => 2) : () } <$in> });
    return 1;
}

1;
