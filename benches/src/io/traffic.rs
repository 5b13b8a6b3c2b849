//! The other end of a guest's network: frames made or sent back on the host, by a packet socket on the tap.
//!
//! What is sent goes to the tap's queue without a queueing discipline. Where that queue is full the kernel
//! says so, and the sender sleeps: the monitor always has frames to take, and the sender does not take the
//! CPU that the monitor needs to do so.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::network::TAP;

/// The EtherType for local experiments, to which no stack answers (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;
/// Bytes of two addresses and the EtherType.
const ETHERNET: usize = 14;
/// How long the sender leaves a full queue alone: a fifth of what it holds goes meanwhile, at most.
const PAUSE: Duration = Duration::from_micros(200);
/// How often a thread without frames looks whether it is to end.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A thread that makes traffic until it is dropped.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Sends frames of so many bytes to the guest, as many as the tap takes.
    ///
    /// # Errors
    /// There is no packet socket to be had on the tap of this thread's namespace.
    pub fn flood(size: usize) -> anyhow::Result<Self> {
        let socket = packet_socket(0)?;
        let mut frame = vec![0; size.max(ETHERNET)];
        // To everybody, from a locally administered address.
        let header = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
        ];
        for (byte, value) in frame.iter_mut().zip(header) {
            *byte = value;
        }
        Ok(Self::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                if rustix::net::send(&socket, &frame, SendFlags::empty()).is_err() {
                    std::thread::sleep(PAUSE);
                }
            }
        }))
    }

    /// Sends each frame of the guest's back to it.
    ///
    /// # Errors
    /// As for [`flood`](Self::flood).
    pub fn echo() -> anyhow::Result<Self> {
        let socket = packet_socket(EXPERIMENTAL)?;
        Ok(Self::start(move |stop| {
            let mut frame = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                match rustix::net::recv(&socket, &mut frame, RecvFlags::DONTWAIT) {
                    Ok((_, length)) => {
                        let Some(frame) = frame.get_mut(..length) else {
                            continue;
                        };
                        if let Some((to, rest)) = frame.split_at_mut_checked(6)
                            && let Some(from) = rest.get_mut(..6)
                        {
                            to.swap_with_slice(from);
                        }
                        // One that is lost is one that the guest waits for in vain, and says so.
                        let _ = rustix::net::send(&socket, frame, SendFlags::empty());
                    }
                    Err(Errno::AGAIN) => {
                        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
                        let _ = poll(&mut fds, Some(&LOOK));
                    }
                    Err(_) => return,
                }
            }
        }))
    }

    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        Self {
            stop,
            thread: Some(std::thread::spawn(move || work(&theirs))),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket on the tap that receives frames of one EtherType, or none for 0, and none of its own.
fn packet_socket(protocol: u16) -> anyhow::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("no packet socket")?;
    let index = rustix::net::netdevice::name_to_index(&socket, TAP)?;
    set(&socket, libc::PACKET_QDISC_BYPASS)?;
    set(&socket, libc::PACKET_IGNORE_OUTGOING)?;
    bind(&socket, protocol, index)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "rustix knows no options of packet sockets")]
fn set(socket: impl AsFd, option: libc::c_int) -> anyhow::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, of which the kernel reads as many bytes as are said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on).try_into()?,
        )
    };
    check(result).context("an option of a packet socket")
}

#[expect(unsafe_code, reason = "rustix knows no addresses of packet sockets")]
fn bind(socket: impl AsFd, protocol: u16, index: u32) -> anyhow::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET.try_into()?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads one whole `sockaddr_ll`, which lives for the call.
    let result = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address).try_into()?,
        )
    };
    check(result).context("binding a packet socket")
}

fn check(result: libc::c_int) -> anyhow::Result<()> {
    if result < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
