#!/usr/bin/perl
# What a program does with libvirt's Perl binding: perl.pl URI KERNEL DIRECTORY. As python.py, in short.
use strict; use warnings;
use Sys::Virt; use Sys::Virt::Domain; use Sys::Virt::StoragePool; use Sys::Virt::StorageVol; use Sys::Virt::Stream; use Sys::Virt::Error; use Sys::Virt::Event;
$| = 1;
my ($uri, $kernel, $directory) = @ARGV;
my ($name, $pool_name) = ("bindings-pl", "bindings-pl-pool");
my $path = "$directory/$pool_name";
sub did { print join(" ", map { defined $_ ? $_ : "undef" } @_), "\n"; }
sub check { my ($ok, $what) = @_; die "failed: $what\n" unless $ok; }
sub hash { my $h = shift; join(",", map { "$_=" . (defined $h->{$_} ? $h->{$_} : "undef") } sort keys %$h); }
Sys::Virt::Event::register_default();
my $c = Sys::Virt->new(uri => $uri);
did("connected:", $c->get_uri, $c->get_type, $c->get_version, $c->get_library_version, $c->get_hostname);
did("host:", hash($c->get_node_info), hash($c->get_node_cpu_stats), hash($c->get_node_memory_stats));
check(!!($c->get_capabilities =~ /<capabilities>/), "capabilities");
my @seen;
my $id = $c->domain_event_register_any(undef, Sys::Virt::Domain::EVENT_ID_LIFECYCLE, sub { my ($con, $d, $e, $detail) = @_; push @seen, "$e:$detail" if $d->get_name eq $name; });
sub event { my $wanted = shift; my $end = time + 60; while (time < $end) { return did("event:", $wanted) if grep { $_ eq $wanted } @seen; my $t = $c ? Sys::Virt::Event::add_timeout(100, sub {}) : 0; Sys::Virt::Event::run_default(); Sys::Virt::Event::remove_timeout($t); } die "no event $wanted; seen @seen\n"; }
eval { $c->get_domain_by_name("no-such") };
check(ref $@ && $@->code == Sys::Virt::Error::ERR_NO_DOMAIN, "code of a domain that is not there: $@");
my $d = $c->define_domain("<domain type='kvm'><name>$name</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type><kernel>$kernel</kernel><cmdline>mode=echo</cmdline></os><devices><serial type='pty'/><console type='pty'/></devices></domain>");
event("0:0");
$d->create; event("2:0");
check($d->get_id > 0 && $d->is_active && $d->is_persistent, "runs");
did("info:", hash($d->get_info)); did("state:", $d->get_state);
check($d->get_info->{state} == Sys::Virt::Domain::STATE_RUNNING, "state");
my @stats = $c->get_all_domain_stats(0); my ($mine) = grep { $_->{dom}->get_name eq $name } @stats;
did("stats:", hash($mine->{data})); check($mine->{data}{"state.state"} == 1, "stats");
did("vcpus:", map { hash($_) } $d->get_vcpu_info); did("memory:", hash($d->memory_stats));
did("cpu:", map { hash($_) } $d->get_cpu_stats(-1, 1));
# Whoever runs this checks the documents that are printed.
print $d->get_xml_description;
check(!!($d->get_xml_description =~ /<name>$name</), "xml");
my $s = $c->new_stream(Sys::Virt::Stream::NONBLOCK); $d->open_console($s, undef, 0);
my $said = ""; my $end = time + 60;
my $hear = sub { my ($word) = @_; while (time < $end && $said !~ /$word/) { my $data = ""; my $n = $s->recv($data, 4096); $said .= $data if $n > 0; my $t = Sys::Virt::Event::add_timeout(20, sub {}); Sys::Virt::Event::run_default(); Sys::Virt::Event::remove_timeout($t); } };
# A guest that is still booting does not hear what is typed.
$hear->("ready"); $s->send("hello from perl\r", 16); $hear->("hello from perl");
check(!!($said =~ /hello from perl/), "console said: $said"); did("console:", $said =~ s/[\r\n]+/|/gr); $s->abort;
$d->suspend; event("3:0"); $d->resume; event("4:0");
my $p = $c->define_storage_pool("<pool type='dir'><name>$pool_name</name><target><path>$path</path></target></pool>");
$p->build; $p->create; $p->refresh; did("pool:", hash($p->get_info));
my $v = $p->create_volume("<volume><name>v.raw</name><capacity unit='MiB'>2</capacity><allocation>0</allocation></volume>");
did("volume:", $v->get_path, hash($v->get_info));
my $content = join("", map { chr(int(rand(256))) } 1..300000); my $at = 0;
my $up = $c->new_stream; $v->upload($up, 0, length $content);
$up->send_all(sub { my ($st, undef, $n) = @_; my $part = substr($content, $at, $n); $at += length $part; $_[1] = $part; return length $part; }); $up->finish;
my $back = ""; my $down = $c->new_stream; $v->download($down, 0, length $content);
$down->recv_all(sub { my ($st, $data, $n) = @_; $back .= $data; return $n; }); $down->finish;
check($back eq $content, "downloaded " . length $back); did("uploaded and downloaded:", length $back);
$v->delete; $p->destroy; $p->delete; $p->undefine; did("pool is gone");
$d->destroy; event("5:1"); $d->undefine; event("1:0");
$c->domain_event_deregister_any($id); did("events:", @seen);
