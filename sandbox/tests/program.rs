//! What a foreign program sees in its jail, whose files it makes, and that it ends with whoever holds its
//! words. Needs root, which stands for the supervisor of a host; as an ordinary user, the caller's own
//! identity is tried.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reeve_sandbox::Identity;
use reeve_sandbox::program::{OWN_RESOLVER, Program, ProgramError, Serves, launch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};

/// A user of the host that is not ours.
const OWNER: u32 = 54_321;

fn identity() -> Identity {
    match rustix::process::geteuid().is_root() {
        true => Identity::Block {
            uid: OWNER,
            gid: OWNER,
        },
        false => Identity::Caller,
    }
}

fn owner() -> u32 {
    match identity() {
        Identity::Block { uid, .. } => uid,
        Identity::Caller => rustix::process::geteuid().as_raw(),
    }
}

/// A directory of that owner's.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(directory.path(), Some(OWNER), Some(OWNER)).unwrap();
    }
    directory
}

fn start(path: &str, arguments: &[&str], served: &Path, ro: bool) -> Result<OwnedFd, ProgramError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let served = rustix::fs::openat(CWD, served, flags, Mode::empty()).unwrap();
    let launcher = File::open(env!("CARGO_BIN_EXE_reeve-sandbox-probe")).unwrap();
    let handed = File::open("/dev/null").unwrap();
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    launch(&Program {
        launcher: launcher.as_fd(),
        path: Path::new(path),
        arguments: &arguments,
        serves: Serves::Directory {
            directory: served.as_fd(),
            read_only: ro,
        },
        identity: identity(),
        cgroup: None,
        handed: handed.as_fd(),
    })
}

/// What a script of the shell prints.
fn script(served: &Path, ro: bool, script: &str) -> String {
    let words = start("/usr/bin/sh", &["-c", script], served, ro).expect("started");
    words_of(words)
}

fn words_of(words: OwnedFd) -> String {
    rustix::io::ioctl_fionbio(&words, false).unwrap();
    let mut text = String::new();
    File::from(words).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn it_sees_the_directory_and_what_programs_are_loaded_from() {
    let served = directory();
    fs::write(served.path().join("file"), "content").unwrap();
    let text = script(
        served.path(),
        false,
        "cat /share/file; echo; echo /*; echo /proc/* /etc/* ; ls -l /proc/self/fd; ls /home",
    );
    assert!(text.starts_with("content\n"), "{text}");
    let root = text.lines().nth(1).unwrap();
    for name in root.split(' ') {
        let known = [
            "/etc", "/lib", "/lib32", "/lib64", "/proc", "/share", "/usr",
        ];
        assert!(known.contains(&name), "{root}");
    }
    assert!(
        text.contains("/proc/self /proc/sys /etc/ld.so.cache"),
        "{text}"
    );
    // What was handed over, and nothing of how it came here.
    let open = text.lines().filter_map(|line| line.split_once(" -> "));
    let open: Vec<&str> = open
        .filter_map(|(line, _)| line.rsplit(' ').next())
        .collect();
    assert_eq!(open, ["0", "1", "2", "5"], "{text}");
    assert!(!text.contains("socket:"), "{text}");
    assert!(text.contains("/home"), "there is no such directory: {text}");
}

#[test]
fn it_is_alone_and_root_of_nothing_but_its_namespace() {
    let served = directory();
    let text = script(
        served.path(),
        false,
        "id -u; echo $$; cat /proc/self/net/dev | tail -n +3 | cut -d: -f1; \
         grep -E 'CapBnd|CapEff|CapPrm|NoNewPrivs|Groups' /proc/self/status; \
         echo x >/usr/x; echo x >/x; kill -0 1 && echo itself",
    );
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["0", "1", "lo"], "{text}");
    let capabilities = "00000000880401db";
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(text.contains(&format!("{set}:\t{capabilities}")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.contains("itself"), "{text}");
}

#[test]
fn what_it_makes_belongs_to_its_user_on_the_host() {
    let served = directory();
    let text = script(
        served.path(),
        false,
        "echo x >/share/made && chmod 640 /share/made",
    );
    assert_eq!(text, "");
    let made = fs::metadata(served.path().join("made")).unwrap();
    assert_eq!(
        (made.uid(), made.permissions().mode() & 0o777),
        (owner(), 0o640)
    );
}

#[test]
fn a_directory_may_be_read_only_to_it() {
    let served = directory();
    let text = script(served.path(), true, "echo x >/share/made");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(!served.path().join("made").exists());
}

#[test]
fn a_link_to_elsewhere_leads_nowhere() {
    let served = directory();
    std::os::unix::fs::symlink("/etc/passwd", served.path().join("link")).unwrap();
    let text = script(
        served.path(),
        false,
        "cat /share/link /share/../../etc/passwd",
    );
    assert_eq!(text.matches("No such file").count(), 2, "{text}");
}

#[test]
fn it_ends_when_nobody_holds_its_words() {
    let served = directory();
    let words = start(
        "/usr/bin/sh",
        &["-c", "echo $$; exec sleep 1000"],
        served.path(),
        false,
    );
    let words = words.expect("started");
    let mut ready = [PollFd::new(&words, PollFlags::IN)];
    poll(&mut ready, None).unwrap();
    let sleeps = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\x001000") && status.contains(&format!("Uid:\t{}", owner()))
        })
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !sleeps() {
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(words);
    while sleeps() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn its_own_end_ends_its_words() {
    let served = directory();
    let words = start(
        "/usr/bin/sh",
        &["-c", "echo last; exit 3"],
        served.path(),
        false,
    );
    let words = words.expect("started");
    let timeout = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut ready = [PollFd::new(&words, PollFlags::IN)];
    assert_eq!(poll(&mut ready, Some(&timeout)), Ok(1));
    assert_eq!(words_of(words), "last\n");
}

#[test]
fn what_cannot_be_started_is_said_in_words() {
    let served = directory();
    let refused = start(
        "/usr/bin/there-is-no-such-program",
        &[],
        served.path(),
        false,
    );
    let words = refused.expect_err("no program").to_string();
    assert!(
        words.contains("executing the program: No such file"),
        "{words}"
    );
    assert!(start("usr/bin/true", &[], served.path(), false).is_err());
}

#[test]
fn the_host_s_root_is_nobody_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let served = directory();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, served.path(), flags, Mode::empty()).unwrap();
    let launcher = File::open(env!("CARGO_BIN_EXE_reeve-sandbox-probe")).unwrap();
    let refused = launch(&Program {
        launcher: launcher.as_fd(),
        path: Path::new("/usr/bin/true"),
        arguments: &[],
        serves: Serves::Directory {
            directory: fd.as_fd(),
            read_only: false,
        },
        identity: Identity::Caller,
        cgroup: None,
        handed: fd.as_fd(),
    });
    assert!(matches!(refused, Err(ProgramError::Invalid(_))));
}

