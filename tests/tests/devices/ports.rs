//! What a guest shares with programs of the host: random numbers, sockets, channels.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::tool::md5;

use super::domain::Domain;
use super::guest::{SHELL, SOON};

/// The drivers of all this.
pub const DRIVERS: [&str; 3] = ["virtio_rng", "virtio_console", "vmw_vsock_virtio_transport"];
/// Names of the sockets, and the channel's own name.
const VSOCK: &str = "vsock";
const CHANNEL_SOCKET: &str = "channel";
const CHANNEL: &str = "org.example.test.0";
/// The name of one that comes and goes.
pub const LIVE: &str = "org.example.live.0";
/// More than any buffer on the way holds, in blocks of 64 KiB.
const BYTES: usize = BLOCKS << 16;
const BLOCKS: usize = 8;

/// The devices, as options of `reeve define`.
pub fn options(files: &Path) -> Vec<String> {
    let path = |name: &str| files.join(name).display().to_string();
    let channel = format!("{CHANNEL}={}", path(CHANNEL_SOCKET));
    let vsock = path(VSOCK);
    ["--rng", "--vsock", &vsock, "--channel", &channel]
        .map(str::to_owned)
        .into()
}

/// The kernel's own choice of a source, read twice.
pub fn random_numbers_come(domain: &mut Domain) -> Result<()> {
    let source = domain.guest("cat /sys/class/misc/hw_random/rng_current")?;
    ensure!(source == "virtio_rng.0", "{source}");
    let read = "dd if=/dev/hwrng bs=64 count=16 iflag=fullblock 2>/dev/null";
    let sums = domain.guest(&format!(
        "{read} | tee /tmp/r | md5sum; {read} | md5sum; wc -c </tmp/r"
    ))?;
    let words: Vec<&str> = sums.split_whitespace().collect();
    let [first, _, second, _, "1024"] = words[..] else {
        anyhow::bail!("{sums}")
    };
    ensure!(first != second, "{sums}");
    Ok(())
}

/// A program of the host connects to one of the guest, and what it sends comes back.
pub fn streams_go_through_a_socket_device(domain: &mut Domain) -> Result<()> {
    let path = domain.path(VSOCK);
    // Nobody listens: the connection ends without a word.
    let (_, mut refused) = connect(&path, 4)?;
    let mut said = String::new();
    refused.read_to_string(&mut said)?;
    ensure!(said.is_empty(), "{said}");

    domain.guest("(chroot /mnt socat VSOCK-LISTEN:1024,fork EXEC:cat >/tmp/socat 2>&1 &)")?;
    let deadline = Instant::now() + SHELL;
    let (mut stream, mut answers) = loop {
        let (stream, mut answers) = connect(&path, 1024)?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        if line.starts_with("OK ") {
            break (stream, answers);
        }
        ensure!(Instant::now() < deadline, "{line:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let sent = pattern();
    let back = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            stream.write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut back = Vec::new();
        let read = answers.read_to_end(&mut back);
        writer.join().expect("it does not panic")?;
        read.map(|_| back)
    })?;
    ensure!(back == sent, "{} bytes came back", back.len());

    domain.guest("killall socat")?;
    Ok(())
}

