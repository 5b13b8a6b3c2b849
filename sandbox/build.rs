//! Compiles the seccomp tables into BPF programs, so that a worker carries them as constants.

#![expect(clippy::expect_used, reason = "a build script stops by panicking")]

use std::fmt::Write as _;
use std::path::Path;

#[path = "src/seccomp/args.rs"]
mod args;
#[path = "src/seccomp/base.rs"]
mod base;
#[path = "src/seccomp/compile.rs"]
mod compile;
#[path = "src/seccomp/control.rs"]
mod control;
#[path = "src/seccomp/gateway.rs"]
mod gateway;
#[path = "src/seccomp/images.rs"]
mod images;
#[path = "src/seccomp/io.rs"]
mod io;
#[path = "src/seccomp/ioctl.rs"]
mod ioctl;
#[path = "src/seccomp/join.rs"]
mod join;
#[path = "src/seccomp/memory.rs"]
mod memory;
#[path = "src/seccomp/reader.rs"]
mod reader;
#[path = "src/seccomp/rule.rs"]
#[expect(dead_code, reason = "reasons are for people, not for BPF")]
mod rule;
#[path = "src/seccomp/spawner.rs"]
mod spawner;
#[path = "src/seccomp/vcpu.rs"]
mod vcpu;
#[path = "src/seccomp/vhost.rs"]
mod vhost;

use compile::{Instruction, Unlisted, compile};

fn main() {
    println!("cargo::rerun-if-changed=src/seccomp");
    println!("cargo::rerun-if-changed=build.rs");

    let mut text = String::new();
    let entering: Vec<&rule::Rule> = base::RULES.iter().chain(join::OPEN).collect();
    for (name, program) in [
        ("BASE", compile(entering, Unlisted::Trap)),
        ("SEAL", compile(join::SEALED, Unlisted::Allow)),
        ("CONTROL", compile(control::RULES, Unlisted::Trap)),
        ("VCPU", compile(vcpu::RULES, Unlisted::Trap)),
        ("IO", compile(io::RULES, Unlisted::Trap)),
        ("SPAWNER", compile(spawner::RULES, Unlisted::Trap)),
        ("READER", compile(reader::RULES, Unlisted::Trap)),
        ("VHOST", compile(vhost::RULES, Unlisted::Trap)),
        ("MEMORY", compile(memory::RULES, Unlisted::Trap)),
        ("GATEWAY", compile(gateway::RULES, Unlisted::Trap)),
        ("IMAGES", compile(images::RULES, Unlisted::Trap)),
    ] {
        writeln!(text, "static {name}: [Instruction; {}] = [", program.len())
            .expect("writing to a string");
        for Instruction { code, jt, jf, k } in program {
            writeln!(
                text,
                "    Instruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
            )
            .expect("writing to a string");
        }
        text.push_str("];\n");
    }
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("filters.rs"), text).expect("OUT_DIR is writable");
}