fn in_network(path: &str, arguments: &[&str], handed: BorrowedFd<'_>) -> OwnedFd {
    let launcher = File::open(env!("CARGO_BIN_EXE_reeve-sandbox-probe")).unwrap();
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    let launched = launch(&Program {
        launcher: launcher.as_fd(),
        path: Path::new(path),
        arguments: &arguments,
        serves: Serves::Network,
        identity: identity(),
        cgroup: None,
        handed,
    });
    launched.expect("started")
}

#[test]
fn one_that_serves_the_network_has_no_directory_and_no_power_over_it() {
    let nothing = File::open("/dev/null").unwrap();
    let script = "cat /proc/self/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' \\n'; echo; echo /*; \
                  ls /tmp; grep CapBnd /proc/self/status; ls -l /proc/self/fd";
    let words = in_network("/usr/bin/sh", &["-c", script], nothing.as_fd());
    let text = words_of(words);
    let mut lines = text.lines();
    let own = fs::read_to_string("/proc/self/net/dev").unwrap();
    let own: String = own
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect();
    assert_eq!(lines.next(), Some(&own[..]), "{text}");
    let root = lines.next().unwrap();
    assert!(root.contains("/tmp") && !root.contains("/share"), "{text}");
    // NET_ADMIN and NET_RAW.
    let bound = lines.find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bound = u64::from_str_radix(bound.trim(), 16).unwrap();
    assert_eq!(bound & (1 << 12 | 1 << 13), 0, "{text}");
}

/// Runs something where the host asks itself for names, on an address of its loopback, and has one link.
fn with_own_resolver(test: impl FnOnce() + Send + 'static) {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let run = move || {
        #[expect(
            unsafe_code,
            reason = "unshare may leave a process with shared descriptors"
        )]
        // SAFETY: descriptors stay shared; the namespaces are a matter of this thread only.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) };
        unshared.unwrap();
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .unwrap();
        let list = tempfile::NamedTempFile::new().unwrap();
        fs::write(list.path(), "nameserver 127.0.0.53\n").unwrap();
        fs::set_permissions(list.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let place = fs::canonicalize("/etc/resolv.conf").unwrap();
        mount_bind(list.path(), place).unwrap();
        for line in [
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            "addr add 10.5.0.2/24 dev eth0",
            "link set eth0 up",
            "link set eth1 up",
            "route add default via 10.5.0.1",
        ] {
            let status = Command::new("ip").args(line.split(' ')).status();
            assert!(status.unwrap().success(), "{line}");
        }
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

/// A datagram of UDP in a frame to `to`, behind its length.
fn datagram(to: [u8; 6], ends: [([u8; 4], u16); 2], payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(payload.len() + more).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(ends.iter().flat_map(|(address, _)| *address));
    let words = packet.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend(ends.iter().flat_map(|(_, port)| port.to_be_bytes()));
    packet.extend(length(8));
    packet.extend([0, 0]);
    packet.extend(payload);
    let mut frame = [to, MAC].concat();
    frame.extend([8, 0]);
    frame.extend(packet);
    [
        &u32::try_from(frame.len()).unwrap().to_be_bytes()[..],
        &frame,
    ]
    .concat()
}

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 5];