/// A program of the guest connects to one of the host, and something goes each way; where none listens it is
/// told at once.
pub fn a_guest_reaches_programs_of_the_host(domain: &mut Domain) -> Result<()> {
    let refused = |domain: &mut Domain| -> Result<()> {
        let dial = "chroot /mnt socat -u OPEN:/dev/null VSOCK-CONNECT:2:99 2>&1 || :";
        let said = domain.guest(dial)?;
        ensure!(said.contains("reset by peer"), "{said}");
        Ok(())
    };
    refused(domain).context("nobody listens")?;
    let path = domain.path(&format!("{VSOCK}_99"));
    drop(UnixListener::bind(&path)?);
    refused(domain).context("nobody listens any more")?;
    std::fs::remove_file(&path)?;

    let listener = UnixListener::bind(&path)?;
    let serving = std::thread::spawn(move || -> Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SHELL))?;
        stream.set_write_timeout(Some(SHELL))?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        stream.write_all(&pattern())?;
        Ok(got)
    });
    let sums = domain.guest(&format!(
        "dd if=/dev/urandom of=/tmp/r bs=64k count={BLOCKS} 2>/dev/null; md5sum </tmp/r; \
         chroot /mnt socat -t 60 - VSOCK-CONNECT:2:99 </tmp/r | md5sum"
    ))?;
    let got = serving.join().expect("it does not panic")?;
    let sums: Vec<_> = (sums.split_whitespace())
        .filter(|word| *word != "-")
        .collect();
    let [sent, back] = sums[..] else {
        anyhow::bail!("{sums:?}")
    };
    let copy = domain.path("copy");
    for (bytes, sum) in [(got, sent), (pattern(), back)] {
        std::fs::write(&copy, &bytes)?;
        let own = md5(&copy)?;
        ensure!(own == sum, "{} bytes: {own}, not {sum}", bytes.len());
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Both ways through a channel, as much as no buffer holds.
pub fn bytes_go_through_a_channel(domain: &mut Domain) -> Result<()> {
    let name = domain.guest(&find(CHANNEL))?;
    let port = name.rsplit('/').nth(1).context("a port")?.to_owned();
    let mut host = UnixStream::connect(domain.path(CHANNEL_SOCKET))?;
    host.set_read_timeout(Some(SHELL))?;

    domain.guest(&format!(
        "dd if=/dev/urandom of=/tmp/r bs=64k count={BLOCKS} 2>/dev/null; (cat /tmp/r >/dev/{port} &)"
    ))?;
    let mut got = vec![0; BYTES];
    host.read_exact(&mut got)?;
    let copy = domain.path("copy");
    std::fs::write(&copy, got)?;
    let sum = domain.guest("md5sum </tmp/r")?;
    ensure!(sum.starts_with(&md5(&copy)?), "{sum}");

    let sent = pattern();
    std::fs::write(&copy, &sent)?;
    domain.guest(&format!(
        "(dd if=/dev/{port} bs=64k count={BLOCKS} iflag=fullblock 2>/dev/null | md5sum >/tmp/sum &)"
    ))?;
    host.set_write_timeout(Some(SHELL))?;
    host.write_all(&sent)?;
    domain.guest_until("[ -s /tmp/sum ]")?;
    let sum = domain.guest("cat /tmp/sum")?;
    ensure!(sum.starts_with(&md5(&copy)?), "{sum}");
    Ok(())
}

/// A channel and a console come beside the one that is there, are used, and go, while the guest writes.
pub fn ports_come_and_go(domain: &mut Domain) -> Result<()> {
    let (channel, console) = (domain.path("live"), domain.path("hvc"));
    for _ in 0..3 {
        let option = format!("{LIVE}={}", channel.display());
        domain.reeve("attach", &["--channel", &option])?;
        words_go_through(domain, LIVE, &channel)?;
        let mut client = UnixStream::connect(&channel)?;
        client.set_read_timeout(Some(SHELL))?;
        domain.reeve("detach", &[&format!("channel:{LIVE}")])?;
        domain.guest_until(&format!("! {}", find(LIVE)))?;
        ensure!(client.read(&mut [0])? == 0, "the client is still served");
        ensure!(UnixStream::connect(&channel).is_err(), "somebody listens");

        domain.reeve(
            "attach",
            &["--port-console", &console.display().to_string()],
        )?;
        domain.guest_until("ls -d /sys/class/virtio-ports/vport*p0")?;
        let mut client = UnixStream::connect(&console)?;
        client.set_read_timeout(Some(SHELL))?;
        // A driver waits for each line with interrupts off: it must not do so for ever.
        domain.guest(
            "rm -f /tmp/hvc*; ( (n=0; while [ $n -lt 2000 ] && echo over >/dev/hvc0; do n=$((n+1)); \
             done 2>/tmp/hvc; touch /tmp/hvc-done) & )",
        )?;
        let mut word = [0; 4];
        client.read_exact(&mut word)?;
        ensure!(word == *b"over", "{word:?}");
        domain.reeve("detach", &["console:0"])?;
        domain.guest_until("[ -e /tmp/hvc-done ]")?;
        domain.guest_until("! ls -d /sys/class/virtio-ports/vport*p0")?;
        ensure!(!console.exists(), "its socket is left");
    }
    words_go_through(domain, CHANNEL, &domain.path(CHANNEL_SOCKET))?;

    // With the last its controller goes, and comes back with the next.
    domain.reeve("detach", &[&format!("channel:{CHANNEL}")])?;
    ensure!(domain.stats("ports").is_err(), "the controller is left");
    domain.guest("! ls -d /sys/class/virtio-ports/vport*")?;
    let option = format!("{CHANNEL}={}", domain.path(CHANNEL_SOCKET).display());
    domain.reeve("attach", &["--channel", &option])?;
    words_go_through(domain, CHANNEL, &domain.path(CHANNEL_SOCKET))
}

/// A word each way through the channel of that name, which a client has open.
fn words_go_through(domain: &mut Domain, name: &str, socket: &Path) -> Result<()> {
    domain.guest_until(&find(name))?;
    let found = domain.guest(&find(name))?;
    let port = found.rsplit('/').nth(1).context("a port")?.to_owned();
    let mut client = UnixStream::connect(socket)?;
    client.set_read_timeout(Some(SHELL))?;
    domain.guest(&format!(
        "rm -f /tmp/word; (head -n 1 </dev/{port} >/tmp/word &)"
    ))?;
    client.write_all(b"ping\n")?;
    domain.guest_until("grep -qx ping /tmp/word")?;
    domain.guest(&format!("echo pong >/dev/{port}"))?;
    let mut word = [0; 5];
    client.read_exact(&mut word)?;
    ensure!(word == *b"pong\n", "{word:?}");
    let stats = domain.stats(&format!("channel:{name}"))?;
    let connected = stats.pointer("/figures/connected");
    ensure!(connected == Some(&true.into()), "{stats}");
    Ok(())
}

/// Prints where a guest has the port of that name.
fn find(name: &str) -> String {
    format!("grep -lx {name} /sys/class/virtio-ports/*/name")
}

/// Asks for a port of the guest; the two are ends of one stream.
fn connect(path: &Path, port: u32) -> Result<(UnixStream, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SHELL))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let answers = BufReader::new(stream.try_clone()?);
    Ok((stream, answers))
}

fn pattern() -> Vec<u8> {
    (0..251).cycle().take(BYTES).collect()
}
