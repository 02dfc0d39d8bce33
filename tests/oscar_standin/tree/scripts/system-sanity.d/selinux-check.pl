#!/usr/bin/perl
use strict;
use warnings;

my $tool = '/usr/sbin/selinuxenabled';
exit 0 unless -x $tool && system($tool) == 0;
print "SELinux is enabled, please deactivate it editing /etc/selinux/config\n";
exit 255;
