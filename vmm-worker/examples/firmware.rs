//! Starts a machine in a firmware image, and shows what it says: for finding out what a firmware needs.
//!
//! `firmware IMAGE SECONDS [debug] [variables=FILE] [FILE.png]`: the console, and with `debug` the text of the debug port
//! at the end. The FILE of variables is changed: they are what the guest makes of them. With the name of a picture there is
//! a display, of which a screenshot is saved there in the end. There is a disk in slot 4 with a boot sector that says so.
//! What comes on standard input goes to the console. Ends when the guest does, or after so many seconds.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/firmware/harness.rs"]
mod harness;

use std::io::{Read, Write};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use reeve_display::screenshot;

use self::harness::Setup;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (Some(image), Some(seconds)) = (arguments.first(), arguments.get(1)) else {
        println!("usage: firmware IMAGE SECONDS [debug] [variables=FILE] [FILE.png]");
        return;
    };
    let limit = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let mut setup = Setup::new(image).memory(256 << 20);
    let mut named = arguments.iter();
    if let Some(name) = named.find_map(|argument| argument.strip_prefix("variables=")) {
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).open(name);
        setup = setup.variables(file.expect("a file of variables"));
    }
    let (give, input) = sync_channel(16);
    std::thread::spawn(move || {
        let mut chunk = [0; 64];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut chunk) {
            if give.send(chunk[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let picture = arguments.iter().find(|argument| argument.ends_with(".png"));
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
        for bytes in input.try_iter() {
            rig.send(&bytes);
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
