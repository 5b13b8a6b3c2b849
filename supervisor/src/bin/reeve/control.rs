//! The control socket of `reeve run --control PATH`: a line in, a line of JSON out.
//!
//! One client at a time, lines of at most [`MAX_LINE_BYTES`]. The socket's mode is 0600 from the
//! moment it exists; it is removed at the end, if what lies at its path is still it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_ipc::client::CallError;
use reeved::domain::worker::Worker;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// The most bytes of a command line.
const MAX_LINE_BYTES: u64 = 256;
/// Clients that wait for their turn.
const BACKLOG: i32 = 8;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The path has no last part.
    #[error("the control socket {0} has no file name; check --control")]
    NoName(PathBuf),
    /// Its directory cannot be opened.
    #[error("cannot open the directory of the control socket {path}: {source}; check --control")]
    Directory {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{0} exists already: remove it, or name another control socket")]
    Exists(PathBuf),
    /// The name alone is longer than a socket's address.
    #[error("the name of the control socket {0} is too long; at most 80 bytes fit")]
    TooLong(PathBuf),
    /// The kernel refused.
    #[error("cannot make the control socket {path}: {source}")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound control socket; dropping it removes its name.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    name: SocketName,
}

/// Where its name is, and which file it is.
#[derive(Debug)]
struct SocketName {
    directory: OwnedFd,
    name: OsString,
    inode: (u64, u64),
}

impl ControlSocket {
    /// Binds it. Paths of any length work: the address goes through the directory's descriptor.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let name = path
            .file_name()
            .ok_or_else(|| ControlError::NoName(path.to_owned()))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(|errno| {
            ControlError::Directory {
                path: path.to_owned(),
                source: errno.into(),
            }
        })?;
        let mut address = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        address.extend_from_slice(name.as_bytes());
        let address = SocketAddrUnix::new(address.as_slice())
            .map_err(|_| ControlError::TooLong(path.to_owned()))?;
        let refuse = |errno: Errno| match errno {
            Errno::ADDRINUSE => ControlError::Exists(path.to_owned()),
            errno => ControlError::Socket {
                path: path.to_owned(),
                source: errno.into(),
            },
        };
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(refuse)?;
        // Before it has a name: the file is made with this mode (unix(7)), so nobody slips in.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(refuse)?;
        rustix::net::bind(&socket, &address).map_err(refuse)?;
        let stat =
            rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(refuse)?;
        let name = SocketName {
            directory,
            name: name.to_owned(),
            inode: (stat.st_dev, stat.st_ino),
        };
        rustix::net::listen(&socket, BACKLOG).map_err(refuse)?;
        let listener =
            UnixListener::from_std(socket.into()).map_err(|source| ControlError::Socket {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { listener, name })
    }

    /// Serves clients, one after the other, for good. A destroy is left to `destroys`.
    pub async fn serve(&self, worker: &Arc<Worker>, destroys: &mpsc::Sender<()>) {
        loop {
            match self.listener.accept().await {
                Ok((client, _)) => {
                    if let Err(error) = serve_client(client, worker, destroys).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                }
                // Out of descriptors, most likely: not for long.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let SocketName {
            directory,
            name,
            inode,
        } = &self.name;
        let here = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if here.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == *inode) {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
    }
}

async fn serve_client(
    client: UnixStream,
    worker: &Arc<Worker>,
    destroys: &mpsc::Sender<()>,
) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::with_capacity(1024, reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_LINE_BYTES);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || u64::try_from(line.len()) != Ok(MAX_LINE_BYTES);
        let reply = if whole {
            let command = String::from_utf8_lossy(&line);
            answer(command.trim(), worker, destroys).await
        } else {
            failure(format!("a command has at most {MAX_LINE_BYTES} bytes"))
        };
        let mut bytes = reply.to_string().into_bytes();
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(command: &str, worker: &Worker, destroys: &mpsc::Sender<()>) -> Value {
    match command {
        "status" => status(worker).await,
        "pause" => done(worker.pause().await),
        "resume" => done(worker.resume().await),
        "power-button" => done(worker.power_button().await),
        "reset" => done(worker.reset().await),
        "destroy" => {
            // Full means that it is being destroyed already.
            let _ = destroys.try_send(());
            json!({ "ok": true })
        }
        _ => failure(
            "unknown command: status, pause, resume, power-button, reset or destroy".to_owned(),
        ),
    }
}

fn done(result: Result<(), CallError>) -> Value {
    match result {
        Ok(()) => json!({ "ok": true }),
        Err(error) => failure(error.to_string()),
    }
}

fn failure(error: String) -> Value {
    json!({ "ok": false, "error": error })
}

async fn status(worker: &Worker) -> Value {
    match worker.query().await {
        Ok(status) => json!({
            "ok": true,
            "name": worker.name().as_str(),
            "uuid": worker.uuid().to_string(),
            "pid": worker.pid(),
            "phase": status.phase.to_string(),
            "resets": status.resets,
            "console_clients": status.console_clients,
            "console_dropped_bytes": status.console_dropped_bytes,
            "log_dropped": status.log_dropped,
        }),
        Err(error) => failure(error.to_string()),
    }
}
