//! The same program as a reader: a process that is started for one image, says what that says it builds
//! upon, and ends.
//!
//! It is jailed as a worker is, and has less: the image, open for reading only, a socket for its answer, and
//! the few calls of [`Role::Reader`]. What a hostile image could make of it is a wrong answer, which its
//! author could have had for less.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use reeve_devices::block::qcow2::read_header;
use reeve_ipc::codec;
use reeve_ipc::error::truncate;
use reeve_ipc::exit_code;
use reeve_ipc::image::{
    ANSWER_FD, BackingNote, IMAGE_FD, ImageAnswer, MAX_FORMAT_BYTES, MAX_WORDS_BYTES, READER,
};
use reeve_sandbox::seccomp::{Role, enter_role};

/// Whether this process was started to be one.
#[must_use]
pub fn is_asked_for() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| name.as_encoded_bytes() == READER.to_bytes())
}

/// The whole of such a process; gives its exit code.
#[must_use]
pub fn run() -> u8 {
    // Its filter has no way to close them: they go with the process.
    let (image, socket) = inherited();
    let (image, socket) = (ManuallyDrop::new(image), ManuallyDrop::new(socket));
    let jailed = reeve_sandbox::enter(socket.as_fd()).map_err(|error| format!("jail: {error}"));
    let jailed = jailed.and_then(|_| {
        enter_role(Role::Reader).map_err(|error| format!("cannot close its filter: {error}"))
    });
    let (answer, code) = match jailed {
        Ok(()) => (read(&image), exit_code::ORDERLY),
        Err(why) => (ImageAnswer::Failed(words(why)), exit_code::JAIL),
    };
    let Ok(bytes) = codec::encode(&answer) else {
        return exit_code::HOST;
    };
    match rustix::io::retry_on_intr(|| rustix::io::write(&*socket, &bytes)) {
        Ok(_) => code,
        // Nobody waits for it any more.
        Err(_) => exit_code::HOST,
    }
}

fn read(image: &OwnedFd) -> ImageAnswer {
    let facts = match read_header(image.as_fd()) {
        Ok(facts) => facts,
        Err(error) => return ImageAnswer::Unreadable(words(error.to_string())),
    };
    ImageAnswer::Backing(facts.backing_file.map(|name| BackingNote {
        name,
        format: facts.backing_format.map(|mut format| {
            truncate(&mut format, MAX_FORMAT_BYTES);
            format
        }),
    }))
}

fn words(mut why: String) -> String {
    truncate(&mut why, MAX_WORDS_BYTES);
    why
}

#[expect(
    unsafe_code,
    reason = "descriptors that the supervisor hands over are known by number"
)]
fn inherited() -> (OwnedFd, OwnedFd) {
    // SAFETY: the supervisor put the image there, nobody else in this process owns it, and this function
    // runs once. In a process it did not start, what is there is no file or not open, and its use fails.
    let image = unsafe { OwnedFd::from_raw_fd(IMAGE_FD) };
    // SAFETY: as above, for the socket.
    let socket = unsafe { OwnedFd::from_raw_fd(ANSWER_FD) };
    (image, socket)
}
