//! A reader of images that does what the image it is given says: its first eight bytes.

use std::time::Duration;

use reeve_ipc::codec;
use reeve_ipc::image::{ANSWER_FD, BackingNote, IMAGE_FD, ImageAnswer, READER};

use super::adopt;

pub fn is_asked_for() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| name.as_encoded_bytes() == READER.to_bytes())
}

pub fn run() -> u8 {
    let (image, socket) = (adopt(IMAGE_FD), adopt(ANSWER_FD));
    let mut order = [0; 8];
    let _ = rustix::io::pread(&image, &mut order, 0);
    let say = |bytes: &[u8]| {
        let _ = rustix::io::write(&socket, bytes);
    };
    let answer = |answer: &ImageAnswer| {
        say(&codec::encode(answer).unwrap_or_default());
    };
    let names = |name: &str| {
        answer(&ImageAnswer::Backing(Some(BackingNote {
            name: name.to_owned(),
            format: Some("raw".to_owned()),
        })));
    };
    match &order {
        b"hangs---" => std::thread::sleep(Duration::from_secs(3600)),
        b"dies----" => {}
        b"garbage-" => say(&[0xff; 300]),
        b"floods--" => say(&[0; 60_000]),
        b"long----" => names(&"n".repeat(1500)),
        b"shouts--" => answer(&ImageAnswer::Unreadable("a\nb\u{1b}[2J".to_owned())),
        b"fails---" => answer(&ImageAnswer::Failed("no Landlock".to_owned())),
        b"writes--" => {
            // It has the image for reading only.
            let done = rustix::io::pwrite(&image, b"X", 0).is_ok();
            names(if done { "written" } else { "nbd:refused" });
        }
        _ => answer(&ImageAnswer::Backing(None)),
    }
    0
}
