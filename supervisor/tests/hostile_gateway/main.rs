//! A gateway that does what its client says, some of it against the rules. Test builds only.
//!
//! Its client writes one word, and is answered or not. It closes no jail of its own.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use reeve_ipc::api::call::{Call, ConfigReload};
use reeve_ipc::api::message::{CallId, FromClient, ToClient};
use reeve_ipc::api::{API, Access};
use reeve_ipc::gateway::{CONTROL_FD, HandOver};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{codec, exit_code};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> ExitCode {
    let control = adopt(CONTROL_FD);
    let Some((bytes, fds)) = receive(control.as_fd()) else {
        return ExitCode::SUCCESS;
    };
    let (Ok(HandOver::Local { access }), Ok([client, api])) = (
        codec::decode::<HandOver>(&bytes),
        <[OwnedFd; 2]>::try_from(fds),
    ) else {
        return ExitCode::from(exit_code::HANDSHAKE);
    };
    let mut client = UnixStream::from(client);
    let _ = client.set_nonblocking(false);
    let mut word = [0; 64];
    while let Ok(length @ 1..) = client.read(&mut word) {
        let word = String::from_utf8_lossy(&word[..length]).into_owned();
        let answer = match word.as_str() {
            "rights" => rights(access, api.as_fd()),
            "exit" => return ExitCode::from(7),
            "lie" => {
                let _ = scm::send(api.as_fd(), b"\xff\xff\xff", &[]);
                sleep()
            }
            "shout" => {
                for _ in 0..1000 {
                    let _ = scm::send(control.as_fd(), b"loud \x1b[2J words\nof two lines", &[]);
                }
                "shouted".to_owned()
            }
            other => format!("heard {other}"),
        };
        if client.write_all(answer.as_bytes()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// What the message says of the client's rights, what the supervisor says, and whether it holds to it.
fn rights(rights: Access, api: BorrowedFd<'_>) -> String {
    let ask = |message: &FromClient| {
        let sent = codec::encode(message).map(|bytes| scm::send(api, &bytes, &[]));
        let answer = receive(api).map(|(bytes, _)| codec::decode::<ToClient>(&bytes));
        (sent.is_ok(), answer)
    };
    let client = "hostile".to_owned();
    let welcome = match ask(&FromClient::Hello { api: API, client }) {
        (true, Some(Ok(ToClient::Welcome { access, .. }))) => access.to_string(),
        other => format!("{other:?}"),
    };
    let (id, body) = (CallId(1), ConfigReload {}.into_body());
    let reload = match ask(&FromClient::Call { id, body }) {
        (true, Some(Ok(ToClient::Reply { result: Ok(_), .. }))) => "done".to_owned(),
        (
            true,
            Some(Ok(ToClient::Reply {
                result: Err(error), ..
            })),
        ) => format!("{:?}", error.code),
        other => format!("{other:?}"),
    };
    format!("{} {welcome} {reload}", rights)
}

fn sleep() -> String {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// The next message; `None` at the end.
fn receive(socket: BorrowedFd<'_>) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        let mut ready = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut ready, None));
        match scm::receive_message(socket) {
            Err(ScmError::WouldBlock) => {}
            other => return other.ok(),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "descriptors that a process is started with have no owner"
)]
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the supervisor starts this program with the descriptor open, and nothing else here
    // takes it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }
}
