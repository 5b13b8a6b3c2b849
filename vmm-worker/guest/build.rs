//! Compiles the freestanding kernel (`kernel/`) into the ELF image that the library embeds.
//!
//! The compiler that builds the workspace is called directly and not through cargo: flags meant
//! for the workspace (static C runtime, sanitizers, lints of other crates) must not reach code
//! that has neither `std` nor a runtime. Everything is pinned here instead.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    println!("cargo::rerun-if-changed=kernel");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");

    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC for build scripts");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel");

    compile(&rustc, &kernel, &out_dir.join("reeve-guest.elf"), false);
    compile(
        &rustc,
        &kernel,
        &out_dir.join("reeve-guest-drivers.elf"),
        true,
    );
}

/// Makes one image: the plain one, or the one that has drivers as well.
fn compile(rustc: &OsStr, kernel: &Path, image: &Path, drivers: bool) {
    let mut command = Command::new(rustc);
    if drivers {
        command.args(["--cfg", "drivers"]);
    }
    command
        .args(["--check-cfg", "cfg(drivers, test)"])
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            "reeve_guest_image",
        ])
        .args(["--target", TARGET])
        // Size is start time: the loader copies each page, the host allocates it.
        .args([
            "-C",
            "opt-level=z",
            "-C",
            "lto=fat",
            "-C",
            "codegen-units=1",
        ])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "debuginfo=0",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["-C", "target-cpu=x86-64", "-C", "overflow-checks=off"])
        .args(["-C", "force-unwind-tables=no"])
        .args([
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
            "-C",
            "link-arg=-no-pie",
        ])
        .args([
            "-C",
            "link-arg=-Wl,--build-id=none",
            "-C",
            "link-arg=-Wl,-z,noexecstack",
        ])
        .args(["-C", "link-arg=-Wl,-z,max-page-size=4096"])
        .arg("-C")
        .arg(format!("link-arg=-T{}", kernel.join("link.ld").display()))
        // The image must not depend on where it was built.
        .arg(format!("--remap-path-prefix={}=kernel", kernel.display()))
        .arg("-o")
        .arg(image)
        .arg(kernel.join("main.rs"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        command
            .arg("-C")
            .arg(format!("linker={}", linker.to_string_lossy()));
    }

    let output = command
        .output()
        .expect("the compiler that builds the workspace can be run");
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        panic!("the built-in guest does not compile:\n{messages}");
    }
    for line in messages.lines().filter(|line| !line.is_empty()) {
        println!("cargo::warning={line}");
    }
}