/// The next datagram from that port: the address and the whole frame.
fn datagram_from(ours: &std::os::unix::net::UnixStream, port: u16) -> ([u8; 4], Vec<u8>) {
    loop {
        let mut length = [0; 4];
        std::io::Read::read_exact(&mut &*ours, &mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        std::io::Read::read_exact(&mut &*ours, &mut frame).unwrap();
        let udp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
        if udp && frame[34..36] == port.to_be_bytes() {
            return (frame[26..30].try_into().unwrap(), frame);
        }
    }
}

#[test]
fn a_guest_is_told_of_the_host_s_own_server_of_names_and_hears_its_answers() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    with_own_resolver(|| {
        let resolver = std::net::UdpSocket::bind("127.0.0.53:53").unwrap();
        resolver
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let forward = format!("--dns-forward={OWN_RESOLVER}");
        let arguments = [
            "--foreground",
            "--quiet",
            "--no-map-gw",
            "--tcp-ports=none",
            "--udp-ports=none",
            &forward,
            "--fd=5",
        ];
        let words = in_network("/usr/bin/passt", &arguments, theirs.as_fd());
        drop(theirs);
        let say = |frame: Vec<u8>| std::io::Write::write_all(&mut &ours, &frame).unwrap();
        // DHCPDISCOVER (RFC 2131).
        let mut discover = vec![1, 1, 6, 0, 7, 7, 7, 7, 0, 0, 0x80, 0];
        discover.resize(28, 0);
        discover.extend(MAC);
        discover.resize(236, 0);
        discover.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 1, 6, 255]);
        say(datagram(
            [0xff; 6],
            [([0; 4], 68), ([255; 4], 67)],
            &discover,
        ));
        let (_, offer) = datagram_from(&ours, 67);
        let told = [&[6, 4][..], &OWN_RESOLVER.octets()].concat();
        assert!(offer.windows(6).any(|part| part == told), "{offer:?}");
        let router: [u8; 6] = offer[6..12].try_into().unwrap();
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01";
        let ends = [([10, 5, 0, 2], 5353), (OWN_RESOLVER.octets(), 53)];
        say(datagram(router, ends, question));
        let mut buffer = [0; 512];
        let (length, from) = resolver.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], question[..]);
        resolver.send_to(b"\x12\x34 answer", from).unwrap();
        let (who, answer) = datagram_from(&ours, 53);
        assert_eq!(who, OWN_RESOLVER.octets());
        assert!(answer.ends_with(b"answer"), "{answer:?}");
        drop(words);
    });
}

#[test]
fn passt_speaks_for_a_guest_from_within_and_ends_with_its_words() {
    const PASST: &str = "/usr/bin/passt";
    assert!(
        Path::new(PASST).exists(),
        "passt is missing: run tests/lab/install"
    );
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let arguments = [
        "--foreground",
        "--quiet",
        "--no-map-gw",
        "--tcp-ports=none",
        "--udp-ports=none",
        "--fd=5",
    ];
    let words = in_network(PASST, &arguments, theirs.as_fd());
    drop(theirs);
    // Who has 10.9.8.7?
    let mac = [0x52, 0x54, 0, 0, 0, 5];
    let mut frame = [[0xff; 6], mac].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend([10, 9, 8, 7]);
    frame.resize(60, 0);
    let asked = [&60_u32.to_be_bytes()[..], &frame].concat();
    std::io::Write::write_all(&mut &ours, &asked).unwrap();
    let mut answer = [0; 4 + 42];
    if let Err(error) = (&ours).read_exact(&mut answer) {
        rustix::io::ioctl_fionbio(&words, true).unwrap();
        let mut said = String::new();
        let _ = File::from(words).read_to_string(&mut said);
        panic!("{error}: {said}");
    }
    assert_eq!(answer[4..10], mac);
    assert_eq!(answer[16..18], [8, 6], "{answer:02x?}");
    assert_eq!(answer[25], 2, "it is an answer: {answer:02x?}");
    drop(words);
    let mut rest = Vec::new();
    let ended = (&ours).read_to_end(&mut rest);
    assert!(
        ended.is_ok()
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
}
