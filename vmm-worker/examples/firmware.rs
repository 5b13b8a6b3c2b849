//! Starts a machine in a firmware image, and shows what it says: for finding out what a firmware needs.
//!
//! `firmware IMAGE SECONDS [debug] [FILE.png]`: the console, and with `debug` the text of the debug port at the end. With
//! a file's name there is a display, of which a screenshot is saved there in the end. There is a
//! disk in slot 4 with a boot sector that says so. Ends when the guest does, or after so many seconds.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/firmware/harness.rs"]
mod harness;

use std::io::Write;
use std::time::{Duration, Instant};

use reeve_display::screenshot;

use self::harness::Setup;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (Some(image), Some(seconds)) = (arguments.first(), arguments.get(1)) else {
        println!("usage: firmware IMAGE SECONDS [debug] [FILE.png]");
        return;
    };
    let limit = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let picture = arguments.iter().find(|argument| argument.ends_with(".png"));
    let mut setup = Setup::new(image).memory(256 << 20);
    if picture.is_some() {
        setup = setup.display();
    }
    let started = Instant::now();
    let mut rig = setup.disk(4, "The boot sector runs.\r\n").start();
    while started.elapsed() < limit {
        let output = rig.take_output();
        if !output.is_empty() {
            // When each part came, to be cut off by whoever compares two runs.
            println!("\n[{:?}]", started.elapsed());
            print!("{}", String::from_utf8_lossy(&output));
            let _ = std::io::stdout().flush();
        }
        if let Some(end) = rig.end() {
            println!("\nended: {end}");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("\nafter {:?}", started.elapsed());
    if let Some(path) = picture {
        let file = screenshot::png(&mut rig.screen()).expect("a screenshot");
        std::fs::write(path, file).expect("a file");
    }
    if arguments.iter().any(|argument| argument == "debug") {
        println!("debug port:\n{}", rig.debug_text());
    }
}
